"""What the end-to-end tests share: the corpus, the program, checks, and a test frame that counts."""
import collections, hashlib, json, os, random, re, shutil, subprocess, sys, tempfile, time, traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("MAILMILL", TOP + "/build/mailmill")
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))  # its shadow is memory, too
passed = failed = skipped = 0


def check(ok, what):
    global passed, failed
    if ok:
        passed += 1
    else:
        failed += 1
        print("FAIL " + what, flush=True)
    return ok


def short(x):
    return repr(x) if len(repr(x)) < 600 else repr(x)[:600] + " ..."


def same(got, want, what):
    if isinstance(got, list) and isinstance(want, list) and got != want and len(want) > 3:   # what differs, not everything
        more, less = collections.Counter(map(repr, got)), collections.Counter(map(repr, want))
        return check(False, "%s: %d, not %d; too many: %s; missing: %s" % (what, len(got), len(want), short(list((more - less).elements())),
                                                                          short(list((less - more).elements()))))
    return check(got == want, "%s: %s, not %s" % (what, short(got), short(want)))


def skip(what, why):
    global skipped
    skipped += 1
    print("skipped: %s: %s" % (what, why), flush=True)


def tests(*functions):
    """Runs each; an exception is a failure. Ends the program with the count. Arguments of the program choose functions by name."""
    wanted = sys.argv[1:]
    for f in functions:
        if wanted and f.__name__ not in wanted:
            continue
        began = time.monotonic()
        try:
            f()
        except Exception:
            traceback.print_exc()
            check(False, f.__name__ + " raised")
        print("# %s %.1f s" % (f.__name__, time.monotonic() - began), flush=True)
    print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
    sys.exit(1 if failed or not passed else 0)


def sha(b):
    return hashlib.sha256(b).hexdigest()


def lf(b):
    """The form in which mailmill keeps a message: CRLF is LF, and the last line ends."""
    b = b.replace(b"\r\n", b"\n")
    return b if b.endswith(b"\n") else b + b"\n"


class Mail:
    """One message of tests/mail: .bytes as found, .kept as it must come out, .parts from the oracle."""
    def __init__(self, row):
        self.id, self.parts = row["id"], row["parts"]
        with open(TOP + "/tests/mail/" + row["file"], "rb") as f:
            self.bytes = f.read()
        self.kept = lf(self.bytes)
        self.sha = sha(self.kept)


def corpus(n=300):
    """Real messages. Left out: those with NUL (Dovecot replaces it), with CR CR LF (not the same after two readings), with a From_ line in front."""
    rows = [json.loads(l) for l in open(TOP + "/tests/mail/oracle.jsonl", encoding="utf-8")]
    out = [Mail(r) for r in rows]
    return [m for m in out if b"\0" not in m.bytes and b"\r\r\n" not in m.bytes and not m.bytes.startswith((b"From ", b">From "))][:n]


def generated(n, seed=1):
    """Further small messages with one attachment each, every one different."""
    rng, out = random.Random(seed), []
    for i in range(n):
        import base64
        data = rng.randbytes(rng.randrange(1, 5000))
        body = ("From: Sender %d <s%d@example.net>\nTo: anna@example.com\nSubject: generated %d\nDate: Mon, 2 Nov 2026 10:00:00 +0000\n"
                "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b%d\n\n--b%d\nContent-Type: text/plain\n\nHello %d\n.dot\n"
                "From here\n--b%d\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n"
                "Content-Disposition: attachment; filename=\"data %d.bin\"\n\n%s--b%d--\n"
                % (i, i, i, i, i, i, i, i, base64.encodebytes(data).decode(), i)).encode()
        m = Mail.__new__(Mail)
        m.id, m.bytes, m.kept, m.sha = "generated/%d" % i, body, body, sha(body)
        m.parts = [{"filename": None}, {"filename": "data %d.bin" % i, "sha256_lf": sha(data), "sha256_crlf": sha(data)}]
        out.append(m)
    return out


def serve_maildir(server, user, mails):
    """Fills a user's mailbox of Dovecot; index and control of an earlier one go."""
    for sub in ("mail", "index", "control"):
        shutil.rmtree("%s/%s/%s" % (server.d, sub, user), ignore_errors=True)
    new = server.user(user)
    for i, m in enumerate(mails):
        with open("%s/%d.M%dP1.test" % (new, 1700000000 + i, i), "wb") as f:
            f.write(m.bytes)
    server.own(user)


def mailmill(*args, cwd=None, env=None, timeout=300, wrapper=()):
    """-> exit code, standard output, standard error (text)."""
    p = subprocess.run([*wrapper, BINARY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
                       env=dict(os.environ, **(env or {})), timeout=timeout)
    return p.returncode, p.stdout.decode("utf-8", "replace"), p.stderr.decode("utf-8", "replace")


def files_below(d):
    """path -> bytes of every regular file below d."""
    out = {}
    for base, dirs, files in os.walk(d):
        for f in files:
            p = os.path.join(base, f)
            with open(p, "rb") as fh:
                out[os.path.relpath(p, d)] = fh.read()
    return out


def maildir_hashes(d):
    """SHA-256 of every message in a Maildir folder, with repeats."""
    return sorted(sha(open(os.path.join(d, s, n), "rb").read()) for s in ("new", "cur") if os.path.isdir(os.path.join(d, s))
                  for n in os.listdir(os.path.join(d, s)))


def staged_left(root, state):
    """Names of staging that should not be there after a run has ended."""
    left = []
    for base, dirs, files in os.walk(root):
        for f in files:
            if f.startswith(".mailmill") or os.path.basename(base) == "tmp":
                left.append(os.path.join(base, f))
    return left


def scratch(prefix="mailmill-e2e-"):
    d = tempfile.mkdtemp(prefix=prefix)
    os.chmod(d, 0o711)
    return d
