#!/usr/bin/env python3
"""Hostile messages through the whole program: names of files, and what would be slow or large. usage: hostile.py [CASE ...]; ends with the count.

Asserted are files, defects and peak memory; time only where a hundred times too much would be a hang."""
import base64, os, re, shutil, stat, subprocess, sys, tempfile, traceback

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
PEAK_KIB = 32 * 1024            # resident, of supervisor and worker, whatever the message
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))
MIB = 1 << 20


class Case:
    def __init__(self):
        self.d = tempfile.mkdtemp(prefix="mailmill-hostile-", dir=room())
        self.env = {"PATH": os.environ["PATH"], "HOME": self.d, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
        self.root = self.d + "/out"
        os.mkdir(self.root, 0o700)

    def mail(self, pieces, name="m.eml"):
        path = self.d + "/" + name
        with open(path, "wb") as f:
            for p in [pieces] if isinstance(pieces, bytes) else pieces:
                f.write(p)
        return path

    def run(self, script, *sources, code=0, limit=None):
        """Output of a handler, or of a script in a file; self.peak is the most memory that one of its processes had, in KiB."""
        how = [script] if script.endswith(".lua") else ["-e", script]
        out, err = open(self.d + "/stdout", "w+b"), open(self.d + "/stderr", "w+b")
        p = subprocess.Popen([BINARY, "--state", self.d + "/state", "--root", self.root, *how, *sources], env=self.env, cwd=self.d,
                             stdin=subprocess.DEVNULL, stdout=out, stderr=err, preexec_fn=limit)
        _, status, usage = os.wait4(p.pid, 0)
        p.returncode = os.waitstatus_to_exitcode(status)
        self.peak = usage.ru_maxrss
        out.seek(0), err.seek(0)
        self.out, self.err = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
        same(p.returncode, code, "exit code\n" + self.err[-2000:])
        return self.out

    def small(self):
        if not SANITIZED and self.peak > PEAK_KIB:
            raise AssertionError("peak memory of %d KiB, more than %d" % (self.peak, PEAK_KIB))


def room():
    """Memory, where there is a lot of it: a GiB need not go to a disk."""
    shm = "/dev/shm"
    free = os.statvfs(shm) if os.path.isdir(shm) else None
    return shm if free and free.f_bavail * free.f_frsize > 6 << 30 else None


def same(got, want, what):
    if got != want:
        raise AssertionError("%s: wanted %r, got %r" % (what, want, got))


# ---- structure ----

LOOK = 'print(#m:parts(), #m:attachments(), table.concat(m.defects, " "))'


def look(c, mail, parts, *defects):
    out = c.run(LOOK, mail, code=65).split()  # a limit was reached, and the script did nothing about it
    same(int(out[0]), parts, "parts")
    for d in defects:
        if d not in out[2:]:
            raise AssertionError("no defect %s: %s" % (d, out))
    c.small()


def M01_a_hundred_thousand_multiparts(c):
    look(c, c.mail(b"Content-Type: multipart/mixed; boundary=b%d\n\n--b%d\n" % (n, n) for n in range(100000)), 1, "limit.depth")


def M01_a_hundred_thousand_messages(c):
    look(c, c.mail(b"Content-Type: message/rfc822\n\n" for n in range(100000)), 1, "limit.depth")


def million(part):
    yield b"Content-Type: multipart/mixed; boundary=a\n\n"
    for n in range(1000):
        yield part * 1000


def M02_a_million_boundary_lines(c):
    look(c, c.mail(million(b"--a\n")), 1, "limit.parts")


def M02_a_million_parts(c):
    look(c, c.mail(million(b"--a\n\n")), 9999, "limit.parts")


COUNT = """local n, r = 0, m:parts()[1]:reader()
while true do local s = r:read(1 << 20) if not s then break end n = n + #s end
print(n, table.concat(m.defects, " "))"""


def count(c, mail):
    script = c.d + "/count.lua"
    with open(script, "w") as f:  # the limits of time are for a program without a sanitizer
        f.write("%smail.on_message(function(m)\n%s\nend)\n" % ("mail.limits { cpu = 60 }\n" if SANITIZED else "", COUNT))
    n = int(c.run(script, mail).split()[0])
    c.small()
    return n


def gib(head, block):
    yield head
    for n in range(1024):
        yield block


def M08_base64_of_a_gib_in_one_line(c):
    same(count(c, c.mail(gib(b"Content-Transfer-Encoding: base64\n\n", b"QUJD" * (MIB // 4)))), 768 * MIB, "decoded bytes")


def M10_a_gib_of_soft_breaks(c):
    same(count(c, c.mail(gib(b"Content-Transfer-Encoding: quoted-printable\n\n", b"=\n" * (MIB // 2)))), 0, "decoded bytes")


# ---- names ----

def files(c):
    return sorted(os.path.relpath(os.path.join(base, n), c.root) for base, _, names in os.walk(c.root) for n in names if not n.startswith(".mailmill"))


def saved(c, *heads, template="{name}"):
    """One message with a part for each head, saved by its name; {name as saved: content}. Everything is checked that holds for all names."""
    parts = b"".join(b"--b\n" + (h if isinstance(h, bytes) else h.encode()) + b"\n\ncontent %d\n" % i for i, h in enumerate(heads))
    mail = c.mail(b"Content-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n")
    c.run('for p in m:parts() do p:save "%s" end' % template, mail)
    same(sorted(os.listdir(c.d)), ["m.eml", "out", "state", "stderr", "stdout"], "files beside the root")
    got = {}
    for name in files(c):
        same("/" in name, False, "a directory in " + name)
        st = os.lstat(c.root + "/" + name)
        same((stat.S_ISREG(st.st_mode), stat.S_IMODE(st.st_mode)), (True, 0o600), "kind and mode of " + name)
        got[name] = open(c.root + "/" + name).read()
    same(sorted(got.values()), sorted("content %d" % i for i in range(len(heads))), "contents")
    return got


def names(c, table):
    """Each hostile name alone gives its name; together with all others nothing is lost."""
    saved(c, *["Content-Disposition: attachment; filename=" + quoted(name) for name, _ in table])
    for name, want in table:
        for f in files(c):
            os.unlink(c.root + "/" + f)
        same(list(saved(c, "Content-Disposition: attachment; filename=" + quoted(name))), [want], "name of %r" % name)


def quoted(name):
    """As RFC 2231 has it, which can say every byte."""
    raw = name if isinstance(name, bytes) else name.encode("utf-8", "surrogatepass")
    return "x; filename*=utf-8''" + "".join("%%%02X" % b for b in raw)


def F01_paths(c):
    names(c, [("../../etc/cron.d/x", "x"), ("..\\..\\x", "x"), ("/abs/x", "x"), ("C:\\x", "x"), ("\\\\srv\\s\\x", "x"), ("~/x", "x")])


def F02_no_name_left(c):
    for i, name in enumerate([".", "..", "...", "/", "   ", "\u200b"]):
        same(list(saved(c, "Content-Disposition: attachment; filename*=utf-8''" + quoted(name).split("''")[1])), ["attachment-1"], repr(name))
        os.unlink(c.root + "/attachment-1")
    same(list(saved(c, 'Content-Disposition: attachment; filename=""')), ["attachment-1"], "empty")


def F03_nul(c):
    names(c, [("a\0b.txt", "a_b.txt")])
    for f in files(c):
        os.unlink(c.root + "/" + f)
    same(list(saved(c, b'Content-Disposition: attachment; filename="a\0b.txt"')), ["a_b.txt"], "raw")


def F04_invisible(c):
    names(c, [("inv\u202efdp.exe", "invfdp.exe"), ("a\u2066b\u2069.txt", "ab.txt"), ("a\u200b\u200f.txt", "a.txt"), ("\ufeffa.txt", "a.txt")])


def F05_controls(c):
    names(c, [("a\x1b[2J\r\nX.txt", "a_[2J__X.txt"), ("a\x85\x9bb\x7f.txt", "a__b_.txt")])


def F06_F07_options_and_dots(c):
    names(c, [("-rf", "_-rf"), ("--checkpoint-action=exec=x", "_--checkpoint-action=exec=x"), (".bashrc", "_bashrc"), (".htaccess", "_htaccess"),
              (".ssh/authorized_keys", "authorized_keys")])


def F08_F09_windows(c):
    names(c, [("CON", "_CON"), ("nul.txt", "_nul.txt"), ("COM1.log", "_COM1.log"), ("LPT9", "_LPT9"), ("aux.", "_aux"), ("a.txt . ", "a.txt"),
              ("a.txt::$DATA", "a.txt___DATA"), ("a.", "a"), ("a.txt\t\t", "a.txt")])


def F10_shells(c):
    names(c, [('a<b>c|d?e*f"g', "a_b_c_d_e_f_g"), ("`x`", "_x_"), ("$(id)", "_(id)"), (";id", "_id"), ("a&b", "a_b")])


def F11_long(c):
    for name, end in [("L" * 300 + ".txt", ".txt"), ("é" * 300 + ".pdf", ".pdf"), ("x" * 255, "x"), ("x." + "e" * 300, "e")]:
        got, = saved(c, "Content-Disposition: attachment; filename=" + quoted(name))
        same((len(got.encode()) in (199, 200), got.endswith(end)), (True, True), got)
        os.unlink(c.root + "/" + got)


def F12_invalid(c):
    names(c, [(b"a\xff.txt", "a_.txt"), (b"a\xed\xa0\x80.txt", "a___.txt"), (b"\xc0\xae\xc0\xae\xc0\xafx", "______x")])


def F13_two_normal_forms(c):
    got = saved(c, "Content-Disposition: attachment; filename=" + quoted("e\u0301.txt"), "Content-Disposition: attachment; filename=" + quoted("\u00e9.txt"))
    same(got, {"\u00e9.txt": "content 0", "\u00e9 (2).txt": "content 1"}, "names")


def F14_case(c):
    got = saved(c, *["Content-Disposition: attachment; filename=" + quoted(n) for n in ("A.TXT", "a.txt", "\ufb01le", "file")])
    same(got, {"A.TXT": "content 0", "a.txt": "content 1", "\ufb01le": "content 2", "file": "content 3"}, "names")


def F14_case_that_does_not_count(c):
    """mail.root's caseless: both saved, the second numbered; also in the next run, when only the disk knows the first."""
    with open(c.d + "/s.lua", "w") as f:
        f.write('mail.root("out", { caseless = true })\nmail.on_message(function(m) for p in m:parts() do p:save "{name}" end end)\n')
    for run, heads in enumerate([("A.TXT", "a.txt", "\ufb01le", "file"), ("a.TXT", "FILE", "STRASSE", "stra\u00dfe")]):
        parts = b"".join(b"--b\nContent-Disposition: attachment; filename=%s\n\n%d.%d\n" % (quoted(h).encode(), run, i) for i, h in enumerate(heads))
        c.run(c.d + "/s.lua", c.mail(b"Content-Type: multipart/mixed; boundary=b\n\n" + parts + b"--b--\n"))
    same({n: open(c.root + "/" + n).read() for n in files(c)},
         {"A.TXT": "0.0", "a (2).txt": "0.1", "\ufb01le": "0.2", "file (2)": "0.3",
          "a (3).TXT": "1.0", "FILE (3)": "1.1", "STRASSE": "1.2", "stra\u00dfe (2)": "1.3"}, "names")


def flags(c, name, want):
    mail = c.mail(("Content-Disposition: attachment; filename=" + quoted(name) + "\n\nx").encode())
    out = c.run('for p in m:parts() do p:save "{name}" end print(json.encode { m:parts()[1].name, table.concat(m.defects, " ") })', mail)
    same(want in out, True, "%s in %s" % (want, out))


def F04_F16_F17_F18_flags(c):
    flags(c, "inv\u202efdp.exe", "name.invisible")
    flags(c, "\u0440\u0430ypal.exe", "name.mixed")
    flags(c, "invoice.pdf" + " " * 80 + ".exe", "name.spaces")
    flags(c, "x.{645FF040-5081-101B-9F08-00AA002F954E}", "name.clsid")
    same(files(c), ["invfdp.exe", "invoice.pdf .exe", "x.{645FF040-5081-101B-9F08-00AA002F954E}", "\u0440\u0430ypal.exe"], "files")


def F19_decoded_first_then_cleaned(c):
    evil = "../../../tmp/x"
    word = "=?utf-8?b?%s?=" % base64.b64encode(evil.encode()).decode()
    got = saved(c, 'Content-Disposition: attachment; filename="%s"' % word, 'Content-Type: a/b; name="=?utf-8?q?=2E=2E=2Fx?="',
                "Content-Disposition: attachment; filename*=utf-8''..%2F..%2Fx", "Content-Disposition: attachment; filename*0*=utf-8''..%2; filename*1*=F..%2Fx",
                'Content-Disposition: attachment; filename="=?utf-8?q?..?==?utf-8?q?=5Cx?="')
    same(sorted(got)[0], "x", "first of %s" % sorted(got))
    for name in got:
        same(".." in name, False, name)


def F20_nul_apart(c):
    got = saved(c, "Content-Disposition: attachment; filename=" + quoted("ab.txt"), "Content-Disposition: attachment; filename=" + quoted("a\0b.txt"))
    same(sorted(got), ["a_b.txt", "ab.txt"], "names")


def F21_F22_taken_by_what_is_no_file(c):
    os.symlink("/etc/passwd", c.root + "/l")
    os.mkfifo(c.root + "/f")
    os.mkdir(c.root + "/d")
    before = open("/etc/passwd", "rb").read()
    mail = c.mail("".join("--b\nContent-Disposition: attachment; filename=%s\n\n%s\n" % (n, n) for n in "lfd").join(
        ["Content-Type: multipart/mixed; boundary=b\n\n", "--b--\n"]).encode())
    c.run('for p in m:parts() do p:save "{name}" end', mail)
    same([open(c.root + "/%s (2)" % n).read() for n in "lfd"], ["l", "f", "d"], "contents")
    same((os.readlink(c.root + "/l"), open("/etc/passwd", "rb").read() == before), ("/etc/passwd", True), "the link")


def F25_own_paths(c):
    for path in ("../x", "/tmp/x", "a/../../x"):
        c.run('m:parts()[1]:save "%s"' % path, c.mail(b"\nx"), code=75)
        same((files(c), os.path.exists(c.d + "/x")), ([], False), path)


def many(size):
    yield b"Content-Type: multipart/mixed; boundary=b\n\n"
    for n in range(1001):
        yield b"--b\nContent-Type: application/octet-stream; name=f%d\n\n" % n
        yield (b"%07d " % n) * (size // 8) + b"\n"
    yield b"--b--\n"


def few_descriptors():
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def F26_a_thousand_and_one_attachments(c):
    mail = c.mail(many(MIB))
    c.run('for p in m:attachments() do p:save "{name}" end', mail, code=75)
    same(("more than 1000 saves" in c.err, files(c)), (True, []), "held whole: " + c.err[-300:])
    c.small()
    script = c.d + "/s.lua"
    with open(script, "w") as f:
        f.write('mail.limits { saves = 1001, cpu = 60 }\nmail.on_message(function(m) for p in m:attachments() do p:save "{name}" end end)\n')
    p = subprocess.run([BINARY, "--state", c.d + "/state2", "--root", c.root, script, mail], env=c.env, stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, preexec_fn=few_descriptors)
    same(p.returncode, 0, "with 64 descriptors\n" + p.stderr.decode()[-1000:])
    same((len(files(c)), os.path.getsize(c.root + "/f1000"), open(c.root + "/f7").read(8)), (1001, MIB, "0000007 "), "files")


CASES = [f for name, f in list(globals().items()) if name[:1] in "MF" and name[1:3].isdigit()]


def main():
    passed = failed = 0
    for case in CASES:
        if sys.argv[1:] and case.__name__ not in sys.argv[1:]:
            continue
        c = Case()
        try:
            case(c)
            passed += 1
        except Exception:
            failed += 1
            print("FAIL %s\n%s" % (case.__name__, traceback.format_exc()))
        finally:
            shutil.rmtree(c.d, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


main()
