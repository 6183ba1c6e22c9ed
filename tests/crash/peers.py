#!/usr/bin/env python3
"""Kills mailmill and other fetchers in the middle of their work, lets each run again, and counts what became of the mail.

usage: peers.py [--kills N] [--seed S] [--messages N] [PROGRAM ...]

Each program empties the same POP3 mailbox (on loopback, in this process) into a Maildir, deleting on the server, and is killed with SIGKILL at a
random moment between its first RETR and its end: the program's own process at every other try, as `kill -9` or the kernel's killer would, else all
of its processes. Then it runs once more, undisturbed, and the folder is compared with what was sent. The moments are drawn from the seed, which is
printed; where in a program a moment falls is for the scheduler, so figures differ a little from run to run. A program that is not installed is
named and left out. Exit code 1 if mailmill lost, repeated or cut anything, or needed more than the one further run."""
import argparse, collections, hashlib, os, pwd, random, re, select, shutil, signal, subprocess, sys, tempfile, time

import world

LIMIT = 10   # seconds that a run may take: undisturbed, none needs one; one that hangs is killed then, and counts as stopped


def make_mail(messages):
    """number -> (message, no files): small ones, and each eighth of 400 KB. What identifies one is the field X-Number; what must be whole is the body."""
    mail, rng = {}, random.Random(1)
    for n in range(1, messages + 1):
        lines = ["%d.%d %s" % (n, i, "%030x" % rng.getrandbits(120)) for i in range(10000 if n % 8 == 0 else rng.randrange(20, 400))]
        head = "From: s%d@example.net\nTo: anna@example.com\nSubject: message %d\nMessage-ID: <%d@example.net>\nX-Number: %d\n\n" % (n, n, n, n)
        mail[n] = ((head + "\n".join(lines) + "\n").encode(), [])
    return mail


def body_hash(message):
    return hashlib.sha256(message.partition(b"\n\n")[2]).hexdigest()


# ---- the programs: each gets a place of its own and answers how it is called ----

def write(path, text):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, 0o600)


def mailmill(place, port):
    write(place + "/fetch.lua", 'mail.account { name = "x", host = "127.0.0.1", port = %d, user = "anna", password = secret.env "PW", tls = false,\n'
          'plaintext_password = true, leave_on_server = false }\nmail.root "%s"\nmail.on_message(function(m) m:deliver "mail" end)\n' % (port, place))
    return [world.BINARY, place + "/fetch.lua", "--state", place + "/state", "-q"]


def fetchmail(place, port):
    """It has no Maildir of its own: a delivery program in its most careful form, which renames only what it has read to the end."""
    write(place + "/mda", 'f=$(mktemp "$1/tmp/XXXXXXXX") && cat > "$f" && sync "$f" && mv "$f" "$1/new/"\n')
    write(place + "/rc", 'set no syslog\nset idfile "%s/ids"\nset pidfile "%s/pid"\npoll 127.0.0.1 proto pop3 port %d uidl user "anna" password "secret" '
          'sslproto "" no keep mda "sh %s/mda %s/mail"\n' % (place, place, port, place, place))
    return ["fetchmail", "-f", place + "/rc", "--silent"]


def getmail(place, port):
    write(place + "/rc", "[retriever]\ntype = SimplePOP3Retriever\nserver = 127.0.0.1\nport = %d\nusername = anna\npassword = secret\n\n[destination]\n"
          "type = Maildir\npath = %s/mail/\n\n[options]\ndelete = true\ndelivered_to = false\nreceived = false\nverbose = 0\n" % (port, place))
    return as_mail(place, ["getmail", "--getmaildir", place, "--rcfile", place + "/rc"])


def mpop(place, port):
    write(place + "/rc", "account x\nhost 127.0.0.1\nport %d\nuser anna\npassword secret\nauth user\ntls off\nkeep off\ndelivery maildir %s/mail\n"
          "uidls_file %s/uidls\nreceived_header off\n" % (port, place, place))
    return ["mpop", "-C", place + "/rc", "-q", "x"]


def fdm(place, port):
    write(place + "/rc", 'set no-received\nset lock-file "%s/lock"\nset maximum-size 1G\naccount "x" pop3 server "127.0.0.1" port %d user "anna" pass "secret" '
          'no-apop\naction "m" maildir "%s/mail"\nmatch all action "m"\n' % (place, port, place))
    return as_mail(place, ["fdm", "-q", "-f", place + "/rc", "fetch"])


def as_mail(place, call):
    """getmail and fdm deliver nothing as root: there they run as mail."""
    if os.geteuid():
        return call
    owner = pwd.getpwnam("mail")
    for base, _, names in os.walk(place):
        for path in [base] + [base + "/" + n for n in names]:
            os.chown(path, owner.pw_uid, owner.pw_gid)
    return ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups"] + call


PROGRAMS = {   # name: (how it is called, how it says its version)
    "mailmill": (mailmill, [world.BINARY, "--version"]), "fetchmail": (fetchmail, ["fetchmail", "--version"]), "getmail": (getmail, ["getmail", "--version"]),
    "mpop": (mpop, ["mpop", "--version"]), "fdm": (fdm, ["dpkg-query", "-Wf", "${Version}", "fdm"]),
}


def version(name):
    """None where it is not installed."""
    call = PROGRAMS[name][1]
    if not shutil.which(name if name != "mailmill" else call[0]):
        return None
    p = subprocess.run(call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    found = re.search(rb"\d+(\.\d+)+", p.stdout)
    return found.group().decode() if found else ""


# ---- one try ----

class Try:
    """A mailbox and a place, both new."""
    def __init__(self, name, servers, mail, scratch):
        self.servers, self.mail = servers, mail
        self.place = tempfile.mkdtemp(dir=scratch)
        for sub in ("cur", "new", "tmp"):
            os.makedirs("%s/mail/%s" % (self.place, sub))
        self.drop = servers.maildrop = world.Maildrop(mail)
        self.log = open(self.place + "/log", "wb")
        self.call = PROGRAMS[name][0](self.place, servers.pop3)

    def run(self, moment=None, all_of_it=False):
        """moment: seconds after the first RETR at which it is killed; -> seconds from the first RETR to the end, exit code."""
        env = {"PATH": os.environ["PATH"], "HOME": self.place, "FETCHMAILHOME": self.place, "LC_ALL": "C.UTF-8", "PW": "secret"}
        del self.drop.events[:]
        p = subprocess.Popen(self.call, env=env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True)
        end = time.monotonic() + LIMIT
        while not self.drop.events and not os.waitid(os.P_PID, p.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) and time.monotonic() < end:
            time.sleep(0.0002)
        begun = time.monotonic()
        if moment is not None:
            time.sleep(moment)
            (os.killpg if all_of_it else os.kill)(p.pid, signal.SIGKILL)    # not waited for yet: the number is still its own
        fd = os.pidfd_open(p.pid)      # p.wait(LIMIT) would look only every 50 ms
        if not select.select([fd], [], [], LIMIT)[0]:
            os.killpg(p.pid, signal.SIGKILL)
        os.close(fd)
        took, code = time.monotonic() - begun, p.wait()
        self.await_others(p.pid)
        if not self.servers.quiet():
            raise SystemExit("a session is still open 10 s after the end of " + " ".join(self.call))
        return took, code

    @staticmethod
    def await_others(group):
        """What a killed program leaves behind may go on for a while."""
        end = time.monotonic() + 10
        while True:
            try:
                if os.waitpid(-group, os.WNOHANG)[0] == 0:
                    if time.monotonic() > end:
                        os.killpg(group, signal.SIGKILL)
                    time.sleep(0.001)
            except ChildProcessError:
                return

    def look(self):
        """-> how often each message is there whole, and how many files are something else."""
        whole, wanted, other = collections.Counter(), {body_hash(m): n for n, (m, _) in self.mail.items()}, 0
        for sub in ("new", "cur"):
            for name in os.listdir("%s/mail/%s" % (self.place, sub)):
                with open("%s/mail/%s/%s" % (self.place, sub, name), "rb") as f:
                    n = wanted.get(body_hash(f.read()))
                whole[n] += n is not None
                other += n is None
        del whole[None]
        return whole, other

    def count(self):
        whole, other = self.look()
        gone = set(self.mail) - set(self.drop.left)
        return {"lost": len(gone - {n for n in whole if whole[n]}), "twice": sum(c - 1 for c in whole.values() if c > 1), "truncated": other,
                "left": int(bool(self.drop.left)), "staged": len(os.listdir(self.place + "/mail/tmp"))}

    def end(self):
        self.log.close()
        shutil.rmtree(self.place)


def undisturbed(name, servers, mail, scratch):
    """How long the work takes; and that nothing is amiss without a kill (getmail hangs now and then, so it may try again)."""
    for _ in range(4):
        t = Try(name, servers, mail, scratch)
        took, code = t.run()
        wrong = {what: n for what, n in t.count().items() if n}
        with open(t.place + "/log", errors="replace") as f:
            said = f.read()[-2000:]
        t.end()
        if not wrong:
            return took
    sys.exit("%s, undisturbed, exit code %d: %s\n%s" % (name, code, wrong, said))


def measure(name, kills, seed, servers, mail, scratch):
    took = sorted(undisturbed(name, servers, mail, scratch) for _ in range(3))[1]
    rng, total = random.Random("%d %s" % (seed, name)), collections.Counter()
    for i in range(kills):
        t = Try(name, servers, mail, scratch)
        code = t.run(rng.uniform(0, took), i % 2 == 1)[1]
        total["hit"] += code in (-signal.SIGKILL, 128 + signal.SIGKILL)
        t.run()
        if t.drop.left:        # as its user would, who has found out
            total["stuck"] += 1
            if os.path.exists(t.place + "/lock"):
                os.unlink(t.place + "/lock")
            t.run()
        for what, n in t.count().items():
            total[what] += n
        t.end()
    return total


COLUMNS = [("hit", "killed"), ("lost", "lost"), ("twice", "there twice"), ("truncated", "truncated"), ("stuck", "next run stopped"), ("staged", "left in tmp/"), ("left", "never fetched")]


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--kills", type=int, default=20)
    a.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    a.add_argument("--messages", type=int, default=40)
    a.add_argument("names", nargs="*", metavar="PROGRAM", help="of " + " ".join(PROGRAMS))
    o = a.parse_args()
    if set(o.names) - set(PROGRAMS):
        a.error("no such program: " + " ".join(set(o.names) - set(PROGRAMS)))
    world.adopt_orphans()
    servers, mail, bad = world.Servers(), make_mail(o.messages), False
    print("%d messages, %d kills each, --seed %d\n" % (o.messages, o.kills, o.seed))
    print("| program | %s |\n|%s" % (" | ".join(title for _, title in COLUMNS), " --- |" * (1 + len(COLUMNS))), flush=True)
    absent = []
    with tempfile.TemporaryDirectory(prefix="mailmill-peers-") as scratch:
        os.chmod(scratch, 0o755)
        for name in o.names or PROGRAMS:
            v = version(name)
            if v is None:
                absent.append(name)
                continue
            total = measure(name, o.kills, o.seed, servers, mail, scratch)
            print("| %s %s | %s |" % (name, v, " | ".join(str(total[key]) for key, _ in COLUMNS)), flush=True)
            bad |= name == "mailmill" and any(total[key] for key, _ in COLUMNS if key != "hit")
    if absent:
        print("\nnot installed, left out: " + " ".join(absent))
    sys.exit(bad)


if __name__ == "__main__":
    main()
