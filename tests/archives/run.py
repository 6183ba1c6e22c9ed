#!/usr/bin/env python3
"""Archives as users have them, through the binary. usage: run.py [TEST ...]; ends with the count.
mbox/ holds mboxes from MimeKit (MIT), mime4j (Apache 2.0, its NOTICE beside it) and Horde_Mail (BSD, 3 clauses), and truth.json, where their
messages begin."""
import gzip, hashlib, io, json, lzma, mailbox, os, re, shutil, signal, subprocess, sys, tarfile, tempfile, time, traceback, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.abspath(os.environ.get("MAILMILL", os.path.dirname(os.path.dirname(HERE)) + "/build/mailmill"))
DATE = " Mon Nov 23 05:41:00 2026\n"
PEAK = 32 << 10  # KiB that a run may take, however large the archive
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))


class Case:
    def __init__(self):
        self.d = tempfile.mkdtemp(prefix="mailmill-archives-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.d, "TZ": "UTC", "LC_ALL": "C.UTF-8"}

    def path(self, name):
        path = os.path.join(self.d, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def write(self, name, data):
        with open(self.path(name), "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return self.path(name)

    def run(self, *args, stdin=b"", code=0):
        p = subprocess.run([BINARY, *args], cwd=self.d, env=self.env, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
        self.out, self.err = p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")
        same(p.returncode, code, "exit code of %s\n%s%s" % (" ".join(args), self.out[-800:], self.err[-1500:]))
        return self.out

    def rows(self, *args, **kw):
        """A line of fields for each message."""
        code = "print(m.subject, m.flags, m.folder, m.sha256, m.size)"
        return [line.split("\t") for line in self.run("-e", code, *args, **kw).splitlines()]


def same(got, want, what):
    if got != want:
        raise AssertionError("%s: wanted %r, got %r" % (what, want, got))


def has(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError("%r is missing in:\n%s" % (part, text))


def mbox(n, body="body %d\n"):
    return "".join("From a@b.example" + DATE + "Subject: %d\nFrom: a@b.example\n\n%s\n" % (i, body % i) for i in range(n))


def peak(c, *args, stdin=None):
    """KiB of memory that the larger of the run's two processes took."""
    p = subprocess.run(["/usr/bin/env", "python3", "-c", "import resource,subprocess,sys\np=subprocess.run(sys.argv[1:])\n"
                        "print('KIB',resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss,p.returncode)", BINARY, *args],
                       cwd=c.d, env=c.env, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
    kib, code = re.search(rb"KIB (\d+) (\d+)", p.stdout).groups()
    same(int(code), 0, "exit code\n%s%s" % (p.stdout[-500:], p.stderr[-1000:]))
    return int(kib), p.stdout.decode()


def within(kib, what):
    if kib > PEAK and not SANITIZED:
        raise AssertionError("%s: %d KiB, more than %d" % (what, kib, PEAK))


# ---- what is read ----

# The recorded starts of this one are those of tools that look for "From " at the beginning of the file's bytes, in front of which stands a byte
# order mark: they lose its first message, and take two lines of prose ("From Russia with love") for the beginning of others. MimeKit, whose
# file it is, finds 4. Here the mark is passed over, a line needs a date or the file's own shape, and both counts are told.
NOT_MET = {"mimekit__mbox__unmunged.mbox.txt": [3, 245]}


def messages_at(raw, starts):
    """The bytes of the messages as mboxrd has them, LF, without the empty line that belongs to the mbox."""
    for at, end in zip(starts, starts[1:] + [len(raw)]):
        text = raw[at:end].replace(b"\r\n", b"\n").split(b"\n", 1)[1]
        text = text[:-1] if text.endswith(b"\n\n") else text
        yield re.sub(rb"^>(>*From )", rb"\1", text, flags=re.M)


def truth(c):
    """Every message of the real mboxes begins and ends where it should."""
    for name, starts in json.load(open(HERE + "/mbox/truth.json")).items():
        packed = HERE + "/mbox/" + name + ".xz"
        raw = lzma.open(packed).read() if os.path.exists(packed) else open(HERE + "/mbox/" + name, "rb").read()
        got = [r[3] for r in c.rows(c.write("box", raw))]
        want = [hashlib.sha256(t).hexdigest() for t in messages_at(raw, NOT_MET.get(name, starts))]
        same(got, want, name)
        if name in NOT_MET:
            has(c.err, "2 messages, or 4:")


def B01_both_counts(c):
    """Where a count is in doubt both are told, and the messages say so themselves."""
    box = c.write("box", mbox(2) + "From now on, prose.\n\nFrom here" + DATE + "this is text\n")
    c.run("-e", 'print(m.subject, m.defects["ambiguous.from"])', box)
    same(c.out, "0\tnil\n1\ttrue\n\ttrue\n", "messages")
    has(c.err, "3 messages, or 4: 1 more lines", "3 messages, or 2: behind 1 lines")


def kinds(c):
    """What Python's mailbox module writes, as it is and packed in every way, from files, folders, patterns and standard input."""
    md, mh, mb = mailbox.Maildir(c.path("md")), mailbox.MH(c.path("mh")), mailbox.mbox(c.path("box"))
    sub, mhsub = md.add_folder("Archive.2024"), mh.add_folder("inbox")
    for i in range(6):
        text = "Subject: %d\nFrom: a@b.example\n\nFrom me\n>From you\nbody %d\n" % (i, i)
        m = mailbox.MaildirMessage(text)
        m.set_subdir("cur"), m.set_flags("FS" if i % 2 else "")
        (sub if i > 3 else md).add(m)
        n = mailbox.MHMessage(text)
        n.set_sequences(["flagged"] if i % 2 else ["unseen"])
        mhsub.add(n)
        b = mailbox.mboxMessage(text)
        b.set_flags("ROF" if i % 2 else "")
        mb.add(b)
    mb.flush()
    same([r[:2] for r in c.rows("box")], [[str(i), "FS" if i % 2 else ""] for i in range(6)], "mbox")
    want = {"md": sorted([str(i), "FS" if i % 2 else "", "Archive/2024" if i > 3 else ""] for i in range(6)),
            "mh": sorted([str(i), "FS" if i % 2 else "", "inbox"] for i in range(6))}
    for kind in ("md", "mh"):
        for pack in (["tar", "cf"], ["tar", "czf"], ["tar", "cJf"], ["tar", "cjf"], ["tar", "--zstd", "-cf"], ["zip", "-qr"]):
            if not shutil.which(pack[0]):
                print("skipped: no " + pack[0])
                continue
            packed = "%s.packed%s" % (kind, ".zip" if pack[0] == "zip" else "")
            subprocess.run(pack + [packed, "./" + kind], cwd=c.d, check=True)
            same(sorted(r[:3] for r in c.rows(packed)), want[kind], "%s by %s" % (kind, " ".join(pack)))
        same(sorted(r[:3] for r in c.rows(kind)), want[kind], kind)
    raw = open(c.path("box"), "rb").read()
    c.write("box.gz", gzip.compress(raw)), c.write("box.xz", lzma.compress(raw))
    plain = c.rows("box")
    for args, stdin in ((["box.gz"], b""), (["box.xz"], b""), (["-"], raw), (["-"], gzip.compress(raw)), (["bo[x]"], b"")):
        same(c.rows(*args, stdin=stdin), plain, "%s %d" % (args, len(stdin)))
    same(sorted(c.rows("box*")), sorted(plain * 3), "a pattern")


def B06_many_sources(c):
    """More files on the command line than the process may have descriptors."""
    import resource
    for i in range(600):
        c.write("e/%04d.eml" % i, "Subject: %d\n\n" % i)
    low = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
    p = subprocess.run([BINARY, "-e", "print(m.subject)", *sorted(os.listdir(c.path("e")))], cwd=c.path("e"), env=c.env, preexec_fn=low,
                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=120)
    same((p.returncode, sorted(map(int, p.stdout.split()))), (0, list(range(600))), p.stderr.decode()[-500:])


def B06_odd_entries(c):
    """What is no readable file in a Maildir is left out by name, the others are read, and the exit code says so."""
    for i in range(3):
        c.write("md/cur/%d.M1.x:2,S" % i, "Subject: %d\n\n" % i)
    c.write("md/new/a\nb", "Subject: newline\n\n")
    os.mkfifo(c.path("md/cur/fifo")), os.symlink("loop", c.path("md/cur/loop")), os.symlink("..", c.path("md/.Round"))
    same([r[0] for r in c.rows("md", code=74)], ["0", "1", "2", "newline"], "messages")
    has(c.err, "cur/fifo is left out: not a regular file", "cur/loop is left out", ".Round is left out: a symbolic link", "3 entries could not be read")


# ---- how much it takes ----

def B03_memory(c):
    """Memory does not grow with the archive, its messages, or where they come from. HUGE=1: 200 GB, and one message of 20 GB."""
    scale = 400 if os.environ.get("HUGE") else 1
    big = c.path("big")
    with open(big, "wb") as f:  # a message of holes, and one behind it
        f.write(("From a@b.example" + DATE + "Subject: hole\n\n").encode())
        f.seek((512 << 20) * scale)
        f.write(("\n\nFrom a@b.example" + DATE + "Subject: last\n\nx\n").encode())
    kib, out = peak(c, "-e", "print(m.subject, m.size > 5e8)", big)
    within(kib, "one message of %d MiB" % (512 * scale))
    same(out.splitlines()[:2], ["hole\ttrue", "last\tfalse"], "messages")
    os.remove(big)
    many = c.write("many", mbox(60000, "%d " + "x" * 600 + "\n"))
    within(peak(c, "-e", "x = m.subject", many)[0], "a list of 60,000")
    within(peak(c, "extract", "--root", "out", many)[0], "extracting from 60,000")
    with open(c.path("stream"), "wb") as f:  # 64 MiB that nobody can read twice
        f.write(("From a@b.example" + DATE + "Subject: stream\n\n").encode())
        for i in range(64 * 16):
            f.write(b"".join(b"%060d\r\n" % (i * 1000 + j) for j in range(1057)))
    cat = subprocess.Popen(["cat", c.path("stream")], stdout=subprocess.PIPE)
    kib, out = peak(c, "-e", "print(m.subject, m.size)", "-", stdin=cat.stdout)
    cat.stdout.close(), cat.wait()
    within(kib, "one message on standard input")
    same(out.splitlines()[0], "stream\t%d" % (17 + 64 * 16 * 1057 * 61), "the message")


def B03_limit(c):
    """mail.limits.message: a larger one is named, left out, and the run does not end well."""
    box = c.write("box", mbox(1) + "From a@b.example" + DATE + "Subject: big\n\n" + "x" * 70 * 1024 + "\n\n" + mbox(1))
    s = c.write("s.lua", 'mail.limits { message = "64 KiB" }\nmail.on_message(function(m) print(m.subject) end)\n')
    same(c.run(s, box, code=74), "0\n0\n", "messages")
    has(c.err, "box: the message at byte 80 is left out: its 71695 bytes are more than the limit of 65536")


def B03_cut(c):
    """A compressed archive that is cut off: what is whole counts, and the error says where it ends."""
    raw = gzip.compress(mbox(4000).encode())
    n = len(c.rows(c.write("box.gz", raw[:len(raw) // 2]), code=74))
    if not 1000 < n < 3000:
        raise AssertionError("%d messages of half an archive of 4,000" % n)
    has(c.err, "box.gz: message %d, which begins at byte " % (n + 1), "truncated")


def B03_tar_of_nothing(c):
    """As tar makes it of no files, zeros alone: no message, compressed or not."""
    for name, data in (("e.tar.gz", gzip.compress(bytes(10240))), ("e.tar.xz", lzma.compress(bytes(1024)))):
        same((c.rows(c.write(name, data)), c.rows("-", stdin=data)), ([], []), name)


def B03_damaged_header(c):
    """Of a tar the messages behind the damage are read, and the error says that there is some."""
    o = io.BytesIO()
    with tarfile.open(fileobj=o, mode="w") as t:
        for i in range(4):
            m = b"Subject: %d\n\n%s\n" % (i, b"x" * (2 << 20 if i == 1 else 500))
            info = tarfile.TarInfo("%d.eml" % i)
            info.size = len(m)
            t.addfile(info, io.BytesIO(m))
    data = bytearray(o.getvalue())
    data[512 + 1024 + 5] ^= 1
    for name, pack in (("d.tar", bytes), ("d.tar.gz", gzip.compress)):
        same([r[0] for r in c.rows(c.write(name, pack(bytes(data))), code=74)], ["0", "2", "3"], name)
        has(c.err, name + ": it is damaged: where a header of a member should be")


# ---- again ----

def kill_half_way(c, args, count, n):
    """Starts a run and kills it when count() has passed half of n. Its process group is its own."""
    p = subprocess.Popen([BINARY, *args], cwd=c.d, env=c.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while p.poll() is None and count() < n // 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    os.killpg(p.pid, signal.SIGKILL)
    p.wait()


def B08_killed_and_resumed(c):
    """A batch run killed half way goes on with --resume, and no action is repeated: each message delivered once, saved once, counted once."""
    n = 3000
    s = c.write("s.lua", """mail.on_message(function(m)
  local x = 0 for i = 1, 1e4 do x = x + i end
  local seen = mail.store "count"
  seen[m.subject] = (seen[m.subject] or 0) + 1
  m:deliver "All"  m:save("saved/" .. m.subject, { on_conflict = "number" })
end)
mail.on_finish(function() local twice = 0 for k, v in pairs(mail.store "count") do if v > 1 then twice = twice + 1 end end print(twice) end)
""")
    md = mailbox.Maildir(c.path("src.md"))
    for i in range(n):
        c.write("src.md/cur/%06d.M1.x:2,S" % i, "Subject: %d\n\n" % i)
    box = mbox(n).encode()
    c.write("src.mbox", box), c.write("src.gz", gzip.compress(box))
    for i in range(6):
        c.write("g/%d.mbox" % i, "".join("From a@b.example" + DATE + "Subject: %d\n\n\n" % j for j in range(i * n // 6, (i + 1) * n // 6)))
    for source in ("src.mbox", "src.gz", "src.md", "g/*.mbox"):
        shutil.rmtree(c.path("out"), ignore_errors=True), shutil.rmtree(c.path("st"), ignore_errors=True)
        args, new = ["--state", "st", "--root", "out", s, source], c.path("out/All/new")
        done = lambda: sum(len(os.listdir(os.path.join(c.d, "out/All", d))) for d in ("new", "cur") if os.path.isdir(os.path.join(c.d, "out/All", d)))
        kill_half_way(c, args, done, n)
        if done() >= n:
            raise AssertionError(source + ": the run was over before it was killed")
        c.run(*args, code=64)
        has(c.err, "was cut off after message", "--resume", "--from-start")
        if source.startswith("g/"):  # the pattern gains a file, and the last one grows
            c.write("g/6.mbox", "From a@b.example" + DATE + "Subject: gained\n\n\n")
            with open(c.path("g/5.mbox"), "a") as f:
                f.write("From a@b.example" + DATE + "Subject: grown\n\n\n")
        c.run("--resume", *args)
        same(c.out.split(), ["0"], source + ": messages counted twice")
        want = sorted([str(i) for i in range(n)] + (["gained", "grown"] if source.startswith("g/") else []))
        same(sorted(os.listdir(c.path("out/saved"))), want, source + ": saved")
        same(done(), len(want), source + ": delivered")


def B08_resume_what_has_changed(c):
    """A file that was replaced since the run was cut off is not gone on with, and standard input can't be."""
    n = 3000
    c.write("box", mbox(n))
    args = ["--root", "out", "-e", 'local x = 0 for i = 1, 2e4 do x = x + i end m:deliver "A"', "box"]
    new = c.path("out/A/new")
    kill_half_way(c, args, lambda: len(os.listdir(new)) if os.path.isdir(new) else 0, n)
    c.write("box", mbox(n, "something else %d\n"))
    c.run("--resume", *args, code=64)
    has(c.err, "has changed since the run that was cut off", "--from-start")
    c.run("--resume", "-e", "x = 1", "-", stdin=mbox(1).encode(), code=64)
    has(c.err, "standard input leaves no mark")


def D08_a_pipe_that_says_nothing(c):
    """A run that waits for a pipe or a FIFO ends when it is told to, and what it had of a message counts for nothing."""
    os.mkfifo(c.path("fifo"))
    whole = mbox(3, "%d" + "x" * 200000 + "\n")
    for name, source, begin in (("silent", "-", ""), ("begun", "-", whole[:1000]), ("in a message", "-", whole[:500000]),
                                ("no writer", "fifo", None), ("silent writer", "fifo", "")):
        r, w = os.pipe()
        p = subprocess.Popen([BINARY, "-e", "print(m.subject)", source], cwd=c.d, env=c.env, stdin=r, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE)
        os.close(r)
        if source == "fifo" and begin is not None:
            os.close(w)
            w = os.open(c.path("fifo"), os.O_RDWR)
        end = time.monotonic() + 20
        rest = (begin or "").encode()
        os.set_blocking(w, False)
        while rest and time.monotonic() < end:
            try:
                rest = rest[os.write(w, rest):]
            except BlockingIOError:
                time.sleep(0.01)
        time.sleep(0.5)
        p.send_signal(signal.SIGTERM)
        try:
            out, err = p.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            p.kill()
            raise AssertionError(name + ": still there 20 s after SIGTERM")
        finally:
            os.close(w)
        same((p.returncode, out), (75, b"0\n1\n" if name == "in a message" else b""), name + err.decode())


def B08_a_fifo_leaves_no_mark(c):
    """What is read from a FIFO, or from a shell's <(command), cannot be read again: no run is told that one before it was cut off."""
    os.mkfifo(c.path("fifo"))
    args = ["--root", "out", "-e", 'local x = 0 for i = 1, 2e4 do x = x + i end m:deliver "A"', "fifo"]
    new = c.path("out/A/new")
    for n in (3000, 2):
        c.write("box", mbox(n))
        writer = subprocess.Popen(["sh", "-c", "cat box >fifo"], cwd=c.d, stderr=subprocess.DEVNULL)
        if n > 2:
            kill_half_way(c, args, lambda: len(os.listdir(new)) if os.path.isdir(new) else 0, n)
            writer.wait(timeout=20)
            for _ in range(200):  # until the dying worker has let go of it
                try:
                    os.close(os.open(c.path("fifo"), os.O_WRONLY | os.O_NONBLOCK))
                    time.sleep(0.05)
                except OSError:
                    break
        else:
            same(c.run("-e", "print(m.subject)", "fifo"), "0\n1\n", "the next run")
            writer.wait(timeout=20)
    c.run("--resume", "-e", "x = 1", "fifo", code=64)
    has(c.err, "fifo leaves no mark")


def B04_behind_what_is_compressed(c):
    """Members of a gzip one behind the other are one file, zeros behind them are padding; anything else is told, and what came before stands."""
    import bz2
    raw = mbox(40, "%d" + os.urandom(20000).hex() + "\n").encode()
    for name, pack in (("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress)):
        half = raw.index(b"From a@b", len(raw) // 2)
        two = pack(raw[:half]) + pack(raw[half:])
        c.write("two." + name, two), c.write("more." + name, two + mbox(1).encode()), c.write("zeros." + name, two + bytes(300000))
        want = ["%d" % i for i in range(40)]
        for source, code in (("two.", 0), ("zeros.", 0), ("more.", 74)):
            got = c.run("-e", "print(m.subject)", source + name, code=code).split()
            if name != "xz" or code == 0:  # whose decoder gives nothing of the block that it fails in
                same(got, want, source + name)
        has(c.err, "more." + name)
    c.run("-e", "x = 1", "-", stdin=open(c.path("more.gz"), "rb").read(), code=74)
    has(c.err, "something else stands behind what is compressed")


def limits_in_json(c):
    """The events of sources count what was given to the script, also under --limit."""
    c.write("box", mbox(5)), c.write("box.gz", gzip.compress(mbox(5).encode()))
    for source in ("box", "box.gz"):
        for limit, want in ((2, 2), (5, 5), (9, 5)):
            events = [json.loads(line) for line in c.run("--json", "--limit", str(limit), "-e", "x = 1", source).splitlines()]
            same([e["messages"] for e in events if e["event"] in ("source", "end")], [want, want], "%s --limit %d" % (source, limit))


def progress(c):
    """At a terminal: rate and time left, for what is compressed by its place in the compressed bytes."""
    import pty, select
    raw = gzip.compress("".join("From a@b.example" + DATE + "Subject: %d\n\n%s\n\n" % (i, os.urandom(600).hex()) for i in range(3000)).encode())
    c.write("box.gz", raw)
    main, end = pty.openpty()
    p = subprocess.Popen([BINARY, "-e", 'local x = 0 for i = 1, 5e5 do x = x + i end', "box.gz"], cwd=c.d, env=dict(c.env, TERM="xterm"), stdin=end,
                         stdout=end, stderr=end)
    os.close(end)
    out = b""
    while select.select([main], [], [], 60)[0]:
        try:
            data = os.read(main, 65536)
        except OSError:
            break
        out += data
        if not data:
            break
    os.close(main)
    same(p.wait(30), 0, "exit code: %r" % out[-500:])
    if not re.search(rb"box\.gz +\d+  \d+/s  [\d:]+ (s|min) left", out):
        raise AssertionError("no progress with rate and time left: %r" % out[-500:])


TESTS = [truth, B01_both_counts, kinds, B06_many_sources, B06_odd_entries, B03_memory, B03_limit, B03_cut, B03_tar_of_nothing, B03_damaged_header,
         B08_killed_and_resumed,
         B08_resume_what_has_changed, B04_behind_what_is_compressed, B08_a_fifo_leaves_no_mark, D08_a_pipe_that_says_nothing, limits_in_json, progress]


def main():
    passed = failed = 0
    for test in TESTS:
        if sys.argv[1:] and test.__name__ not in sys.argv[1:]:
            continue
        c = Case()
        try:
            test(c)
            passed += 1
        except Exception:
            failed += 1
            print("FAIL %s\n%s" % (test.__name__, traceback.format_exc()))
        finally:
            shutil.rmtree(c.d, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


main()
