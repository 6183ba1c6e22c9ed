#!/usr/bin/env python3
"""mailmill against what a user would run instead, as ratios of one run. Never a test: nothing here passes or fails.

  fetch    20,000 small messages from a Dovecot on loopback into a Maildir: mpop, fdm
  rtt      the same with 20 ms of round trip
  extract  every attachment of 1.4 GiB of mail into files, from an mbox and from a Maildir: GMime, ripmime, munpack, mblaze, Python
  list     parts and decoded headers of 20,000 small messages: GMime, mscan, Python
  huge     one message with an attachment of 1 GiB extracted; one of 200 MB fetched: memory
"""
import argparse, hashlib, json, os, re, shutil, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "tests", "e2e")]
import gen_corpus, measure, peers, servers  # noqa: E402

RTT_MS = 20
SECTIONS = ["fetch", "rtt", "extract", "list", "huge"]
SERVED = ["fetch", "rtt"]    # sections that are nothing without a server


def say(*a):
    print(*a, flush=True)


def files_below(path):
    """Every file below path."""
    for base, _, names in os.walk(path):
        for n in names:
            yield os.path.join(base, n)


def sha(path, lf=False):
    """lf: line ends made LF before."""
    h, held = hashlib.sha256(), b""
    with open(path, "rb") as f:
        while c := f.read(1 << 20):
            if lf:
                c = held + c
                held = c[-1:] if c.endswith(b"\r") else b""
                c = c[:len(c) - len(held)].replace(b"\r\n", b"\n")
            h.update(c)
    h.update(held)
    return h.hexdigest()


def matches(paths, wanted, lf=False):
    """How many of the wanted digests (a list file) are there, each once: "6029/6029", and how many files too many."""
    rest = {}
    with open(wanted) as f:
        want = f.read().split()
    for d in want:
        rest[d] = rest.get(d, 0) + 1
    found = extra = 0
    for p in paths:
        d = sha(p, lf)
        if rest.get(d, 0):
            rest[d] -= 1
            found += 1
        else:
            extra += 1
    return "%d/%d%s" % (found, len(want), " and %d others" % extra if extra else "")


def read_through(*paths):
    """Into the page cache."""
    for p in paths:
        with open(p, "rb") as f:
            while f.read(1 << 22):
                pass


def lines_right(log, wanted):
    """How many lines of a listing are there: "42017/42017"."""
    have, want = {}, 0
    with open(log, "rb") as f:
        for line in f:
            have[line] = have.get(line, 0) + 1
    found = 0
    with open(wanted, "rb") as f:
        for line in f:
            want += 1
            if have.get(line, 0):
                have[line] -= 1
                found += 1
    return "%d/%d lines" % (found, want)


class Bench:
    def __init__(self, a):
        self.a, self.d = a, os.path.abspath(a.dir)
        self.out, self.corpus, self.logs, self.bin = (os.path.join(self.d, n) for n in ("out", "corpus", "logs", "bin"))
        self.suffix = "-tenth" if a.small else ""
        self.rows, self.missing, self.dovecot, self.proxy = [], [], None, None
        for d in (self.out, self.corpus, self.logs, self.bin):
            os.makedirs(d, exist_ok=True)

    # ---- what is needed ----

    def set(self, name):
        """Path without extension of a set of the corpus, made when it isn't there, and its counts."""
        base = os.path.join(self.corpus, name + self.suffix)
        if not os.path.exists(base + ".json"):
            say("making the mail: %s ..." % (name + self.suffix))
            gen_corpus.make(self.corpus, "small" if name == "small1k" else name, 0.1 if self.a.small else 1.0, self.suffix, say)
        with open(base + ".json") as f:
            return base, json.load(f)

    def tool(self, name, libs=""):
        """A C program of this folder, compiled; None when it can't be."""
        exe, src = os.path.join(self.bin, name), os.path.join(HERE, name + ".c")
        if os.path.exists(exe) and os.path.getmtime(exe) > os.path.getmtime(src):
            return exe
        flags = []
        if libs:
            p = subprocess.run(["pkg-config", "--cflags", "--libs", libs], capture_output=True, text=True)
            if p.returncode:
                return None
            flags = p.stdout.split()
        subprocess.run(["cc", "-O2", "-D_GNU_SOURCE", "-o", exe, src] + flags, check=True)
        return exe

    def server(self):
        if not self.dovecot:
            d = os.path.join(self.d, "dovecot")
            shutil.rmtree(d, ignore_errors=True)
            servers.make_ca(d + "/ca")
            self.dovecot = servers.Dovecot(d, d + "/ca", extra=
                "disable_plaintext_auth = no\nmail_location = maildir:%s/mail/%%u:INDEX=%s/index/%%u:CONTROL=%s/control/%%u\n"
                "pop3_no_flag_updates = yes\npop3_fast_size_lookups = yes\n" % (self.corpus, d, d))
        return self.dovecot

    def delayed(self):
        """Ports of the plain and the TLS port with the round trip in front."""
        if not self.proxy:
            s, plain, tls = self.server(), servers.free_port(), servers.free_port()
            p = subprocess.Popen([self.tool("delayproxy"), str(RTT_MS / 2), "%d:%d" % (plain, s.plain), "%d:%d" % (tls, s.tls)],
                                 stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            self.proxy = (p, plain, tls)
            servers.wait_port(plain, "the delay proxy")
        return self.proxy[1:]

    def box(self, name, link):
        """A mailbox of the server, its index and the files warm; link: plain, tls, plain+rtt, tls+rtt."""
        import poplib
        base, counts = self.set(name)
        s = self.server()
        subprocess.run(["chown", "-R", "mail:mail", os.path.join(self.corpus, "mail")], check=True)
        p = poplib.POP3("127.0.0.1", s.plain, timeout=300)
        p.user(os.path.basename(base))
        p.pass_(s.password)
        n = p.stat()[0]
        p.quit()
        if n != counts["messages"]:
            raise SystemExit("Dovecot has %d messages of %s, not %d: %s" % (n, name, counts["messages"], s.d + "/dovecot.log"))
        read_through(*files_below(self.maildir(base)))
        plain, tls = self.delayed() if link.endswith("+rtt") else (s.plain, s.tls)
        on = link.startswith("tls")
        return peers.Box(os.path.basename(base), s.password, tls if on else plain, on, s.d + "/ca/ca.pem"), base

    def maildir(self, base):
        return os.path.join(self.corpus, "mail", os.path.basename(base))

    def place(self):
        """An empty directory for one run, open to the user mail."""
        d = os.path.join(self.out, "place")
        shutil.rmtree(d, ignore_errors=True)
        os.makedirs(d)
        return d

    # ---- contestants ----

    def mailmill_fetch(self, box):
        def prepare():
            d = self.place()
            cmd, env = peers.mailmill(d, box)
            return [self.a.mailmill, "run"] + cmd, env
        return prepare

    def fetchers(self, name, link, only=None):
        box, base = self.box(name, link)
        def check(log):
            return matches((p for p in files_below(os.path.join(self.out, "place", "mail")) if re.search(r"/(new|cur)/[^/]+$", p)),
                           base + ".messages", lf=True)
        rs = [measure.Runner("mailmill", self.mailmill_fetch(box), check)]
        for peer, how in peers.FETCHERS.items():
            if only and peer not in only:
                continue
            if not peers.found(peer):
                self.absent(peer)
                continue
            rs.append(measure.Runner(peer, lambda how=how: how(self.place(), box), check))
        return rs

    def saved(self):
        d = self.place()
        os.mkdir(d + "/saved")
        return d, d + "/saved"

    def gmime(self, task, path, check):
        """GMime, each way to read."""
        tool = self.tool("gmimebench", "gmime-3.0")
        if not tool:
            self.absent("GMime (libgmime-3.0-dev)")
            return []
        def how(env):
            _, out = self.saved()
            return [tool, task, path] + ([out] if task == "extract" else []), env
        return [measure.Runner(n, lambda env=env: how(env), check) for n, env in peers.GMIME.items()]

    def ours(self, script, path, check):
        def how():
            d, out = self.saved()
            return [self.a.mailmill, "run", HERE + "/" + script, path, "--state", d + "/state", "--root", out, "-q"], {}
        return measure.Runner("mailmill", how, check)

    def python(self, task, path, check):
        def how():
            _, out = self.saved()
            return ["python3", HERE + "/pymime.py", task, path] + ([out] if task == "extract" else []), {"PYTHONIOENCODING": "utf-8"}
        return measure.Runner("python email", how, check, slow=True)

    def one_by_one(self, path, check, tools):
        """Tools that take a message each, over a Maildir folder."""
        rs = []
        for name, cmd in tools.items():
            if not peers.found(cmd[0]):
                self.absent(name)
                continue
            def how(cmd=cmd):
                d, out = self.saved()
                return [self.tool("foreach"), path, out] + cmd, {"HOME": d}
            rs.append(measure.Runner(name, how, check, slow=True))
        return rs

    def extractors(self, name, kind, tools=None, python=True):
        """kind: mbox or maildir."""
        base, _ = self.set(name)
        path = base + ".mbox" if kind == "mbox" else self.maildir(base)
        cur = path + "/cur"
        read_through(*([path] if kind == "mbox" else files_below(path)))
        check = lambda log: matches(files_below(os.path.join(self.out, "place", "saved")), base + ".attachments")
        rs = [self.ours("extract.lua", path, check)] + self.gmime("extract", path if kind == "mbox" else cur, check)
        if tools:
            rs += self.one_by_one(cur if kind == "maildir" else self.maildir(base) + "/cur", check, tools)
        return rs + ([self.python("extract", path, check)] if python else [])

    def listing(self, base):
        """What the list should say: asked of Python once."""
        want = base + ".listing"
        if not os.path.exists(want):
            say("making %s ..." % want)
            with open(want + ".new", "wb") as f:
                subprocess.run(["python3", HERE + "/pymime.py", "truth", base + ".mbox"], stdout=f, check=True,
                               env=dict(os.environ, PYTHONIOENCODING="utf-8"))
            os.rename(want + ".new", want)
        return want

    def listers(self, kind):
        base, _ = self.set("small")
        path = base + ".mbox" if kind == "mbox" else self.maildir(base)
        want = self.listing(base)
        read_through(*([path] if kind == "mbox" else files_below(path)))
        check = (lambda log: lines_right(log, want)) if kind == "mbox" else None   # numbers differ with the order of a folder
        rs = [self.ours("list.lua", path, check)] + self.gmime("list", path if kind == "mbox" else path + "/cur", check)
        if kind == "maildir":
            if peers.found("mscan"):
                # headers only, and no parts: less work than the others do
                def mscan():
                    d, _ = self.saved()
                    return ["sh", "-c", "ls -d %s/cur/* | mscan -f '%%10d %%20f %%s'" % path], {"HOME": d}
                rs.append(measure.Runner("mscan (no parts)", mscan))
            else:
                self.absent("mblaze (mscan)")
        return rs + [self.python("list", path, check)]

    def absent(self, what):
        if what not in self.missing:
            self.missing.append(what)
            say("not here, left out: %s" % what)

    # ---- sections ----

    def compete(self, title, runners):
        say("# " + title)
        samples = measure.compete(runners, self.a.rounds, self.logs, say=say, slow_rounds=self.a.slow_rounds)
        self.rows.append((title, samples))
        with open(os.path.join(self.d, "results.jsonl"), "a") as f:
            for name, ss in samples.items():
                f.write(json.dumps({"at": int(time.time()), "section": title, "name": name, "wall": [round(s.wall, 4) for s in ss],
                                    "cpu": [round(s.cpu, 4) for s in ss], "rss_mib": [round(s.rss, 1) for s in ss],
                                    "status": ss[-1].status, "right": ss[-1].right}) + "\n")

    def fetch(self):
        for link in self.a.links.split(","):
            self.compete("fetch, 20,000 messages, %s" % link if not self.a.small else "fetch, 2,000 messages, %s" % link,
                         self.fetchers("small", link))

    def rtt(self):
        for link in self.a.links.split(","):
            # without pipelining 20,000 messages take a quarter of an hour: fdm gets the first 1,000
            self.compete("fetch with %d ms, %s messages, %s" % (RTT_MS, "2,000" if self.a.small else "20,000", link),
                         self.fetchers("small", link + "+rtt", ["mpop"]))
            self.compete("fetch with %d ms, 1,000 messages, %s" % (RTT_MS, link), self.fetchers("small1k", link + "+rtt"))

    def extract(self):
        _, c = self.set("attach")
        for kind in self.a.kinds.split(","):
            self.compete("extract %d attachments of %d messages, %.1f GiB, %s" % (c["attachments"], c["messages"], c["bytes_lf"] / 2**30, kind),
                         self.extractors("attach", kind, peers.EXTRACTORS if kind == "maildir" else None))

    def list(self):
        _, c = self.set("small")
        for kind in self.a.kinds.split(","):
            self.compete("list the parts of %d messages, %.0f MiB, %s" % (c["messages"], c["bytes_lf"] / 2**20, kind), self.listers(kind))

    def huge(self):
        _, c = self.set("gib")
        one_by_one = {n: cmd for n, cmd in peers.EXTRACTORS.items() if n != "ripmime"}   # minutes
        self.compete("extract one attachment of %.2f GiB" % (c["decoded_bytes"] / 2**30), self.extractors("gib", "mbox", one_by_one, python=False))
        if servers.missing():
            self.absent("fetching one large message (%s)" % servers.missing())
            return
        _, c = self.set("huge")
        self.compete("fetch one message of %.0f MB, plain" % (c["bytes_lf"] / 1e6), self.fetchers("huge", "plain"))

    def table(self):
        say("\nmailmill / peer: the median of the ratios of each round, and the smallest and largest. Below 1: mailmill took less.\n")
        for title, samples in self.rows:
            ours = samples["mailmill"]
            say("%s (%d rounds)" % (title, len(ours)))
            say("  %-22s %9s %9s %10s   %-30s %-30s %s" % ("", "wall s", "CPU s", "peak MiB", "wall ratio", "CPU ratio", "right"))
            for name, ss in samples.items():
                cells = []
                for what in ("wall", "cpu"):
                    r = measure.ratio(ours, ss, what)
                    cells.append("" if name == "mailmill" else "%.2f (%.2f-%.2f)" % r if r else "failed")
                wrong = "" if ss[-1].status == 0 else "  exit %s" % ss[-1].status
                say("  %-22s %9.2f %9.2f %10.1f   %-30s %-30s %s%s" % (name, measure.median(ss, "wall"), measure.median(ss, "cpu"),
                                                                  max(s.rss for s in ss), *cells, ss[-1].right, wrong))
            say("")
        if self.missing:
            say("left out: " + ", ".join(self.missing))

    def close(self):
        if self.proxy:
            self.proxy[0].kill()
            self.proxy[0].wait()
        if self.dovecot:
            self.dovecot.close()
        shutil.rmtree(os.path.join(self.out, "place"), ignore_errors=True)


def conditions(b):
    fs = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", b.out], capture_output=True, text=True).stdout.strip()
    say("%d processors, load %.2f, output on %s (%s)" % (os.cpu_count(), os.getloadavg()[0], b.out, fs or "unknown file system"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("sections", nargs="*", metavar="SECTION", help="%s (all)" % ", ".join(SECTIONS))
    ap.add_argument("--dir", default=os.path.join(os.environ.get("TMPDIR", "/tmp"), "mailmill-bench"),
                    help="where mail, servers, output and results lie: 10 GB (%(default)s)")
    ap.add_argument("--small", action="store_true", help="a tenth of the mail")
    ap.add_argument("--rounds", type=int, default=5, help="how often each runs; medians are shown (%(default)s)")
    ap.add_argument("--slow-rounds", type=int, default=1, help="how often those run that take minutes; 0: not at all (%(default)s)")
    ap.add_argument("--kinds", default="mbox,maildir", help="of archives: mbox, maildir or both (%(default)s)")
    ap.add_argument("--links", default="plain,tls", help="plain, tls or both (%(default)s)")
    ap.add_argument("--fs", choices=["here", "ext4", "tmpfs"], default="here",
                    help="write to DIR as it is, or to a fresh file system mounted for the run, as root (see scratchfs.sh for why)")
    ap.add_argument("--realtime", action="store_true", help="run each contestant before whatever else runs here (chrt -f, as root)")
    ap.add_argument("--mailmill", default=os.path.join(TOP, "build", "mailmill"), help="the binary (%(default)s)")
    a = ap.parse_args()
    for s in a.sections:
        if s not in SECTIONS:
            ap.error("unknown section '%s': %s" % (s, ", ".join(SECTIONS)))
    if not os.access(a.mailmill, os.X_OK):
        raise SystemExit("%s is not there: make builds it" % a.mailmill)
    if not os.path.exists(measure.TIME):
        raise SystemExit("%s is not there: make setup-bench installs it" % measure.TIME)
    if a.realtime:
        measure.realtime()
    b = Bench(a)
    mounted = a.fs != "here"
    if mounted:
        subprocess.run(["sh", HERE + "/scratchfs.sh", a.fs, b.out], check=True)
    try:
        conditions(b)
        for s in a.sections or SECTIONS:
            if s in SERVED and servers.missing():
                b.absent("%s (%s)" % (s, servers.missing()))
                continue
            getattr(b, s)()
        b.table()
    finally:
        b.close()
        if mounted:
            subprocess.run(["sh", HERE + "/scratchfs.sh", "umount", b.out], check=True)


if __name__ == "__main__":
    main()
