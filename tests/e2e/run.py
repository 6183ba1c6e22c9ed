#!/usr/bin/env python3
"""The main job end to end: Dovecot → mailmill → Maildir, files, Postfix. usage: run.py [TEST ...]; ends with the count."""
import atexit, glob, gzip, os, random, re, shutil, signal, subprocess, tarfile, time, zipfile

import kit, servers
from kit import check, same

D = kit.scratch()
atexit.register(shutil.rmtree, D, ignore_errors=True)
REASON = servers.missing()
dovecot = postfix = None
MAILS = None


def start():
    global dovecot, postfix, MAILS
    if dovecot:
        return
    real = kit.corpus()
    MAILS = real + kit.generated(300 - len(real))
    servers.make_ca(D + "/ca")
    dovecot = servers.Dovecot(D + "/dovecot", D + "/ca")
    atexit.register(dovecot.close)
    postfix = servers.Postfix(D + "/postfix", D + "/ca", dovecot.auth)
    atexit.register(postfix.close)


SCRIPT = """
{account}
mail.root "{root}"
mail.smarthost {{ host = "localhost", port = {smtp}, user = "anna", password = secret.file "pw", ca_file = "{ca}/ca.pem",
                 from = "anna@example.com" }}
mail.on_message(function(m)
  m.vars.key = m.sha256
  m:deliver "All"
  for part in m:parts() do
    if part.name then part:save "parts/{{vars.key}}/{{index}} {{name}}" end
  end
  if m.sha256:sub(1, 1) == "0" then m:forward "sink@example.com" end
end)
"""
ACCOUNT = """mail.account {{ name = "work", host = "localhost", port = {port}, user = "{user}", password = secret.file "pw",
  ca_file = "{ca}/ca.pem", leave_on_server = {leave}{more} }}"""


class Case:
    """A directory with a script, a root and a state."""
    def __init__(self, name, user=None, leave="true", more="", script=SCRIPT, port=None):
        self.d = "%s/%s" % (D, name)
        shutil.rmtree(self.d, ignore_errors=True)
        os.makedirs(self.d)
        self.root, self.state, self.script = self.d + "/root", self.d + "/state", self.d + "/s.lua"
        with open(self.d + "/pw", "w") as f:
            f.write((dovecot.password if dovecot else "x") + "\n")
        os.chmod(self.d + "/pw", 0o600)
        account = ACCOUNT.format(port=port or (dovecot.tls if dovecot else 1), user=user, ca=D + "/ca", leave=leave, more=more) if user else ""
        with open(self.script, "w") as f:
            f.write(script.format(account=account, root=self.root, smtp=postfix.port if postfix else 1, ca=D + "/ca"))

    def run(self, *args, **kw):
        return kit.mailmill(self.script, "--state", self.state, *args, **kw)

    def delivered(self):
        return kit.maildir_hashes(self.root + "/All")


def expected_parts(mails):
    """[(message sha, index, {acceptable sha256 of the content})]"""
    out = []
    for m in mails:
        for i, p in enumerate(m.parts, 1):
            if p.get("filename"):
                ok = {p.get("sha256_lf"), p.get("sha256_crlf")} | {a.get(k) for a in p.get("alt", []) for k in ("sha256_lf", "sha256_crlf")}
                out.append((m.sha, i, ok))
    return out


def check_saved(case, mails, what):
    wrong = []
    for key, index, ok in expected_parts(mails):
        found = glob.glob("%s/parts/%s/%d *" % (case.root, key, index))
        if len(found) != 1 or kit.sha(open(found[0], "rb").read()) not in ok:
            wrong.append((key, index, found))
    same(wrong, [], what + ": attachments missing or different")


def forwarded_bytes(path):
    """The message/rfc822 inside a received forward, as its bytes stand there."""
    raw = open(path, "rb").read()
    boundary = re.search(rb'boundary="(=_mailmill_[0-9a-f]+)"', raw).group(1)
    for piece in raw.split(b"\n--" + boundary)[1:]:
        head, _, body = piece.lstrip(b"\n").partition(b"\n\n")
        if b"message/rfc822" in head:
            if b"base64" in head:
                import base64
                return base64.b64decode(body)
            return body
    return None


def main_job():
    """300 messages over TLS: each exactly once and byte for byte, every attachment, forwards as received, nothing left; again: nothing new."""
    if REASON:
        return kit.skip("main_job", REASON)
    start()
    kit.serve_maildir(dovecot, "anna", MAILS)
    case = Case("main", "anna")
    code, out, err = case.run()
    same(code, 0, "exit code: " + err[-800:])
    same(case.delivered(), sorted(m.sha for m in MAILS), "messages delivered")
    check_saved(case, MAILS, "main job")
    same(kit.staged_left(case.root, case.state), [], "left in staging")
    wanted = [m for m in MAILS if m.sha.startswith("0")]
    check(len(wanted) > 5, "the corpus has %d messages to forward" % len(wanted))
    got = postfix.wait(min(len(wanted), 20))
    same(len(got), min(len(wanted), 20), "forwards received (the flood guard lets 20 through)")
    for path in got:
        inner = forwarded_bytes(path)
        check(inner and kit.sha(inner) in {m.sha for m in wanted}, "a forward's message/rfc822 is a message of the mailbox: " + path)
        check(b"X-Mailmill-Action: " in open(path, "rb").read(), "a forward carries its action id")
    same(dovecot.count("anna"), len(MAILS), "messages left on the server")
    code, out, err = case.run()
    same(code, 0, "second run")
    same(case.delivered(), sorted(m.sha for m in MAILS), "after the second run")


def stls():
    """STLS on the plain port gives the same."""
    if REASON:
        return kit.skip("stls", REASON)
    start()
    kit.serve_maildir(dovecot, "stella", MAILS[:20])
    case = Case("stls", "stella", more=', tls = "starttls"', port=dovecot.plain)
    code, out, err = case.run("--send")
    same(code, 0, "STLS: " + err[-500:])
    same(case.delivered(), sorted(m.sha for m in MAILS[:20]), "over STLS")


def delete_after_durable():
    """leave_on_server = false: the server ends empty, and no DELE was sent before the names of what it deletes were durable (strace)."""
    if REASON:
        return kit.skip("delete_after_durable", REASON)
    start()
    mails = MAILS[:120]
    kit.serve_maildir(dovecot, "dora", mails)
    case = Case("delete", "dora", leave="false", more=", tls = false, plaintext_password = true", port=dovecot.plain)
    trace = case.d + "/trace"
    wrapper = ["strace", "-f", "-y", "-s", "16384", "-e", "trace=renameat2,rename,renameat,linkat,fsync,fdatasync,syncfs,sendto,sendmsg,write,writev",
               "-o", trace]
    code, out, err = case.run(wrapper=wrapper)
    same(code, 0, "exit code under strace: " + err[-500:])
    same(dovecot.count("dora"), 0, "messages left on the server")
    same(case.delivered(), sorted(m.sha for m in mails), "messages delivered")
    named = deleted = 0
    unsynced, early, wal = set(), [], 0
    for line in open(trace, encoding="latin-1"):
        if re.search(r"renameat2?\(|linkat\(", line) and "= 0" in line and "/All/" in line:
            named += 1
            unsynced.add("All/new")
            if not wal:
                early.append("a name before any commit")
        m = re.search(r"(fsync|fdatasync|syncfs)\(\d+<([^>]*)>", line)
        if m and m.group(2).endswith("-wal"):
            wal += 1
        if m and (m.group(2).endswith("/All/new") or m.group(1) == "syncfs"):
            unsynced.clear()
        if "TCP" in line or "socket:" in line:
            n = len(re.findall(r"DELE \d+", line))
            if n:
                deleted += n
                if deleted > named or unsynced:
                    early.append("%d deleted, %d named, unsynced %s" % (deleted, named, unsynced))
    same(named, len(mails), "renames into the Maildir seen in the trace")
    check(wal > 0, "no sync of the state's log was seen")
    same(deleted, len(mails), "DELEs seen in the trace")
    same(early, [], "DELEs before their message was durable")


def other_sources():
    """The same script on the same messages as mbox, Maildir and MH, and those compressed and packed, gives the same files."""
    mails = MAILS or kit.corpus()
    case = Case("mbox")
    box = case.d + "/all.mbox"
    with open(box, "wb") as f:
        for m in mails:
            f.write(b"From sender@example.com Mon Nov 23 10:00:00 2026\n" + re.sub(rb"(?m)^(>*From )", rb">\1", m.kept) + b"\n")
    md = case.d + "/Maildir"
    for s in ("cur", "new", "tmp"):
        os.makedirs(md + "/" + s)
    for i, m in enumerate(mails):
        with open("%s/cur/%d.x:2,S" % (md, 1700000000 + i), "wb") as f:
            f.write(m.kept)
    mh = case.d + "/mh"
    os.makedirs(mh)
    for i, m in enumerate(mails):
        with open("%s/%d" % (mh, i + 1), "wb") as f:
            f.write(m.kept)
    with open(box, "rb") as f, gzip.open(case.d + "/all.gz", "wb", 1) as out:
        shutil.copyfileobj(f, out)
    with zipfile.ZipFile(case.d + "/all.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.write(box, "export/all.mbox")
    with tarfile.open(case.d + "/maildir.txz", "w:xz", preset=0) as t:
        t.add(md, "Maildir")
    trees = []
    packed = (("gz", case.d + "/all.gz"), ("zip", case.d + "/all.zip"), ("txz", case.d + "/maildir.txz"))
    for name, source in (("mbox", box), ("maildir", md), ("mh", mh)) + packed:
        root = "%s/root-%s" % (case.d, name)
        code, out, err = case.run("--root", root, source)
        same(code, 0, name + ": " + err[-500:])
        same(kit.maildir_hashes(root + "/All"), sorted(m.sha for m in mails), "delivered from " + name)
        trees.append({p: kit.sha(b) for p, b in kit.files_below(root + "/parts").items()})
    for tree, name in zip(trees[1:], ("Maildir", "MH", "gz", "zip", "tar.xz")):
        same(tree, trees[0], "files saved from %s and from mbox" % name)


def kill_points():
    """kill -9 at random moments of a run, started again: nothing lost, nothing delivered twice, nothing left, the server empty."""
    if REASON:
        return kit.skip("kill_points", REASON)
    start()
    points, mails = int(os.environ.get("KILL_POINTS", "100")), MAILS[:80]
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 10**6)
    rng = random.Random(seed)
    print("# kill_points: seed %d, %d points" % (seed, points))
    took = None
    bad, unfinished = [], 0
    for i in range(points + 1):
        user = "kim%d" % (i % 4)
        kit.serve_maildir(dovecot, user, mails)
        case = Case("kill", user, leave="false")
        began = time.monotonic()
        p = subprocess.Popen([kit.BINARY, case.script, "--state", case.state], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL, start_new_session=True)
        if took is None:
            p.wait(120)
            took = time.monotonic() - began
            same(case.delivered(), sorted(m.sha for m in mails), "undisturbed run")
            continue
        time.sleep(rng.uniform(0, took))
        unfinished += p.poll() is None
        try:
            os.killpg(p.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        p.wait()
        for attempt in range(40):   # the server may hold the mailbox for a moment
            code, out, err = case.run()
            if code == 0:
                break
            time.sleep(0.25)
        trouble = [what for what, ok in (
            ("exit %d: %s" % (code, err[-300:]), code == 0), ("delivered %d" % len(case.delivered()), case.delivered() == sorted(m.sha for m in mails)),
            ("left on server: %d" % dovecot.count(user), dovecot.count(user) == 0),
            ("staging: %r" % kit.staged_left(case.root, case.state), not kit.staged_left(case.root, case.state))) if not ok]
        if trouble:
            bad.append((i, trouble))
    check(unfinished > points / 3, "only %d of %d kills hit a running program" % (unfinished, points))
    same(bad, [], "after kill -9 (%d of %d kills hit a running program)" % (unfinished, points))


def wrong_password():
    if REASON:
        return kit.skip("wrong_password", REASON)
    start()
    kit.serve_maildir(dovecot, "walt", MAILS[:2])
    case = Case("password", "walt")
    with open(case.d + "/pw", "w") as f:
        f.write("wrong-canary-7f3a\n")
    code, out, err = case.run()
    same(code, 77, "exit code (EX_NOPERM)")
    check("work" in err and ("password" in err.lower() or "auth" in err.lower()), "the error names account and reason: " + err)
    check("canary" not in err + out, "the password is not in the output")
    state = b"".join(kit.files_below(case.state).values())
    check(b"canary" not in state, "the password is not in the state")


def bad_certificates():
    if REASON:
        return kit.skip("bad_certificates", REASON)
    start()
    for cert, word in (("expired", "expired"), ("wrong", "localhost")):
        other = servers.Dovecot("%s/dovecot-%s" % (D, cert), D + "/ca", cert)
        try:
            kit.serve_maildir(other, "tess", MAILS[:2])
            case = Case("cert-" + cert, "tess", port=other.tls)
            code, out, err = case.run()
            check(code not in (0, 75), "%s: exit code %d" % (cert, code))
            check(word in err and "work" in err, "%s: the error says what is wrong: %s" % (cert, err))
            check(not os.path.isdir(case.root + "/All"), cert + ": nothing delivered")
            log = open(other.d + "/dovecot.log").read()
            check("user=<tess>" not in log, cert + ": no credential was sent")
        finally:
            other.close()


def disk_full():
    """A small tmpfs fills up: nothing is lost, nothing half done; with room the next run finishes."""
    if REASON:
        return kit.skip("disk_full", REASON)
    start()
    mails = kit.generated(200, seed=9)
    kit.serve_maildir(dovecot, "finn", mails)
    case = Case("full", "finn", leave="false")
    os.makedirs(case.root)
    p = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", case.root], stderr=subprocess.PIPE)
    if p.returncode:
        return kit.skip("disk_full", "no tmpfs can be mounted here: " + p.stderr.decode().strip())
    try:
        code, out, err = case.run()
        check(code not in (0,), "exit code is 0 with a full disk")
        check("space" in err.lower(), "the error says so: " + err[-500:])
        check(len(set(case.delivered())) + dovecot.count("finn") >= len(mails), "a message is neither delivered nor on the server")
        check(all(h in {m.sha for m in mails} for h in case.delivered()), "what is there is whole")
        subprocess.run(["mount", "-o", "remount,size=64m", case.root], check=True)
        for attempt in range(40):
            code, out, err = case.run()
            if code == 0:
                break
            time.sleep(0.25)
        same(code, 0, "with room again: " + err[-500:])
        same(case.delivered(), sorted(m.sha for m in mails), "with room again")
        same(dovecot.count("finn"), 0, "left on the server")
        same(kit.staged_left(case.root, case.state), [], "left in staging")
    finally:
        subprocess.run(["umount", "-l", case.root])


RAISES = """
{account}
mail.root "{root}"
mail.on_message(function(m)
  if m.sha256 == "@BAD@" then error("what a message") end
  m:deliver "All"
end)
"""


def raising_script():
    """A script that raises on the third of five messages: four settle, one is held, exit code not 0, traceback shown; mended, it is delivered."""
    if REASON:
        return kit.skip("raising_script", REASON)
    start()
    mails = MAILS[:5]
    kit.serve_maildir(dovecot, "rita", mails)
    case = Case("raise", "rita", leave="false", script=RAISES)
    text = open(case.script).read()
    open(case.script, "w").write(text.replace("@BAD@", mails[2].sha))
    code, out, err = case.run()
    check(code != 0, "exit code is 0 though a message is held")
    check("what a message" in err and "s.lua" in err and "traceback" in err.lower(), "traceback shown: " + err)
    same(case.delivered(), sorted(m.sha for i, m in enumerate(mails) if i != 2), "the other four")
    same(dovecot.count("rita"), 1, "the held one stays on the server")
    code, out, err = kit.mailmill("state", "--state", case.state)
    check("what a message" in out + err, "mailmill state shows the reason: " + out + err)
    open(case.script, "w").write(text)
    code, out, err = case.run()
    same(code, 0, "with the mended script: " + err[-500:])
    same(case.delivered(), sorted(m.sha for m in mails), "all five")


LOOPS = """
{account}
mail.root "{root}"
mail.limits {{ cpu = 0.3 }}
mail.on_message(function(m)
  if m.sha256 == "@BAD@" then while true do pcall(function() while true do end end) end end
  m:deliver "All"
end)
"""


def looping_script():
    """An endless loop in a handler is ended; the message is held, the others go on."""
    mails = (MAILS or kit.corpus(5))[:5]
    case = Case("loop", script=LOOPS)
    text = open(case.script).read()
    open(case.script, "w").write(text.replace("@BAD@", mails[2].sha))
    md = case.d + "/in"
    os.makedirs(md)
    for i, m in enumerate(mails):
        open("%s/%d.eml" % (md, i), "wb").write(m.kept)
    began = time.monotonic()
    code, out, err = case.run(md, timeout=60)
    check(code != 0, "exit code is 0 though a message is held")
    check(time.monotonic() - began < 20, "it took %.1f s" % (time.monotonic() - began))
    same(case.delivered(), sorted(m.sha for i, m in enumerate(mails) if i != 2), "the other four")


BUSY = """
mail.root "{root}"
local n = 0
mail.on_message(function(m)
  n = n + 1
  if n == 400 then log.warn "in hand" for i = 1, 2e8 do end end
  m:deliver "All"
end)
"""


def worker_dies():
    """The worker dies half-way through an archive: the supervisor starts it again, the message in hand is held, no other is lost or comes twice."""
    mails = kit.generated(600, seed=5)
    case = Case("dies", script=BUSY)
    box = case.d + "/all.mbox"
    with open(box, "wb") as f:
        for m in mails:
            f.write(b"From sender@example.com Mon Nov 23 10:00:00 2026\n" + re.sub(rb"(?m)^(>*From )", rb">\1", m.kept) + b"\n")
    p = subprocess.Popen([kit.BINARY, case.script, box, "--state", case.state], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE)
    said = p.stderr.readline().decode()
    check("in hand" in said, "the script's word: " + said)
    worker = int(open("/proc/%d/task/%d/children" % (p.pid, p.pid)).read().split()[0])
    os.kill(worker, signal.SIGSEGV)
    err = p.communicate(timeout=120)[1].decode("utf-8", "replace")
    same(p.returncode, 75, "exit code: " + err[-500:])
    check("starting again" in err, "the run says that it began again: " + err[-500:])
    got = case.delivered()
    same(len(got), len(set(got)), "messages that came twice")
    same(sorted(set(m.sha for m in mails) - set(got)), [mails[399].sha], "messages not delivered (the one in hand is held): " + err[-500:])
    code, out, err = case.run("--failed", box)
    same(code, 0, "--failed: " + err[-500:])
    same(case.delivered(), sorted(m.sha for m in mails), "with the held one tried again")


def syntax_error():
    case = Case("syntax", script="mail.on_message(function(m)\n  if m.size > 1 them\nend)\n")
    code, out, err = case.run(kit.TOP + "/tests/mail/cpython/msg_01.txt")
    same(code, 65, "exit code (EX_DATAERR)")
    check("s.lua:2" in err, "the error names file and line: " + err)


kit.tests(main_job, stls, delete_after_durable, other_sources, wrong_password, bad_certificates, raising_script, looping_script, worker_dies, syntax_error,
          disk_full, kill_points)
