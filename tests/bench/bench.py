#!/usr/bin/env python3
"""mailmill against what a user would run instead, as ratios of one run. Never a test: nothing here passes or fails.

  fetch    20,000 small messages from a Dovecot on loopback into a Maildir: mpop, fdm
  rtt      the same with 20 ms of round trip
  extract  every attachment of an mbox (1.4 GiB) into files: GMime, each of its modes
  huge     one message of 200 MB, fetched and its attachment extracted: memory
"""
import argparse, hashlib, json, os, re, shutil, subprocess, sys, time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(TOP, "tests", "e2e")]
import gen_corpus, measure, peers, servers  # noqa: E402

RTT_MS = 20
SECTIONS = ["fetch", "rtt", "extract", "huge"]


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
        for f in files_below(os.path.join(self.corpus, "mail", os.path.basename(base))):
            with open(f, "rb") as fh:
                while fh.read(1 << 20):
                    pass
        plain, tls = self.delayed() if link.endswith("+rtt") else (s.plain, s.tls)
        on = link.startswith("tls")
        return peers.Box(os.path.basename(base), s.password, tls if on else plain, on, s.d + "/ca/ca.pem"), base

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
        def check():
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

    def extractors(self, name):
        base, _ = self.set(name)
        with open(base + ".mbox", "rb") as f:
            while f.read(1 << 22):
                pass
        saved = lambda: os.path.join(self.out, "place", "saved")
        check = lambda: matches(files_below(saved()), base + ".attachments")
        def mailmill():
            d = self.place()
            os.mkdir(saved())
            return [self.a.mailmill, "run", HERE + "/extract.lua", base + ".mbox", "--state", d + "/state", "--root", saved(), "-q"], {}
        def gmime(env):
            self.place()
            os.mkdir(saved())
            return [tool, "extract", base + ".mbox", saved()], env
        rs = [measure.Runner("mailmill", mailmill, check)]
        tool = self.tool("gmimebench", "gmime-3.0")
        if not tool:
            self.absent("GMime (libgmime-3.0-dev)")
            return rs
        return rs + [measure.Runner(n, lambda env=env: gmime(env), check) for n, env in peers.GMIME.items()]

    def absent(self, what):
        if what not in self.missing:
            self.missing.append(what)
            say("not here, left out: %s" % what)

    # ---- sections ----

    def compete(self, title, runners):
        say("# " + title)
        samples = measure.compete(runners, self.a.rounds, self.logs, say=say)
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
        self.compete("extract %d attachments of %d messages, %.1f GiB" % (c["attachments"], c["messages"], c["bytes_lf"] / 2**30),
                     self.extractors("attach"))

    def huge(self):
        _, c = self.set("huge")
        mb = c["bytes_lf"] / 1e6
        self.compete("fetch one message of %.0f MB, plain" % mb, self.fetchers("huge", "plain"))
        self.compete("extract from one message of %.0f MB" % mb, self.extractors("huge"))

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
                    help="where mail, servers, output and results lie: 5 GB (%(default)s)")
    ap.add_argument("--small", action="store_true", help="a tenth of the mail")
    ap.add_argument("--rounds", type=int, default=5, help="how often each runs; medians are shown (%(default)s)")
    ap.add_argument("--links", default="plain,tls", help="plain, tls or both (%(default)s)")
    ap.add_argument("--fs", choices=["here", "ext4", "tmpfs"], default="here",
                    help="write to DIR as it is, or to a fresh file system mounted for the run, as root (see scratchfs.sh for why)")
    ap.add_argument("--mailmill", default=os.path.join(TOP, "build", "mailmill"), help="the binary (%(default)s)")
    a = ap.parse_args()
    for s in a.sections:
        if s not in SECTIONS:
            ap.error("unknown section '%s': %s" % (s, ", ".join(SECTIONS)))
    if not os.access(a.mailmill, os.X_OK):
        raise SystemExit("%s is not there: make builds it" % a.mailmill)
    if not os.path.exists(measure.TIME):
        raise SystemExit("%s is not there: make setup-bench installs it" % measure.TIME)
    b = Bench(a)
    mounted = a.fs != "here"
    if mounted:
        subprocess.run(["sh", HERE + "/scratchfs.sh", a.fs, b.out], check=True)
    try:
        conditions(b)
        for s in a.sections or SECTIONS:
            if s != "extract" and servers.missing():
                if s == "huge":
                    say("huge: fetching left out")
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
