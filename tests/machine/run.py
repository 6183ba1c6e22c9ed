#!/usr/bin/env python3
"""Machines as they come: kernels without Landlock, with an old one, without seccomp; a state directory that is somebody else's, in memory, or taken
away while the run goes on. The run works, says what it lacks, and loses nothing. usage: run.py [TEST ...]; ends with the count."""
import ctypes, errno, os, re, shutil, struct, subprocess, sys, tempfile, time, traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, TOP + "/tests/crash")
import world  # the mail, the POP3 and the SMTP server

BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))
SCRIPT = """mail.account {{ name = "work", host = "127.0.0.1", port = {pop3}, user = "anna", password = secret.file "pw", tls = false,
               plaintext_password = true, leave_on_server = false }}
mail.root "root"
mail.smarthost {{ host = "127.0.0.1", port = {smtp}, tls = false, from = "anna@example.com" }}
mail.on_message(function(m)
  m:deliver "In"
  {more}
end)
"""
servers = world.Servers()


class Case:
    def __init__(self):
        self.d = tempfile.mkdtemp(prefix="mailmill-machine-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.d, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        self.env.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))
        self.state = self.d + "/state"
        self.drop, self.sink = servers.maildrop, servers.sink = world.Maildrop(), world.Sink()
        self.write("pw", "secret\n")

    def write(self, name, text):
        with open(self.d + "/" + name, "w") as f:
            f.write(text)
        os.chmod(self.d + "/" + name, 0o600)

    def script(self, more="", smtp=None):
        self.write("s.lua", SCRIPT.format(pop3=servers.pop3, smtp=smtp or servers.smtp, more=more))
        return "s.lua"

    def run(self, *args, before=None, env={}):
        """-> the exit code."""
        p = subprocess.run([BINARY, *args, "--state", self.state, "--verbose"], cwd=self.d, env=dict(self.env, **env), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, preexec_fn=before)
        self.said = p.stdout.decode("utf-8", "replace")
        servers.quiet()
        return p.returncode

    def delivered(self):
        """Numbers of the messages that lie whole in the folder, each as often as it does."""
        new = self.d + "/root/In/new"
        names = os.listdir(new) if os.path.isdir(new) else []
        return sorted(world.KEPT.get(world.sha(open(new + "/" + n, "rb").read()), 0) for n in names)


def same(got, want, what):
    if got != want:
        raise AssertionError("%s: wanted %r, got %r" % (what, want, got))


def has(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError("%r is missing in:\n%s" % (part, text))


# ---- kernels ----

NO_LANDLOCK = "this kernel has no Landlock, or one too old for us"
NO_PORTS = "this kernel's Landlock knows no ports"
NO_SECCOMP = "no seccomp filter here"
CREATE_RULESET, SECCOMP = 444, {"x86_64": 317, "aarch64": 277}.get(os.uname().machine)


def lacking(answers):
    """For preexec_fn: a kernel that answers these calls with these errors; the filter is inherited by all that comes after."""
    code = [(0x20, 0, 0, 0)]
    for call, error in answers:
        code += [(0x15, 0, 1, call), (0x06, 0, 0, 0x00050000 | error)]
    code.append((0x06, 0, 0, 0x7fff0000))
    program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *c) for c in code))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(code), ctypes.addressof(program)))
    libc = ctypes.CDLL(None, use_errno=True)

    def install():
        if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.prctl(22, 2, header, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no filter can be installed")
    install.keep = program
    return install


def on_kernel(words, before=None, env={}):
    """A run that fetches, delivers and forwards to a smarthost that is not there; and a flush when it is. Both work, and say these words and no other."""
    c = Case()
    try:
        c.run(c.script('if m.subject:contains "3" then m:forward "sink@example.com" end', smtp=1), before=before, env=env)
        same((c.delivered(), sorted(c.drop.left)), (sorted(world.MAIL), []), "delivered, left on the server\n" + c.said)
        run = c.said
        same((c.run("outbox", "flush", c.script(), before=before, env=env), len(c.sink.mails)), (0, 1), "exit code of flush, mails sent\n" + c.said)
        for said in (run, c.said):
            same([w for w in (NO_LANDLOCK, NO_PORTS, NO_SECCOMP) if w in said], words, "what it said\n" + said)
        return c.d
    finally:
        shutil.rmtree(c.d, ignore_errors=True)


def real_landlock():
    return ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, 0, 1)


def lacks_here():
    """What this kernel lacks by itself."""
    version = real_landlock()
    return [NO_LANDLOCK] if version < 2 else [NO_PORTS] if version < 4 else []


def T13_kernel_without_landlock():
    """Not built in, switched off, forbidden by a sandbox around us."""
    for error in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        on_kernel([NO_LANDLOCK], lacking([(CREATE_RULESET, error)]))


def T13_kernel_without_seccomp():
    for error in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
        on_kernel(lacks_here() + [NO_SECCOMP], lacking([(SECCOMP, error)]))


def T13_kernel_without_either():
    on_kernel([NO_LANDLOCK, NO_SECCOMP], lacking([(CREATE_RULESET, errno.ENOSYS), (SECCOMP, errno.ENOSYS)]))


def emulated():
    """A library that answers for Landlock as older kernels did."""
    if SANITIZED:
        return None
    lib = tempfile.mkdtemp(prefix="mailmill-machine-") + "/landlock.so"
    subprocess.run([os.environ.get("CC", "cc"), "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", "-o", lib, TOP + "/tests/machine/landlock.c"], check=True, timeout=60)
    return lib


def rules_asked(version, lib):
    log = lib + ".log"
    if os.path.exists(log):
        os.unlink(log)
    on_kernel([NO_LANDLOCK] if version < 2 else [NO_PORTS] if version < 4 else [], env={"LD_PRELOAD": lib, "LANDLOCK_VERSION": str(version), "LANDLOCK_LOG": log})
    return open(log).read().split("restricted\n") if os.path.exists(log) else [""]


def T13_kernel_with_old_landlock():
    """1 is not used, 2 knows no truncation, 3 no ports: nothing is asked for that it would refuse, and what is allowed is what is needed."""
    lib = emulated()
    if not lib:
        return "it is preloaded, which the sanitizer does not stand"
    try:
        for version in (1, 2, 3, 4):
            asked = rules_asked(version, lib)
            same([line for part in asked for line in part.splitlines() if line.startswith("refused")], [], "version %d: what it would refuse" % version)
            same(len(asked), 1 if version < 2 else 3, "version %d: run and flush are confined" % version)
            if version < 2:
                continue
            run, flush = (sorted(re.sub(r"^path .*/(root|state)$", r"path \1", line) for line in part.splitlines()) for part in asked[:2])
            ports = ["port"] * (3 if version == 4 else 0)
            paths = ["path /dev/null", "path root", "path state"]
            same([re.sub(r"port \d+", "port", x) for x in run if x != "path /dev/tty"], paths + ports, "version %d: rules of a run" % version)
            same([x for x in flush if x != "path /dev/tty"], [paths[0], paths[2]] + (sorted(["port %d" % servers.smtp, "port 53"]) if ports else []),
                 "version %d: rules of a flush" % version)
    finally:
        shutil.rmtree(os.path.dirname(lib))


# ---- the state directory ----

def D05_state_of_everybody():
    """Refused before anything connects, with the words to mend it."""
    c = Case()
    os.mkdir(c.state)
    os.chmod(c.state, 0o777)
    same(c.run(c.script()), 64, "exit code\n" + c.said)
    has(c.said, "can be written by others: chmod go-w " + c.state)
    same(c.drop.events, [], "what the server heard")
    os.chmod(c.state, 0o700)
    same((c.run(c.script()), c.delivered()), (0, sorted(world.MAIL)), "with another mode\n" + c.said)
    shutil.rmtree(c.d)


def D05_state_in_memory():
    """Where there is an account it says that a restart forgets what is held; an archive is only read."""
    shm = "/dev/shm"
    if not os.access(shm, os.W_OK) or subprocess.run(["stat", "-f", "-c", "%T", shm], stdout=subprocess.PIPE).stdout.strip() != b"tmpfs":
        return "no /dev/shm in memory here"
    c = Case()
    c.state = tempfile.mkdtemp(prefix="mailmill-machine-", dir=shm)
    same(c.run(c.script()), 0, "exit code\n" + c.said)
    has(c.said, "lies in memory (tmpfs)", c.state)
    c.run(c.script(), TOP + "/examples/mail/sample.mbox")
    same("lies in memory" in c.said, False, "said over an archive")
    shutil.rmtree(c.state)
    shutil.rmtree(c.d)


def D05_state_taken_away():
    """Removed, or replaced by a copy, while the run goes on: it stops, nothing leaves the server that is not here, and the next run has it all."""
    for how in ("rm -rf {s}", "mv {s} {s}.old; cp -a {s}.old {s}", "mv {s} {s}.old; mkdir {s}; chmod 700 {s}"):
        c = Case()
        code = c.run(c.script('if m.subject:contains "5" then m:pipe { "sh", "-c", [[%s]] } end' % how.format(s=c.state)))
        same(code != 0, True, how + ": the exit code is 0\n" + c.said)
        has(c.said, c.state)
        here = c.delivered()
        lost = [n for n in world.MAIL if n not in here and n not in c.drop.left]
        same(lost, [], how + ": neither here nor on the server\n" + c.said)
        same([n for n in c.drop.left if n in here], [], how + ": here, and yet to be fetched again\n" + c.said)
        same(c.run(c.script()), 0, how + ": exit code of the next run\n" + c.said)
        same((c.delivered(), sorted(c.drop.left)), (sorted(world.MAIL), []), how + ": delivered in the end, left on the server\n" + c.said)
        shutil.rmtree(c.d)


def main():
    passed = failed = skipped = 0
    for name, test in [(k, v) for k, v in globals().items() if re.match(r"(T13|D05)_", k)]:
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        try:
            reason = test()
            passed, skipped = passed + (not reason), skipped + bool(reason)
            if reason:
                print("skipped: %s: %s" % (name, reason))
        except Exception:
            failed += 1
            print("FAIL %s\n%s" % (name, traceback.format_exc()), flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(failed > 0 or not passed)


if __name__ == "__main__":
    main()
