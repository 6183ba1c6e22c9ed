"""The world that the crash tests destroy: ten messages, a POP3 server and an SMTP server that remember everything, one script that uses every kind
of effect, and what must be true of it all at any moment and at the end."""
import base64, collections, ctypes, glob, hashlib, json, mmap, os, random, re, select, shutil, signal, socket, sqlite3, ssl, struct, subprocess, sys
import threading, time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("MAILMILL", TOP + "/build/mailmill")
TIMEOUT = 60      # seconds that one run may take: an undisturbed one takes 0.1, but SQLite tries for 10 s to get a lock that nobody gives back
MESSAGES, HELD, FORWARDED, ONCE, COMMANDED = 10, 10, 3, 4, 5


DEAD = 3          # an outbox item's state in the ledger


def sha(b):
    return hashlib.sha256(b).hexdigest()


# ---- the mail ----

def make_mail(n):
    rng = random.Random(n)
    files = [("file %d-%d.bin" % (n, i), rng.randbytes(150000 if (n, i) == (7, 2) else rng.randrange(200, 3000))) for i in range(3)]
    text = ("From: Sender %d <s%d@example.net>\nTo: anna@example.com\nSubject: message %d\nDate: Mon, 2 Nov 2026 10:00:00 +0000\n"
            "Message-ID: <%d@example.net>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b%d\n\n--b%d\nContent-Type: text/plain\n\n"
            "Hello %d\n.dot\n\nFrom here\n" % (n, n, n, n, n, n, n))
    for name, data in files:
        text += ("--b%d\nContent-Type: application/octet-stream; name=\"%s\"\nContent-Transfer-Encoding: base64\n"
                 "Content-Disposition: attachment; filename=\"%s\"\n\n%s" % (n, name, name, base64.encodebytes(data).decode()))
    return (text + "--b%d--\n" % n).encode(), files


MAIL = {n: make_mail(n) for n in range(1, MESSAGES + 1)}
KEPT = {sha(MAIL[n][0]): n for n in MAIL}
PARTS = {"parts/%d/%d %s" % (n, i + 2, name): data for n in MAIL for i, (name, data) in enumerate(MAIL[n][1])}
MBOXED = [n for n in MAIL if n % 2 == 0]


def quoted(n):
    return re.sub(rb"(?m)^(>*From )", rb">\1", MAIL[n][0]) + b"\n"


# ---- the servers ----

class Lines:
    def __init__(self, s):
        self.s, self.have = s, b""

    def line(self):
        while b"\n" not in self.have:
            got = self.s.recv(65536)
            if not got:
                return None
            self.have += got
        line, self.have = self.have.split(b"\n", 1)
        return line.rstrip(b"\r").decode("latin-1")


def stuffed(text):
    text = text.replace(b"\n", b"\r\n")
    return re.sub(rb"(?m)^\.", b"..", text) + b".\r\n"


class Maildrop:
    """What the POP3 server has; a DELE counts only when QUIT came. events: what the client did, in order, run by run."""
    def __init__(self, mail=MAIL):
        self.left = dict(mail)      # number that never changes (its UID) -> (bytes, files)
        self.events = []
        self.dead = False           # of an earlier point: its sessions must not touch anything


class Sink:
    """What the SMTP server took: (run, action id, body, time before the final answer in ns, recipient)."""
    def __init__(self):
        self.mails = []
        self.run = 0


class Servers:
    def __init__(self):
        self.maildrop, self.sink = Maildrop(), Sink()
        self.active, self.cond = 0, threading.Condition()
        self.pop3, self.smtp, self.pop3s = self.listen(self.talk_pop3), self.listen(self.talk_smtp), 0

    def offer_tls(self, d):
        """POP3 by TLS as well, with a certificate made in d: for t4, in which OpenSSL is to be short of memory too."""
        made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-subj", "/CN=localhost",
                               "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", d + "/key.pem", "-out", d + "/cert.pem"], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60)
        if made.returncode:
            raise Violation("openssl: " + made.stdout.decode("utf-8", "replace"))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(d + "/cert.pem", d + "/key.pem")
        self.certificate = open(d + "/cert.pem").read()
        self.pop3s = self.listen(lambda c: self.talk_pop3(context.wrap_socket(c, server_side=True)))

    def listen(self, talk):
        s = socket.create_server(("127.0.0.1", 0), backlog=64)
        threading.Thread(target=self.accept, args=(s, talk), daemon=True).start()
        return s.getsockname()[1]

    def accept(self, s, talk):
        while True:
            c, _ = s.accept()
            c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.cond:
                self.active += 1
            threading.Thread(target=self.session, args=(c, talk), daemon=True).start()

    def session(self, c, talk):
        try:
            talk(c)
        except OSError:
            pass
        finally:
            c.close()
            with self.cond:
                self.active -= 1
                self.cond.notify_all()

    def quiet(self):
        """Waits until every session has seen the end of its client."""
        with self.cond:
            return self.cond.wait_for(lambda: self.active == 0, 10)

    def talk_pop3(self, c):
        drop = self.maildrop
        mail, here, deleted, io = dict(drop.left), sorted(drop.left), set(), Lines(c)
        c.sendall(b"+OK ready\r\n")
        while True:
            line = io.line()
            if line is None:
                return
            word, _, arg = line.partition(" ")
            word = word.upper()
            numbers = [int(x) for x in arg.split() if x.isdigit()]
            uid = here[numbers[0] - 1] if numbers and 0 < numbers[0] <= len(here) else None
            if word == "CAPA":
                out = b"+OK\r\nTOP\r\nUIDL\r\nUSER\r\nPIPELINING\r\n.\r\n"
            elif word in ("USER", "PASS", "NOOP"):
                out = b"+OK\r\n"
            elif word == "STAT":
                out = b"+OK %d %d\r\n" % (len(here), sum(len(mail[u][0]) + mail[u][0].count(b"\n") for u in here))
            elif word in ("LIST", "UIDL") and (uid or not arg):
                rows = [b"%d %s\r\n" % (i + 1, b"u%d" % u if word == "UIDL" else b"%d" % (len(mail[u][0]) + mail[u][0].count(b"\n"))) for i, u in enumerate(here)]
                out = b"+OK " + rows[numbers[0] - 1] if uid else b"+OK\r\n" + b"".join(rows) + b".\r\n"
            elif word == "RETR" and uid:
                drop.events.append(("RETR", uid))
                out = b"+OK\r\n" + stuffed(mail[uid][0])
            elif word == "TOP" and uid:
                drop.events.append(("TOP", uid))
                head, _, body = mail[uid][0].partition(b"\n\n")
                out = b"+OK\r\n" + stuffed(head + b"\n\n" + b"".join(body.splitlines(True)[:numbers[1]] if len(numbers) > 1 else []))
            elif word == "DELE" and uid:
                drop.events.append(("DELE", uid))
                deleted.add(uid)
                out = b"+OK\r\n"
            elif word == "RSET":
                deleted.clear()
                out = b"+OK\r\n"
            elif word == "QUIT":
                drop.events.append(("QUIT", len(deleted)))
                for u in deleted:
                    drop.left.pop(u, None)
                c.sendall(b"+OK bye\r\n")
                return
            else:
                out = b"-ERR what is %s\r\n" % word.encode()
            c.sendall(out)

    def talk_smtp(self, c):
        sink, io, to = self.sink, Lines(c), None
        c.sendall(b"220 sink ESMTP\r\n")
        while True:
            line = io.line()
            if line is None:
                return
            word = line.split(" ")[0].split(":")[0].upper()
            if word == "RCPT":
                to = line[line.index("<") + 1:line.index(">")]
            if word == "EHLO":
                c.sendall(b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE 10000000\r\n")
            elif word == "DATA":
                c.sendall(b"354 go on\r\n")
                body = []
                while True:
                    text = io.line()
                    if text is None:
                        return
                    if text == ".":
                        break
                    body.append(text[1:] if text.startswith(".") else text)
                body = "\n".join(body) + "\n"
                action = re.search(r"(?m)^X-Mailmill-Action: (\S+)", body)
                sink.mails.append((sink.run, action.group(1) if action else None, body.encode("latin-1"), time.monotonic_ns(), to))
                c.sendall(b"250 taken\r\n")
            elif word == "QUIT":
                c.sendall(b"221 bye\r\n")
                return
            else:
                c.sendall(b"250 ok\r\n")


# ---- the shim ----

def _calls():
    text = open(TOP + "/tests/crash/shim.c").read()
    return re.findall(r"C_(\w+)", text[text.index("/*calls*/"):text.index("/*end*/")])


CALLS = _calls()
ROLES = ["supervisor", "worker"]
ACTIONS = {"count": 0, "before": 1, "after": 2, "fail": 3, "lie": 4, "short": 5}
VICTIMS = {"self": 1, "other": 2, "both": 3}
HEAD = struct.Struct("<IIIIQQQII")              # roles action error victim calls nth span alternate pad
ANSWER = struct.Struct("<QIiiIIIq24QQ")         # hits fired pid[2] fired_role fired_call frames_n fired_ns frames base
COUNTS = struct.Struct("<128I")
EVENT = struct.Struct("<BBhii")
EVENTS, SITES = 16384, 1 << 18


class Plan:
    """What the shim is to do, as one word: ROLE:CALL[+CALL]:NTH:WHAT[:MORE]. WHAT before, after (a kill; MORE: self, other, both), fail, lie, short
    (MORE: the error, and of how many: `fail:ENOSPC`, `fail:ENOSPC:all` from NTH on, `fail:EINTR:half` every other)."""
    def __init__(self, word):
        import errno
        self.word = word
        role, calls, nth, what, *more = word.split(":")
        self.roles = 3 if role == "any" else 1 << ROLES.index(role)
        self.calls = sum(1 << CALLS.index(c) for c in calls.split("+"))
        self.nth, self.action = int(nth), ACTIONS[what]
        self.victim, self.error, self.span, self.alternate = 1, 0, 1, 0
        if what in ("before", "after"):
            self.victim = VICTIMS[more[0] if more else "self"]
        elif more:
            self.error = getattr(errno, more[0], 0)
            if len(more) > 1:
                self.span, self.alternate = 0, int(more[1] == "half")
        self.kills = what in ("before", "after")

    def pack(self):
        return HEAD.pack(self.roles, self.action, self.error, self.victim, self.calls, self.nth, self.span, self.alternate, 0)


COUNT = "any:open:1:count"


class Shim:
    def __init__(self, path):
        self.path, self.size = path, HEAD.size + ANSWER.size + COUNTS.size + 8 + EVENT.size * EVENTS + 2 * 4 * SITES
        with open(path, "wb") as f:
            f.truncate(self.size)
        with open(path, "r+b") as f:
            self.map = mmap.mmap(f.fileno(), self.size)

    def arm(self, plan):
        head = HEAD.size + ANSWER.size + COUNTS.size + 8
        self.map[:head] = bytes(head)
        self.map[:HEAD.size] = plan.pack()

    def read(self):
        a = ANSWER.unpack_from(self.map, HEAD.size)
        counts = COUNTS.unpack_from(self.map, HEAD.size + ANSWER.size)
        self.hits, self.fired, self.fired_ns = a[0], a[1], a[7]
        self.frames, self.base = a[8:8 + a[6]], a[32]
        self.refused = struct.unpack_from("<I", self.map, HEAD.size + ANSWER.size + COUNTS.size + 4)[0]
        self.counts = {(ROLES[r], c): counts[64 * r + i] for r in (0, 1) for i, c in enumerate(CALLS) if counts[64 * r + i]}

    def events(self):
        at = HEAD.size + ANSWER.size + COUNTS.size
        n = min(struct.unpack_from("<I", self.map, at)[0], EVENTS)
        return [(ROLES[r], CALLS[c], err, tid, fd) for r, c, err, tid, fd in
                (EVENT.unpack_from(self.map, at + 8 + i * EVENT.size) for i in range(n))]

    def sites(self):
        """(role, who asked) of each allocation that was counted, in order"""
        at = HEAD.size + ANSWER.size + COUNTS.size + 8 + EVENT.size * EVENTS
        return {r: struct.unpack_from("<%dI" % min(self.counts.get((r, "alloc"), 0), SITES), self.map, at + 4 * SITES * i) for i, r in enumerate(ROLES)}

    def where(self):
        """The functions of the program in which it fired, innermost first."""
        if not self.frames:
            return ""
        p = subprocess.run(["addr2line", "-f", "-e", BINARY] + ["%#x" % (f - self.base) for f in self.frames], stdout=subprocess.PIPE,
                           stderr=subprocess.DEVNULL)
        names = p.stdout.decode().split("\n")[::2]
        return " < ".join(n for n in names if n and n != "??")


# ---- one life ----

SCRIPT = """
mail.account {{ name = "work", host = "127.0.0.1", port = {pop3}, user = "anna", password = secret.file "pw", {tls},
               leave_on_server = false }}
mail.root "{root}"
mail.smarthost {{ host = "127.0.0.1", port = {smtp}, tls = false, from = "anna@example.com" }}
mail.on_message(function(m)
  local n = tonumber(m.subject:match "%d+")
  m.vars.n = n
  local count = mail.store "count"
  count.total = (count.total or 0) + 1
  count["m" .. n] = (count["m" .. n] or 0) + 1
  m:deliver "{folder}"
  if n % 2 == 0 then m:deliver("box", {{ format = "mbox" }}) end
  for part in m:attachments() do part:save "parts/{{vars.n}}/{{index}} {{name}}" end
  if n == 3 then m:forward "sink@example.com" end
  if n == 4 then m:forward("once@example.com", {{ at_most_once = true }}) end
  if n == 5 then m:run_after {{ "/bin/sh", "-c", 'n=$(wc -c); echo "$MAILMILL_ACTION $n" >> "$0"', "{commands}" }} end
  if n == 10 and {broken} then error "not this one" end
end)
"""


class Violation(Exception):
    pass


class World:
    """A root, a state, a mailbox and a sink, all new; and runs in it, each of which is checked. archive: the mail lies in an mbox, which is only read."""
    def __init__(self, servers, d, archive=False, tls=False):
        self.servers, self.d, self.archive, self.tls = servers, d, archive, tls
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        os.chmod(d, 0o700)
        self.root, self.state, self.script, self.commands = d + "/root", d + "/state", d + "/s.lua", d + "/commands"
        servers.quiet()
        self.drop, self.sink = servers.maildrop, servers.sink = Maildrop(), Sink()
        self.write("pw", "secret\n")
        if tls and not servers.pop3s:
            servers.offer_tls(d)
        if tls:
            self.write("ca.pem", servers.certificate)
        if archive:
            with open(d + "/mail.mbox", "wb") as f:
                f.write(b"".join(b"From sender@example.net Mon Nov  2 10:00:00 2026\n" + quoted(n) for n in MAIL))
        self.shim = Shim(d + "/shim")
        self.broken, self.folder, self.runs, self.trouble, self.said = True, "All", 0, [], []
        self.held_seen = False

    def write(self, name, text):
        with open(self.d + "/" + name, "w") as f:
            f.write(text)
        os.chmod(self.d + "/" + name, 0o600)

    def bad(self, what):
        self.trouble.append("run %d: %s" % (self.runs, what))

    def write_script(self):
        tls = "tls = true, ca_file = \"ca.pem\"" if self.tls else "tls = false, plaintext_password = true"
        self.write("s.lua", SCRIPT.format(pop3=self.servers.pop3s if self.tls else self.servers.pop3, tls=tls, smtp=self.servers.smtp, root=self.root, commands=self.commands,
                                          broken=str(self.broken).lower(), folder=self.folder))

    # -- running --

    def run(self, word=COUNT, args=()):
        """One run under a plan; -> exit code, or minus the signal."""
        self.write_script()
        self.runs += 1
        self.args = args
        self.sink.run = self.runs
        self.before = self.look()
        self.shim.arm(Plan(word))
        del self.drop.events[:]
        env = {"PATH": "/usr/bin:/bin", "HOME": self.d, "LC_ALL": "C.UTF-8", "LD_PRELOAD": shim_path(), "MAILMILL_SHIM": self.shim.path}
        out = self.d + "/out"
        argv = [BINARY, *args, self.script, *([self.d + "/mail.mbox", "--send"] if self.archive and "flush" not in args else []), "--state", self.state]
        pid = os.posix_spawn(BINARY, argv, env, setsid=True, file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2)])
        code = self.await_end(pid)
        with open(out, "rb") as f:
            self.output = f.read().decode("utf-8", "replace")
        self.said.append(self.output)
        self.shim.read()
        self.fired = self.fired_at = 0
        if self.shim.fired:
            self.fired, self.fired_at = self.shim.fired, self.shim.fired_ns
        if self.shim.refused:
            self.bad("the shim could not kill (errno %d): is the program confined against it?" % self.shim.refused)
        if not self.servers.quiet():
            self.bad("a session is still open after the program has ended")
        self.check_always(code)
        return code

    def await_end(self, pid):
        fd = os.pidfd_open(pid)
        p = select.poll()
        p.register(fd, select.POLLIN)
        if not p.poll(TIMEOUT * 1000):
            self.bad("no end after %d s: %s" % (TIMEOUT, stacks(pid)))
            os.killpg(pid, signal.SIGKILL)
        os.close(fd)
        status = os.waitpid(pid, 0)[1]
        end = time.monotonic() + 5
        while True:                      # a worker whose supervisor was killed dies with it
            try:
                if os.waitpid(-pid, os.WNOHANG)[0] == 0:
                    if time.monotonic() > end:
                        self.bad("the worker lives 5 s after its supervisor has died")
                        os.killpg(pid, signal.SIGKILL)
                        end += 5
                    time.sleep(0.0005)
            except ChildProcessError:
                break
        return os.waitstatus_to_exitcode(status)

    # -- looking --

    def look(self):
        """What the state holds, read from a copy of the database."""
        seen = {"outbox": {}, "renames": [], "appends": 0, "marks": {}, "deleted": set(), "stores": {}, "held": {}, "dead": []}
        if not os.path.exists(self.state + "/state.db"):
            return seen
        copy = self.d + "/copy"
        for end in ("", "-wal"):
            if os.path.exists(self.state + "/state.db" + end):
                shutil.copyfile(self.state + "/state.db" + end, copy + end)
        db = sqlite3.connect(copy)
        try:
            if db.execute("SELECT count(*) FROM sqlite_master WHERE name='store'").fetchone()[0] == 0:
                return seen
            rows = db.execute("SELECT action, kind, state, tries, at_most_once FROM outbox").fetchall()
            seen["outbox"] = {a.decode(): (kind, state, tries) for a, kind, state, tries, once in rows if not (once and state == DEAD)}
            seen["dead"] = [a for a, kind, state, tries, once in rows if once and state == DEAD]
            seen["renames"] = [os.path.join(d.decode(), n.decode()) for d, n in db.execute("SELECT staged_dir, staged FROM rename")]
            seen["appends"] = db.execute("SELECT count(*) FROM append").fetchone()[0]
            for uid, state, deleted, spool in db.execute("SELECT uid, state, deleted, spool FROM mark"):
                n = int(uid[1:]) if uid.startswith(b"u") else 0     # an archive's are held ones only
                seen["marks"][n] = state
                if deleted:
                    seen["deleted"].add(n)
                if state != 1:
                    seen["held"][n] = spool.decode()
            seen["stores"] = {k.decode("latin-1"): v for k, v in db.execute("SELECT key, value FROM store")}
        except sqlite3.DatabaseError as e:
            self.bad("the state is damaged: %s" % e)
        finally:
            db.close()
            for f in glob.glob(copy + "*"):
                os.unlink(f)
        return seen

    def files(self):
        out = {}
        for base, dirs, names in os.walk(self.root):
            for n in names:
                path = os.path.join(base, n)
                with open(path, "rb") as f:
                    out[os.path.relpath(path, self.root)] = f.read()
        return out

    def hidden(self, path):
        return "/tmp/" in path or os.path.basename(path).startswith(".")

    def delivered(self, files):
        """numbers of the messages in the folder, with repeats; what is no whole message counts as 0"""
        return [KEPT.get(sha(b), 0) for p, b in files.items() if re.match(r"\w+/(new|cur)/", p)]

    def mboxed(self, files):
        """-> numbers of the whole messages in the mbox, and what stands behind them"""
        rest, out = files.get("box", b""), []
        while rest:
            m = re.match(rb"From \S+ \w+ \w+ +\d+ [\d:]+ \d+\n", rest)
            n = next((n for n in MBOXED if m and rest[m.end():].startswith(quoted(n))), None)
            if n is None:
                break
            out.append(n)
            rest = rest[m.end() + len(quoted(n)):]
        return out, rest

    def ran(self):
        """action ids of the command, each time it ran, with the size of what it got"""
        try:
            with open(self.commands) as f:
                return [tuple(l.split()) for l in f]
        except FileNotFoundError:
            return []

    # -- what is always true --

    def check_always(self, code):
        files, now = self.files(), self.look()
        self.now, self.found = now, files
        got = collections.Counter(self.delivered(files))
        if 0 in got:
            self.bad("%d files in the folder are no whole message" % got[0])
        if any(c > 1 for c in got.values()):
            self.bad("delivered twice: %s" % [n for n, c in got.items() if c > 1])
        boxed, torn = self.mboxed(files)
        if len(set(boxed)) < len(boxed):
            self.bad("appended twice: %s" % boxed)
        if torn and not (self.fired and now["appends"]):
            self.bad("%d bytes behind the last whole message of the mbox, and nothing in the journal: %r" % (len(torn), torn[:80]))
        for p, b in files.items():
            if p.startswith("parts/") and not self.hidden(p) and PARTS.get(p) != b:
                self.bad("%s is not what was attached (%d bytes)" % (p, len(b)))
        for n in MAIL:
            if n in self.drop.left:
                continue
            if not got[n]:
                self.bad("LOST: message %d is gone from the server and is not here" % n)
            if n in MBOXED and n not in boxed:
                self.bad("LOST: message %d is gone from the server and is not in the mbox" % n)
            if any(p not in files for p in PARTS if p.startswith("parts/%d/" % n)):
                self.bad("LOST: message %d is gone from the server and its attachments are not here" % n)
        if self.archive and self.drop.events:
            self.bad("the account was asked, though an archive was named")
        for n, spool in now["held"].items():
            if n not in self.drop.left and not os.path.exists("%s/spool/%s" % (self.state, spool)):
                self.bad("LOST: message %d is held, not on the server, and its bytes are not in the spool" % n)
        self.check_outward(now)
        if code == 0 and not self.args and (now["held"] or (self.drop.left and not self.archive and not self.told())):
            self.bad("exit code 0, though %d messages are held and %d are left on the server" % (len(now["held"]), len(self.drop.left)))
        if self.tls and ("died of signal" in self.output or code < 0):
            self.bad("a crash for want of memory: " + self.output[-300:])
        if "Sanitizer" in self.output or "runtime error" in self.output:
            self.bad("a sanitizer spoke: " + self.output[-3000:])

    def check_outward(self, now):
        """A forward or a command of which the state knew, at the start of this run, that it is done, is not repeated; and within a run only
        where the worker was killed between the two."""
        for to in ("sink@example.com", "once@example.com"):
            mails = [(r, a, t) for r, a, _, t, rcpt in self.sink.mails if rcpt == to]
            earlier, times = {a for r, a, _ in mails if r < self.runs}, [t for r, _, t in mails if r == self.runs]
            if len({a for _, a, _ in mails}) > 1 or any(a is None for _, a, _ in mails):
                self.bad("forwards to %s carry different action ids: %s" % (to, {a for _, a, _ in mails}))
            if times and earlier - set(self.before["outbox"]):
                self.bad("a forward to %s was sent again that had been recorded as sent" % to)
            if len(times) > 1 and not any(t <= self.fired_at <= u for t, u in zip(times, times[1:])):
                self.bad("a forward to %s was sent %d times in one run" % (to, len(times)))
            if to.startswith("once") and len(mails) > 1:
                self.bad("a forward with at_most_once was sent %d times" % len(mails))
        ran = self.ran()
        if len(ran) > getattr(self, "ran_before", 0):
            if getattr(self, "ran_before", 0) and ran[0][0] not in self.before["outbox"]:
                self.bad("a command was run again that had been recorded as done")
            if len(ran) - getattr(self, "ran_before", 0) > 1 and not self.fired:
                self.bad("a command ran %d times in one run" % (len(ran) - self.ran_before))
        if len({a for a, *_ in ran}) > 1:
            self.bad("commands carry different action ids: %s" % ran)
        if any(len(r) != 2 or int(r[1]) != len(MAIL[COMMANDED][0]) for r in ran):
            self.bad("the command did not get the whole message: %s, not %d" % (ran, len(MAIL[COMMANDED][0])))
        self.ran_before = len(ran)

    def told(self):
        """A session that broke between DELE and QUIT's answer is no failure of any message, but it has to be said."""
        return "in the next run" in self.output

    # -- what is true at the end --

    def done(self, but=(), tidy=True):
        """Everything of every message but these is in place, and (tidy) nothing else is. -> what is not, as text"""
        files, now, wrong = self.found, self.now, []
        want = sorted(set(MAIL) - set(but))
        if sorted(self.delivered(files)) != want:
            wrong.append("delivered %s" % sorted(self.delivered(files)))
        boxed, torn = self.mboxed(files)
        if sorted(boxed) != sorted(set(MBOXED) - set(but)) or torn:
            wrong.append("in the mbox %s and %d bytes" % (sorted(boxed), len(torn)))
        parts = {p for p in PARTS if int(p.split("/")[1]) in want}
        if parts - set(files):
            wrong.append("not saved: %s" % sorted(parts - set(files)))
        extra = [p for p in files if p != "box" and p not in parts and not re.match(r"\w+/(new|cur)/", p)]
        if extra and (tidy or not all(self.hidden(p) for p in extra)):
            wrong.append("left over: %s" % extra)
        if not self.archive and sorted(self.drop.left) != sorted(but) and (tidy or not self.told()):
            wrong.append("on the server: %s" % sorted(self.drop.left))
        if tidy and (now["renames"] or now["appends"]):
            wrong.append("in the journal: %d renames, %d appends" % (len(now["renames"]), now["appends"]))
        if sorted(now["held"]) != sorted(but):
            wrong.append("held: %s" % sorted(now["held"]))
        for n in want:
            if self.counter(now, "m%d" % n) != 1:
                wrong.append("the store counts message %d %s times" % (n, self.counter(now, "m%d" % n)))
        if self.counter(now, "total") != len(want):
            wrong.append("the store counts %s messages" % self.counter(now, "total"))
        if now["outbox"]:
            wrong.append("in the outbox: %s" % now["outbox"])
        for to, n in (("sink@example.com", FORWARDED), ("once@example.com", ONCE)):
            bodies = [b for _, _, b, _, rcpt in self.sink.mails if rcpt == to]
            if not bodies and not (n == ONCE and now["dead"]):
                wrong.append("the forward to %s was never sent" % to)
            if not all(stuffed_inside(b, MAIL[n][0]) for b in bodies):
                wrong.append("a forward to %s is not the whole message" % to)
        if now["dead"] and not any("kept as a dead letter" in said for said in self.said):
            wrong.append("nobody was told of a dead letter")
        if not self.ran():
            wrong.append("the command never ran")
        spool = [os.path.relpath(p, self.state) for p in glob.glob(self.state + "/spool/*/*") if os.path.basename(p) != "lock"]
        if tidy and len(spool) > len(but) + len(now["dead"]):
            wrong.append("left in the spool: %s" % spool)
        return "; ".join(wrong)

    @staticmethod
    def counter(now, key):
        for k, v in now["stores"].items():
            if k.endswith(key):
                m = re.search(rb"(\d+)\D*$", v if isinstance(v, bytes) else str(v).encode())
                return int(m.group(1)) if m else v
        return 0

    def window(self):
        """Into which window of SAFETY.md the end of the last run fell."""
        now, did = self.now, collections.Counter(w for w, _ in self.drop.events)
        staged = [p for p in self.found if self.hidden(p)]
        renames = [p for p in now["renames"] if os.path.exists(p)]
        seen = {n for n, s in now["marks"].items() if s == 1}
        if renames or seen & set(MBOXED) - set(self.mboxed(self.found)[0]):
            return "W6"
        if did["QUIT"]:
            return "W10" if seen - now["deleted"] and not self.drop.left.keys() & seen else "end"
        if did["DELE"]:
            return "W8"
        if seen & self.drop.left.keys():
            return "W7"
        if staged:
            return "W5"
        if did["RETR"]:
            return "W4"
        return "W1"


def stuffed_inside(body, mail):
    return mail.rstrip(b"\n") in body


def stacks(pid):
    out = []
    for p in [pid] + [int(c) for c in open("/proc/%d/task/%d/children" % (pid, pid)).read().split()]:
        for t in glob.glob("/proc/%d/task/*" % p):
            try:
                out.append("%s/%s %s %s" % (p, open(t + "/comm").read().strip(), open(t + "/wchan").read(), open(t + "/syscall").read().split()[0]))
            except OSError:
                pass
    return ", ".join(out)


def shim_path():
    return os.environ.get("CRASH_SHIM", TOP + "/build/crash/shim.so")


def adopt_orphans():
    """So that a worker whose supervisor was killed becomes our child, and can be waited for."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
