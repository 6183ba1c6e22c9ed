#!/usr/bin/env python3
"""Runs of valgrind's memcheck: it sees the use of bytes that nobody has set, which no sanitizer of the other builds does. usage: run.py [--all]
A sample of the unit tests (--all: every one), and the program itself with its supervisor, its confinement and its threads: sample mail with
attachments and archives, a dry run, and an account fetched from and forwarded to servers of the crash tests. Ends with the count."""
import concurrent.futures, glob, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, TOP + "/tests/crash")
import world  # the POP3 and the SMTP server
BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
# a parser for each way in which bytes come in, and what keeps memory in a way of its own
SAMPLE = ["buf_arena_map", "header", "words", "params", "addr", "mime", "message", "tnef", "smime", "uu", "qp", "base64", "pop3", "plan",
          "sasl", "server", "str", "template", "unpack", "vectors"]
SLOW = 540      # seconds for one program
NOT = {"charset": "converts every charset whole: half an hour", "confine": "its processes try what seccomp ends, and valgrind with them"}
MAIL = sorted(glob.glob(TOP + "/tests/mail/*/*.eml"))
ALL = "--all" in sys.argv[1:]
passed = failed = skipped = 0

SCRIPT = r"""
mail.root "root"
mail.on_message(function(m)
  for part in m:attachments { unpack = true } do
    if not mail.seen(part) then part:save "files/{from.domain}/{name}" end
  end
  m.vars.x = #m.text + #(m.html or "") + #json.encode(m.subject) + (m:matches { subject = re [[(?i)\w+]], body = "*the*" } and 1 or 0)
  m:deliver("Archive/{vars.x|none}")
  m:save "raw/{index} {subject}.eml"
end)
"""
ACCOUNT = r"""
mail.account { name = "a", host = "127.0.0.1", port = %d, tls = false, plaintext_password = true, user = "u", password = secret.env "PW", leave_on_server = false }
mail.smarthost { host = "127.0.0.1", port = %d, tls = false, from = "me@example.org" }
mail.root "account"
mail.on_message(function(m)
  m:forward "z@example.org"
  for part in m:attachments() do part:save "parts/{name}" end
  m.vars.out = #(m:attachments()[1]:pipe { "cat" })
  m:deliver "All"
end)
"""


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL " + what)


def skip(why):
    global skipped
    skipped += 1
    print("skipped: memcheck: " + why)


def memcheck(d, name, cmd, env={}, cwd=None):
    """The exit status of cmd, and what valgrind wrote about it and all its children."""
    out = os.path.join(d, name)
    os.makedirs(out)
    env = dict(os.environ, HOME=out, TZ="UTC", LC_ALL="C.UTF-8", **env)
    try:
        p = subprocess.run(["valgrind", "-q", "--log-file=%s/vg.%%p" % out, "--leak-check=full", "--errors-for-leak-kinds=definite",
                            "--show-leak-kinds=definite", "--num-callers=20", "--fair-sched=yes", "--suppressions=%s/known.supp" % HERE, *cmd], cwd=cwd or out, env=env, timeout=SLOW,
                           stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        status, said = p.returncode, p.stdout.decode("utf-8", "replace")
    except subprocess.TimeoutExpired as e:
        status, said = -1, "not finished after %d s\n%s" % (SLOW, (e.stdout or b"").decode("utf-8", "replace"))
    found = "".join(open(f, errors="replace").read() for f in glob.glob(out + "/vg.*"))
    found = re.sub(r"(?m)^--\d+-- .*\n", "", found)   # of valgrind itself: system calls that are younger than it fail, as on an old kernel
    return status, said, re.sub(r"(?m)^==\d+== ?", "", found)


def clean(name, result, code=0):
    status, said, found = result
    check(status == code, "%s: exit status %d, not %d\n%s" % (name, status, code, said[-3000:]))
    check(not found.strip(), "%s: valgrind says\n%s" % (name, found[:6000]))
    return said


def units(d):
    have = {os.path.basename(p)[5:]: p for p in glob.glob(TOP + "/build/unit/test_*") if not p.endswith(".d")}
    for name in (sorted(NOT) if ALL else []):
        skip("test_%s: %s" % (name, NOT[name]))
    for name in SAMPLE:
        check(name in have, "there is no build/unit/test_" + name)
    wanted = [n for n in sorted(have) if n not in NOT and (ALL or n in SAMPLE)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for name, result in zip(wanted, pool.map(lambda n: memcheck(d, "unit-" + n, [have[n]], cwd=TOP), wanted)):
            clean("test_" + name, result)


def archive(d):
    script = os.path.join(d, "s.lua")
    with open(script, "w") as f:
        f.write(SCRIPT)
    mail = MAIL if ALL else MAIL[::12]
    for name, args in (("rehearsal", ["--dry-run"]), ("run", [])):
        clean(name, memcheck(d, name, [BINARY, "--state", "state", *args, script, TOP + "/examples/mail/sample.mbox", *mail]))
    kept = sum(len(files) for at, _, files in os.walk(d + "/root/Archive"))
    check(kept >= len(mail), "%d messages delivered of %d and more" % (kept, len(mail)))


def commands(d):
    for name, args in (("show", ["show", TOP + "/examples/mail/sample.mbox"]), ("extract", ["extract", "-o", "out", TOP + "/examples/mail/sample.mbox"]),
                       ("refused", ["-e", "print(m.nothing)", TOP + "/examples/mail/sample.mbox"])):
        result = memcheck(d, name, [BINARY, *args])
        clean(name, result, result[0] if name == "refused" and result[0] > 0 else 0)


def account(d):
    servers = world.Servers()
    drop, sink = servers.maildrop, servers.sink
    script = os.path.join(d, "account.lua")
    with open(script, "w") as f:
        f.write(ACCOUNT % (servers.pop3, servers.smtp))
    for n in range(2):   # the second finds nothing, and sends what waits
        clean("account %d" % n, memcheck(d, "account%d" % n, [BINARY, "--state", d + "/state", "--send", script], {"PW": "secret"}))
    check(not drop.left and len(sink.mails) == world.MESSAGES, "%d messages left on the server, %d sent" % (len(drop.left), len(sink.mails)))


if not shutil.which("valgrind"):
    skip("valgrind is not installed")
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)
with tempfile.TemporaryDirectory(prefix="mailmill-memcheck-") as scratch:
    os.chmod(scratch, 0o755)
    for part in (archive, commands, account, units):
        part(scratch)
print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
sys.exit(1 if failed else 0)
