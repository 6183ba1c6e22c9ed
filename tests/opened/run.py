#!/usr/bin/env python3
"""What is inside messages, through a script: archives, honest and hostile, and S/MIME signatures with certificates made by openssl.
usage: run.py [TEST ...]; ends with the count."""
import binascii, bz2, gzip, hashlib, io, json, lzma, os, shutil, struct, subprocess, sys, tarfile, traceback, zipfile, zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from kit import *  # noqa: E402,F403

FILES = [("docs/a.txt", b"hello a\n" * 10), ("b.pdf", b"%PDF-1.4\n%b"), ("big.bin", b"".join(hashlib.sha256(b"%d" % i).digest() for i in range(65536)))]


def zip_of(files, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        for name, data in files:
            z.writestr(name, data)
    return out.getvalue()


def tar_of(files, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as t:
        for name, data in files:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = len(data)
            t.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd_of(data):
    return subprocess.run(["zstd", "-q", "-c"], input=data, stdout=subprocess.PIPE, check=True).stdout


def seven_of(name):
    with open(os.path.join(TOP, "tests/fuzz/seeds/unpack", name), "rb") as f:
        return f.read()


def special(kind, name, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


# ---- honest ----

# A process of its own between: what forks counts the memory of its parent as its own.
MEASURE = "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); r = resource.getrusage(resource.RUSAGE_CHILDREN); " \
    "print(r.ru_maxrss, r.ru_utime)"


def costs(c, seconds, kib=32 << 10):
    """Of the last look."""
    out = subprocess.run([sys.executable, "-c", MEASURE, BINARY, "run", "s.lua", "m.eml"], cwd=c.d, env=c.env, stdout=subprocess.PIPE, check=True).stdout
    peak, used = float(out.split()[0]), float(out.split()[1])
    if not SANITIZED and (peak > kib or used > seconds):
        raise AssertionError("%d KiB of memory, %.1f s" % (peak, used))


def every_format(c):
    want = [(os.path.basename(n), n, hashlib.sha256(d).hexdigest(), len(d)) for n, d in FILES]
    packed = [("f.zip", zip_of(FILES)), ("f.zip", zip_of(FILES, zipfile.ZIP_STORED)), ("f.zip", zip_of(FILES, zipfile.ZIP_BZIP2)),
              ("f.zip", zip_of(FILES, zipfile.ZIP_LZMA)), ("f.tar", tar_of(FILES)), ("f.tgz", tar_of(FILES, "w:gz")),
              ("f.tar.xz", tar_of(FILES, "w:xz")), ("f.tar.bz2", tar_of(FILES, "w:bz2")), ("f.zip.gz", gzip.compress(zip_of(FILES)))]
    if shutil.which("zstd"):
        packed.append(("f.tar.zst", zstd_of(tar_of(FILES))))
    for name, data in packed:
        got = c.look(mail((name, data)))
        same([(p["name"], p["member"], p["sha"], p["size"]) for p in got["open"]], want, name)
        same(names(got["plain"]), [name], name)
        same(got["defects"], "", name)
        same([p["path"] for p in got["open"]], ["2.1", "2.2", "2.3"], name)


def seven_zip(c):
    for name in ("copy.7z", "deflate.7z", "bzip2.7z", "lzma1.7z", "lzma2.7z", "ppmd.7z"):
        got = c.look(mail(("x.7z", seven_of(name))))
        same([(p["name"], p["size"]) for p in got["open"]], [("a.txt", 24), ("b.bin", 64), ("up", 1)], name)
        same(got["defects"], "", name)


def single_files(c):
    for name, data, want in [("r.xml.gz", gzip.compress(b"<x/>"), "r.xml"), ("r.xz", lzma.compress(b"<x/>"), "r"),
                             ("r.csv.bz2", bz2.compress(b"<x/>"), "r.csv"), ("R.GZ", gzip.compress(b"<x/>"), "R"),
                             ("empty.gz", gzip.compress(b""), "empty.gz")]:
        got = c.look(mail((name, data, "application/gzip")))
        same(names(got["open"]), [want], name)
        same(got["open"][0]["size"], 20 if "empty" in name else 4, name)  # what holds nothing stays what it is


def compressed_again(c):
    """A file that is compressed inside one that is: a file a layer, each opened in its turn; what is broken is there as it came."""
    inner = gzip.compress(FILES[2][1][:150000].hex().encode())
    layers = [("a.txt.gz.gz", gzip.compress(gzip.compress(b"text")), ["a.txt"]), ("a.bz2.xz", lzma.compress(bz2.compress(b"text")), ["a"]),
              ("a.tar.gz.xz", lzma.compress(tar_of(FILES[:2], "w:gz")), ["a.txt", "b.pdf"]), ("e.gz.gz", gzip.compress(gzip.compress(b"")), ["e.gz"])]
    for name, data, want in layers:
        got = c.look(mail((name, data)))
        same((names(got["open"]), got["defects"]), (want, ""), name)
    for name, data, want in [("inner cut", gzip.compress(inner[:-20]), ["a.gz"]), ("outer cut", gzip.compress(inner)[:-20], ["a.gz.gz"])]:
        got = c.look(mail(("a.gz.gz", data)))
        same((names(got["open"]), got["defects"]), (want, "archive.broken"), name)


def part_parts(c):
    data = mail(("f.zip", zip_of(FILES + [("in.zip", zip_of([("deep.txt", b"deep")]))])))
    out = c.run("""mail.on_message(function(m)
      local p = m:attachments()[1]
      print(#p:parts(), #p:parts "*.pdf", #p:parts { unpack = true }, #p:parts()[4]:parts(), p:parts()[4]:parts()[1].content, #m:parts())
      print(m:matches { attachment = { unpack = true, name = "deep.txt" } }, m:matches { attachment = "deep.txt" })
      local r = p:parts()[1]:reader() print(r:read(5)) r:close()
      for line in p:parts()[1]:lines() do print(line) break end
      print((p:parts()[4]:parts()[1]:pipe { "cat" }))
      local before = #m:attachments() print(before, p:parts "*.pdf"[1].detected, p:parts()[1].message == m)
    end)""", c.write("m.eml", data))
    same(out.split("\n")[:-1], ["4\t1\t4\t1\tdeep\t2", "true\tfalse", "hello", "hello a", "deep", "1\tapplication/pdf\ttrue"], "answers")


def saved(c):
    c.write("m.eml", mail(("f.zip", zip_of(FILES)), ("t.tgz", tar_of([("x/a.txt", b"other")], "w:gz")), ("x.pdf", b"%PDF")))
    script = 'mail.root "out"\nmail.on_message(function(m) for p in m:attachments { unpack = true } do p:save "{name}" end end)'
    c.run(script, "m.eml", "--dry-run")
    same(c.files("out"), [], "a rehearsal saves nothing")
    c.run(script, "m.eml")
    same(c.files("out"), ["a (2).txt", "a.txt", "b.pdf", "big.bin", "x.pdf"], "files")
    with open(c.d + "/out/big.bin", "rb") as f:
        same(f.read(), FILES[2][1], "content")
    with open(c.d + "/out/a (2).txt", "rb") as f:
        same(f.read(), b"other", "content")


def extract_unpack(c):
    c.write("m.eml", mail(("f.zip", zip_of(FILES)), ("n.docx", zip_of([("word/document.xml", b"<w/>")]))))
    p = subprocess.run([BINARY, "extract", "--unpack", "-o", "out", "m.eml"], cwd=c.d, env=c.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    same(p.returncode, 0, p.stderr)
    same(c.files("out"), ["a.txt", "b.pdf", "big.bin", "n.docx"], "files")


def forwarded(c):
    c.write("m.eml", mail(("f.zip", zip_of(FILES[:1]))))
    out = c.run("""mail.smarthost { host = "127.0.0.1", port = 1, tls = false }
    mail.on_message(function(m) for p in m:attachments { unpack = true } do p:forward("x@y.example", { from = "a@b.example" }) end end)""", "m.eml", "--dry-run", "--json")
    has(out, "x@y.example")


def office_documents_stay(c):
    docx = zip_of([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", b"<w/>")])
    for name, kind in [("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"), ("a.docx", "application/zip"),
                       ("a.xlsx", "application/octet-stream"), ("a.jar", "application/java-archive")]:
        got = c.look(mail((name, docx, kind)))
        same(names(got["open"]), [name], "%s as %s" % (name, kind))
    out = c.run('mail.on_message(function(m) print(#m:attachments()[1]:parts()) end)', c.write("m.eml", mail(("a.docx", docx))))
    same(out, "2\n", "asked for by name")


def lumber(c):
    got = c.look(mail(("m.zip", zip_of([("a.txt", b"a"), ("__MACOSX/._a.txt", b"fork"), (".DS_Store", b"x"), ("d/Thumbs.db", b"x")]))))
    same(names(got["open"]), ["a.txt"], "attachments")
    out = c.run('mail.on_message(function(m) print(#m:attachments()[1]:parts()) end)', "m.eml")
    same(out, "4\n", "members")


def encrypted(c):
    zip_ = seven_of("encrypted.zip")
    got = c.look(mail(("e.zip", zip_)))
    same(names(got["open"]), ["e.zip"], "the archive stands for what cannot be read")
    same(got["defects"], "archive.encrypted", "defects")
    out = c.run("""mail.on_message(function(m)
      local z = m:attachments()[1]
      local p = z:parts()[1]
      print(z.encrypted, p.encrypted, p.name, p.size, #p.content, p.attached, m:matches { attachment = { encrypted = true } })
      print(p:reader())
      print(pcall(p.save, p, "x"))
      print(pcall(function() return p.sha256 end))
    end)""", "m.eml")
    lines = out.split("\n")
    same(lines[0], "true\ttrue\ts.txt\t0\t0\tfalse\ttrue", "marks")
    for line in lines[1:4]:
        has(line, "'s.txt' is encrypted in its archive")
    same(c.look(mail(("f.zip", zip_of(FILES))))["open"][0]["encrypted"], False, "an honest member")


# ---- M20: hostile archives ----

def M20_zip_bomb(c):
    bomb = zip_of([("small.txt", b"first"), ("zeros", b"\0" * (40 << 20))])
    got = c.look(mail(("bomb.zip", bomb)))
    same(names(got["open"]), ["bomb.zip", "small.txt"], "what is whole, and the archive")
    same(got["defects"], "limit.opened", "defects")
    got = c.look(mail(("bomb.zip", bomb)), "mail.limits { opened_ratio = 1000000 }\n")
    same((names(got["open"]), got["defects"]), (["small.txt", "zeros"], ""), "the user may say otherwise")
    got = c.look(mail(("bomb.zip", bomb)), 'mail.limits { opened_ratio = 1000000, opened_bytes = "8 MiB" }\n')
    same((names(got["open"]), got["defects"]), (["bomb.zip", "small.txt"], "limit.opened"), "bytes")


def M20_bomb_costs_little(c):
    for kind, data in [("gz", gzip.compress(b"\0" * (256 << 20))), ("tar.gz", gzip.compress(tar_of([("z", b"\0" * (64 << 20))])))]:
        got = c.look(mail(("b." + kind, data)))
        same((names(got["open"]), got["defects"]), (["b." + kind], "limit.opened"), kind)
        costs(c, 2)


def zeros_are_no_empty_tar(c):
    got = c.look(mail(("disk.img.gz", gzip.compress(b"\0" * 4096 + b"data"))))
    same([(p["name"], p["size"]) for p in got["open"]], [("disk.img", 4100)], "an image")
    got = c.look(mail(("t.tar.gz", gzip.compress(b"\0" * 1024)), ("e.zip", RawZip().bytes()), ("t.tar", b"\0" * 1024)))
    same([(p["name"], p["size"]) for p in got["open"]], [("t.tar", 1024), ("e.zip", 22), ("t.tar", 1024)], "nothing is lost of what holds nothing")


def M20_bombs_in_a_zip(c):
    inner = zip_of([("z", b"\0" * (10 << 20))])
    got = c.look(mail(("n.zip", zip_of([("%d.zip" % i, inner) for i in range(50)]))))
    has(got["defects"], "limit.opened")
    if sum(p["size"] for p in got["open"] if p.get("member") and not p["name"].endswith(".zip")) > 100 << 20:
        raise AssertionError("the budget is one for all of them")


def M20_overlapping(c):
    z = RawZip()
    raw = b"\0" * (1 << 20)
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(raw) + deflate.flush()
    head, at = z.add(b"0", raw, method=8, packed=packed)
    for i in range(1, 2000):
        z.point(b"0", head, at)
    got = c.look(mail(("f.zip", z.bytes())), "mail.limits { opened_ratio = 10000 }\n")
    if len(got["open"]) > 2:
        raise AssertionError("the same data %d times" % len(got["open"]))
    # Fifield: each member's data quotes the header of the next one, as a stored block, and goes on with its data
    content, data, members = raw, packed, []
    for i in range(250, 0, -1):
        header = RawZip()
        header.add(b"%d" % i, content, method=8, packed=data)
        whole = bytes(header.data)
        local = whole[:len(whole) - len(data)]
        members.append((b"%d" % i, local[4:30], len(whole)))
        stored = b"\0" + len(local).to_bytes(2, "little") + (0xffff - len(local)).to_bytes(2, "little") + local
        content, data = local + content, stored + data
    quoted = RawZip()
    quoted.data = bytearray(whole)
    for name, local, n in reversed(members):
        quoted.point(name, local, len(whole) - n)
    got = c.look(mail(("q.zip", quoted.bytes())))
    has(got["defects"], "limit.opened")
    same(names(got["open"])[:2], ["q.zip", "1"], "within the ratio")
    total = sum(p["size"] for p in got["open"] if p.get("member"))
    if not 0 < total <= 100 * os.path.getsize(c.d + "/m.eml"):
        raise AssertionError("%d bytes" % total)
    got = c.look(mail(("q.zip", quoted.bytes())), 'mail.limits { opened_ratio = 100000, opened_bytes = "8 MiB" }\n')
    has(got["defects"], "limit.opened")
    if sum(p["size"] for p in got["open"] if p.get("member")) > 8 << 20:
        raise AssertionError("beyond the bytes")


def M20_gzip_quine(c):
    # an archive that unpacks to itself is archives in each other without end
    data = b"end"
    for i in range(40):
        data = zip_of([("%d.zip" % i, data)])
    got = c.look(mail(("q.zip", data)))
    has(got["defects"], "limit.opened")
    same((len(got["open"]), got["open"][0]["path"]), (1, "2.1.1.1"), "depth 3, then a file")
    data = b"end"
    for i in range(40):
        data = gzip.compress(data)
        if i in (1, 2, 3, 5, 39): # the innermost that is opened, which is the end or a gzip again
            got = c.look(mail(("q.gz", data)))
            same([(p["path"], p["name"], p["size"] == 3) for p in got["open"]], [("2" + ".1" * min(i + 1, 3), "q", i < 3)], "gzip in gzip, %d" % i)
            same(got["defects"], "" if i < 3 else "limit.opened", "gzip in gzip, %d" % i)


def M20_a_million_members(c):
    z = RawZip()
    for i in range(50000):
        z.add(b"%d" % i, b"")
    got = c.look(mail(("m.zip", z.bytes())))
    same(got["defects"], "limit.opened", "defects")
    same((len(got["open"]), got["open"][0]["name"]), (1 + 10000, "m.zip"), "members")
    t = tar_of([])
    block = tar_of([("d/%06d" % 1, b"")])[:512]
    got = c.look(mail(("m.tar.gz", gzip.compress(block * 1000000 + t))))
    same((len(got["open"]), got["defects"]), (10001, "limit.opened"), "a tar of them")


def M20_names(c):
    evil = ["../../../../tmp/evil", "/etc/passwd", "C:\\Windows\\x.dll", "..\\..\\y", "a/../b", "..", ".", "", "-rf", ".bashrc", "con.txt", "x" * 300 + ".txt",
            "nul\0byte", "line\nbreak", "rtl\u202egnp.exe", "a//b", "dir/"]
    z = RawZip()
    for i, name in enumerate(evil):
        z.add(name.encode(), b"%d" % i, flags=0x800)
    c.write("m.eml", mail(("n.zip", z.bytes()), ("t.tar", tar_of([(n, b"t") for n in evil if n and "\0" not in n]))))
    c.run('mail.root "out/in"\nmail.on_message(function(m) for p in m:attachments { unpack = true } do p:save "{name}" p:save "by/{stem|none}.{ext|none}" end end)', "m.eml")
    for path in c.files("out"):
        if not path.startswith("in/"):
            raise AssertionError("outside: " + path)
        for part in path.split("/"):
            if part in ("..", ".") or part.startswith((".", "-")) or len(part.encode()) > 200 or any(ord(ch) < 32 for ch in part):
                raise AssertionError("name: %r" % path)
    same([f for f in os.listdir("/tmp") if f == "evil"], [], "escaped")


def M20_colliding_names(c):
    files = [("a.txt", b"1"), ("A.TXT", b"2"), ("d/a.txt", b"3"), ("a.txt", b"4"), ("e\u0301.txt", b"5"), ("\u00e9.txt", b"6")]
    z = RawZip()
    for name, data in files:
        z.add(name.encode(), data, flags=0x800)
    c.write("m.eml", mail(("c.zip", z.bytes())))
    c.run('mail.root "out"\nmail.on_message(function(m) for p in m:attachments { unpack = true } do p:save "{name}" end end)', "m.eml")
    contents = sorted(open(os.path.join(c.d, "out", f)).read() for f in c.files("out"))
    same(contents, list("123456"), "each content once")


def M20_links(c):
    kinds = [(special(tarfile.SYMTYPE, "link", "/etc"), b""), (special(tarfile.LNKTYPE, "hard", "a.txt"), b""), (special(tarfile.FIFOTYPE, "fifo"), b""),
             (special(tarfile.CHRTYPE, "dev"), b""), (special(tarfile.DIRTYPE, "dir"), b""), ("link/passwd", b"through the link"), ("a.txt", b"a")]
    got = c.look(mail(("l.tar", tar_of(kinds))))
    same([(p["name"], p.get("member")) for p in got["open"]], [("l.tar", None), ("passwd", "link/passwd"), ("a.txt", "a.txt")], "files")
    same(got["defects"], "archive.special", "defects")
    z = RawZip()
    z.add(b"sym", b"/etc/passwd", external=0o120777 << 16)
    z.add(b"a.txt", b"a")
    got = c.look(mail(("l.zip", z.bytes())))
    same((names(got["open"]), got["defects"]), (["l.zip", "a.txt"], "archive.special"), "a link in a zip")
    c.run('mail.root "out"\nmail.on_message(function(m) for p in m:attachments { unpack = true } do p:save "{name}" end end)', "m.eml")
    for path in c.files("out"):
        if os.path.islink(os.path.join(c.d, "out", path)):
            raise AssertionError(path)


def M20_wrong_sizes(c):
    for what, change in [("larger", dict(size=1 << 30)), ("smaller", dict(size=1)), ("crc", dict(crc=1))]:
        z = RawZip()
        z.add(b"good", b"good")
        z.add(b"bad", b"bytes of it", **change)
        z.add(b"after", b"after")
        got = c.look(mail(("w.zip", z.bytes())))
        same(names(got["open"])[0], "w.zip", what)
        has(got["defects"], "archive.broken")
        if not {"good"} <= set(names(got["open"])) or "bad" in names(got["open"]):
            raise AssertionError("%s: %s" % (what, names(got["open"])))


def M20_truncated(c):
    for name, data in [("t.zip", zip_of(FILES[:2])), ("t.tar", tar_of(FILES[:2])[:2560]), ("t.tgz", tar_of(FILES[:2], "w:gz")), ("t.gz", gzip.compress(b"one file")),
                       ("t.xz", lzma.compress(b"one file")), ("t.bz2", bz2.compress(b"one file")), ("t.7z", seven_of("lzma2.7z"))]:
        step = max(1, len(data) // 12)
        for n in list(range(16, len(data) - 1, step)) + [len(data) - 1]:
            got = c.look(mail((name, data[:n])))
            same((got["open"][0]["name"], got["open"][0]["sha"]), (name, hashlib.sha256(data[:n]).hexdigest()), "%s cut at %d keeps its bytes" % (name, n))
            if n >= 512 and name in ("t.tar", "t.tgz") and not got["defects"]:
                raise AssertionError("%s cut at %d looks whole" % (name, n))


def M20_tar_with_a_damaged_header(c):
    for size, pack in [(3000, bytes), (3 << 20, bytes), (3000, gzip.compress), (3 << 20, gzip.compress)]:
        data = bytearray(tar_of([("first", b"1" * 1000), ("lost", os.urandom(size)), ("third", b"3"), ("last", b"4" * 2000)]))
        data[512 + 1024 + 5] ^= 1
        got = c.look(mail(("d.tar", pack(bytes(data)))))
        same((names(got["open"]), got["defects"]), (["d.tar", "first", "third", "last"], "archive.broken"), "a member of %d bytes is lost" % size)


def M20_compressed_and_cut_off(c):
    """What was decoded before the place of the damage is there."""
    files = [("%03d" % i, os.urandom(500)) for i in range(200)]
    packed = gzip.compress(tar_of(files))
    got = c.look(mail(("cut.tar.gz", packed[:len(packed) * 3 // 4])))
    same((names(got["open"])[:60], got["defects"]), (["cut.tar.gz"] + [f[0] for f in files[:59]], "archive.broken"), "a tar")
    got = c.look(mail(("cut.zip.gz", gzip.compress(zip_of(files, zipfile.ZIP_STORED))[:50000 * 3 // 2])))
    same((names(got["open"])[:60], got["defects"]), (["cut.zip.gz"] + [f[0] for f in files[:59]], "archive.broken"), "a zip")


def M20_name_encodings(c):
    def zipped(raw, flags=0):
        z = RawZip()
        z.add(raw, b"x", flags=flags)
        return z.bytes()
    for raw, flags, want in [("Größe.txt".encode("cp437"), 0, "Größe.txt"), ("Müller Übung.doc".encode("cp437"), 0, "Müller Übung.doc"),
                             ("Größe.txt".encode(), 0x800, "Größe.txt"), ("Größe.txt".encode(), 0, "Größe.txt"),
                             ("日本語.txt".encode("shift_jis"), 0, "日本語.txt"), ("テスト資料.xlsx".encode("shift_jis"), 0, "テスト資料.xlsx"),
                             (b"plain.txt", 0, "plain.txt")]:
        got = c.look(mail(("n.zip", zipped(raw, flags))))
        same(names(got["open"]), [want], repr(raw))
    for charset, body, raw, want in [("koi8-r", "Привет", "Отчёт.doc".encode("cp866"), "Отчёт.doc"), ("gb2312", "你好", "报告.txt".encode("gbk"), "报告.txt"),
                                     ("iso-2022-jp", "日本", "表.txt".encode("shift_jis"), "表.txt")]:
        got = c.look(mail(("n.zip", zipped(raw)), body=body, charset=charset))
        same(names(got["open"]), [want], "in a mail of " + charset)
    extra = b"\x75\x70" + (5 + 6).to_bytes(2, "little") + b"\1" + binascii.crc32(b"?.txt").to_bytes(4, "little") + "ö.txt".encode()
    z = RawZip()
    z.add(b"?.txt", b"x", extra=extra)
    same(names(c.look(mail(("n.zip", z.bytes())))["open"]), ["ö.txt"], "Info-ZIP's Unicode path")


def M20_content_encoding(c):
    data = gzip.compress(b"compressed body")
    text = b"From: a@b.example\nContent-Type: application/octet-stream; name=page.bin\nContent-Encoding: gzip\nContent-Transfer-Encoding: base64\n\n" + \
        binascii.b2a_base64(data)
    got = c.look(text)
    same((names(got["open"]), got["open"][0]["sha"]), (["page.bin"], hashlib.sha256(data).hexdigest()), "left alone")


def M20_not_what_it_says(c):
    for data in [b"", b"PK", b"PK\3\4", b"\x1f\x8b\x08", b"not a zip at all", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\0", os.urandom(600)]:
        got = c.look(mail(("x.zip", data, "application/zip")))
        same((names(got["open"]), got["plain"][0]["sha"]), (["x.zip"], hashlib.sha256(data).hexdigest()), repr(data[:10]))


def M20_other_formats_stay(c):
    ar = b"!<arch>\nx/              0           0     0     644     4         `\ntest"
    shar = b"#!/bin/sh\n# This is a shell archive\nexit 0\n"
    cpio = b"070707" + b"0" * 70 + b"x"
    mtree = b"#mtree\n/set type=file\nx type=file contents=/etc/passwd\n"
    for data in (ar, shar, cpio, mtree, b"Rar!\x1a\x07\0" + b"\0" * 40, b"MSCF" + b"\0" * 60):
        for name in ("x.zip", "x.gz", "x.tar"):
            same(names(c.look(mail((name, data)))["open"]), [name], repr(data[:8]))
        got = c.look(mail(("x.gz", gzip.compress(data))))
        same([(p["name"], p["size"]) for p in got["open"]], [("x", len(data))], "compressed, it is one file: %r" % data[:8])


def M20_memory_demanded(c):
    data = bytearray(seven_of("lzma2.7z"))
    at = data.find(b"\x21\x01")  # LZMA2 with a property of one byte: the size of its dictionary
    if at < 0:
        raise AssertionError("the seed has changed")
    data[at + 2] = 40  # 4 GiB
    got = c.look(mail(("m.7z", bytes(data))))
    same(got["plain"][0]["sha"], hashlib.sha256(bytes(data)).hexdigest(), "the archive is there")


def M20_7z_that_claims_1e8_members(c):
    with open(os.path.join(TOP, "tests/regress/unpack/7z-list-of-1e8-members"), "rb") as f:
        data = f.read()
    got = c.look(mail(("m.7z", data)))
    same([p["sha"] for p in got["open"]], [hashlib.sha256(data).hexdigest()], "the archive is there, closed")
    same(got["defects"], "limit.opened", "and says why")
    costs(c, 5)


def pax_record(key, value):
    text = b" %s=%s\n" % (key, value)
    n = len(text) + 1
    while len(b"%d" % n) + len(text) != n:
        n = len(b"%d" % n) + len(text)
    return b"%d%s" % (n, text)


def tar_header(name, size, kind):
    h = bytearray(512)
    h[0:len(name)] = name
    h[100:108] = b"0000644\0"
    h[124:136] = b"%011o\0" % size
    h[148:156] = b"        "
    h[156:157] = kind
    h[257:265] = b"ustar\00000"
    h[148:156] = b"%06o\0 " % sum(h)
    return bytes(h)


def to_blocks(data):
    return data + bytes(-len(data) % 512)


def sparse_tar(holes):
    """A file of which nothing is there, with a map that says so in that many lines; one that is there behind it."""
    pax = b"".join(pax_record(b"GNU.sparse." + k, v) for k, v in [(b"major", b"1"), (b"minor", b"0"), (b"name", b"x"), (b"realsize", b"10")])
    holes = to_blocks(b"%d\n" % holes + b"0\n0\n" * (holes - 1) + b"10\n0\n")
    return (tar_header(b"p", len(pax), b"x") + to_blocks(pax) + tar_header(b"GNUSparseFile.0/x", len(holes), b"0") + holes +
            tar_header(b"last", 4, b"0") + to_blocks(b"text") + bytes(1024))


def M20_tar_with_a_map_of_holes(c):
    got = c.look(mail(("m.tar", sparse_tar(1000)), ("m.tar.gz", gzip.compress(sparse_tar(1000)))))
    same([(p["name"], p["size"]) for p in got["open"]], [("x", 10), ("last", 4)] * 2, "a short one is no harm")
    same(got["defects"], "", "a short one is no harm")
    for name, pack in [("m.tar", bytes), ("m.tar.gz", gzip.compress), ("m.tar.bz2", bz2.compress)]:
        data = pack(sparse_tar(1000000))  # a machine's memory went with some 100 million
        got = c.look(mail((name, data)))
        same([p["sha"] for p in got["open"]], [hashlib.sha256(data).hexdigest()], name + ": the archive is there, closed")
        same(got["defects"], "limit.opened", name)
        costs(c, 5, 40 << 10)


def M20_tar_that_the_library_takes_for_none(c):
    header = bytearray(tar_header(b"x", 0, b"0"))
    header[124:136] = b"not a number"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    data = bytes(header) + b"more" * 300
    got = c.look(mail(("x.tar.gz", gzip.compress(data)), ("y.tar", data)))
    want = hashlib.sha256(data).hexdigest()
    same([(p["name"], p["sha"]) for p in got["open"]], [("x.tar", want), ("y.tar", want)], "it is a file")
    same(got["defects"], "archive.broken", "the one that is not compressed")


def M20_zip_with_a_long_list(c):
    def zip_with(n):
        entry = b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 40, 0, 0, 0, 0, 0, 0)
        listed = b"".join(entry + b"%040d" % i for i in range(n))
        return (b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 0, 0, 0, 0, 40, 0) + b"%040d" % 0 + listed +
                b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n & 0xffff, n & 0xffff, len(listed), 70, 0))
    got = c.look(mail(("m.zip", zip_with(1))))
    same((len(got["open"]), got["open"][0]["size"], got["defects"]), (1, 0, ""), "one member")
    data = zip_with(110000)
    got = c.look(mail(("m.zip", data)))
    same([p["sha"] for p in got["open"]], [hashlib.sha256(data).hexdigest()], "the archive is there, closed")
    same(got["defects"], "limit.opened", "and says why")
    costs(c, 5, 40 << 10)


# ---- M18, M19: wrappers share the budget ----

def uuencoded(name, data):
    lines = ["begin 644 " + name]
    for i in range(0, len(data), 45):
        lines.append(binascii.b2a_uu(data[i:i + 45]).decode().rstrip("\n"))
    return "\n".join(lines + ["`", "end"]) + "\n"


def M19_zip_in_uuencode(c):
    got = c.look(mail(body="text\n" + uuencoded("../../x.zip", zip_of(FILES[:1]))))
    same(names(got["plain"]), ["../../x.zip"], "as sent")
    same([(p["name"], p["size"]) for p in got["open"]], [("a.txt", 80)], "opened")


def M18_wrapper_counts_as_depth(c):
    inner = mail(("f.zip", zip_of([("g.zip", zip_of([("h.zip", zip_of([("i.txt", b"i")]))]))])))
    outer = b"From: a@b.example\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + binascii.b2a_base64(inner)
    got = c.look(outer)
    has(got["defects"], "limit.opened")
    same(names(got["open"]), ["h.zip"], "a wrapper and two archives are three")


def budget_is_set(c):
    files = zip_of([("%d" % i, b"x") for i in range(20)])
    got = c.look(mail(("f.zip", files)), "mail.limits { opened_parts = 5 }\n")
    same((len(got["open"]), got["defects"]), (6, "limit.opened"), "parts")
    got = c.look(mail(("f.zip", files)), "mail.limits { opened_depth = 0 }\n")
    same((names(got["open"]), got["defects"]), (["f.zip"], "limit.opened"), "depth")


def der(tag, *parts):
    body = b"".join(parts)
    size = bytes([len(body)]) if len(body) < 128 else bytes([0x84]) + len(body).to_bytes(4, "big")
    return bytes([tag]) + size + body


def compressed_mime(entity, packed=None):
    """RFC 3274, as application/pkcs7-mime; packed: what stands in place of what zlib makes."""
    oid = lambda last: der(6, bytes.fromhex("2a864886f70d010910") + last)
    data = der(0x30, der(6, bytes.fromhex("2a864886f70d010701")), der(0xa0, der(4, zlib.compress(entity, 9) if packed is None else packed)))
    cms = der(0x30, oid(b"\x01\x09"), der(0xa0, der(0x30, der(2, b"\0"), der(0x30, oid(b"\x03\x08")), data)))
    return mail(("smime.p7m", cms, "application/pkcs7-mime"))


def smime_compressed(c):
    """A wrapper like signed data: what is in it is there; what is damaged, or too much, stays as it came and says so."""
    inner = mail(("inner.pdf", b"%PDF-1.4 " + FILES[2][1][:5000]))
    got = c.look(compressed_mime(inner))
    same((names(got["plain"]), got["defects"]), (["inner.pdf"], ""), "opened")
    same(names(c.look(compressed_mime(compressed_mime(inner)))["plain"]), ["inner.pdf"], "twice")
    got = c.look(compressed_mime(b"Content-Type: text/plain; name=e.txt\nContent-Disposition: attachment\n\n"))
    same((names(got["plain"]), got["plain"][0]["size"]), (["e.txt"], 0), "with nothing in it")
    for what, packed in [("cut", zlib.compress(inner)[:-9]), ("another sum", zlib.compress(inner)[:-1] + b"?"), ("no zlib", b"hello"), ("nothing", b"")]:
        got = c.look(compressed_mime(inner, packed))
        same((names(got["plain"]), got["defects"]), (["smime.p7m"], "smime.broken"), what)
    bomb = zlib.compress(b"Content-Type: application/x; name=big\n\n" + b"x" * (256 << 20), 9)
    got = c.look(compressed_mime(b"", bomb))
    same((names(got["plain"]), got["defects"]), (["smime.p7m"], "limit.opened"), "a bomb")
    costs(c, 3, 48 << 10)


def M20_each_limit_is_a_defect(c):
    """One of mail.limits after the other breached: a file as it was sent, limit.opened, and no error."""
    signed = compressed_mime(mail(("inner.pdf", b"%PDF-1.4 " + FILES[2][1][:300000])))
    zipped = mail(("f.zip", zip_of(FILES + [("z", b"0" * (3 << 20))])))
    uu = mail(body="text\n" + uuencoded("a.txt", b"abc") + uuencoded("b.txt", b"abc"))
    whole = b"From: a@b.example\nDate: Tue, 1 Oct 2024 10:00:00 +0000\nContent-Type: message/rfc822\nContent-Transfer-Encoding: base64\n\n" + binascii.b2a_base64(mail(("a.txt", b"a")))
    for data, limit, stays in [(signed, 'opened_whole = "100 kB"', "smime.p7m"), (signed, 'opened_bytes = "100 kB"', "smime.p7m"),
                               (signed, "opened_depth = 0", "smime.p7m"), (signed, "opened_parts = 0", "smime.p7m"), (zipped, 'opened_bytes = "1 MB"', "f.zip"),
                               (zipped, "opened_ratio = 1", "f.zip"), (zipped, "opened_parts = 2", "f.zip"), (zipped, "opened_depth = 0", "f.zip"),
                               (uu, "opened_parts = 1", "a.txt"), (uu, "opened_depth = 0", None), (whole, 'opened_bytes = "10 B"', None),
                               (whole, "opened_depth = 0", None), (whole, "opened_parts = 0", None)]:
        got = c.look(data, "mail.limits { %s }\n" % limit)
        same(got["defects"], "limit.opened", limit)
        if stays:
            has(str(names(got["open"])), stays)
    same(names(c.look(signed)["open"]), ["inner.pdf"], "within the limits")


def what_is_opened_in_memory(c):
    """All of a message's S/MIME together, also when what was opened first has gone beyond the limit with its content."""
    one = lambda n: (("%d.p7m" % n), signed_data(b"Content-Type: application/x; name=%d.bin\n\n" % n + os.urandom(600000)), "application/pkcs7-mime")
    got = c.look(mail(one(1), one(2), one(3)), 'mail.limits { opened_whole = "1 MB" }\n')
    same((names(got["plain"]), got["defects"]), (["1.bin", "2.p7m", "3.p7m"], "limit.opened"), "the first")


def signed_data(entity):
    """SignedData with no signers."""
    oid = lambda last: der(6, bytes.fromhex("2a864886f70d0107") + last)
    content = der(0x30, oid(b"\x01"), der(0xa0, der(4, entity)))
    return der(0x30, oid(b"\x02"), der(0xa0, der(0x30, der(2, b"\1"), der(0x31), content, der(0x31))))


def large_members_need_little_memory(c):
    data = mail(("l.zip", zip_of([("a.bin", os.urandom(1 << 20) * 48)])))
    got = c.look(data)
    same(got["open"][0]["size"], 48 << 20, "size")
    costs(c, 10)


from signed import TESTS as SIGNED  # noqa: E402

TESTS = [every_format, seven_zip, single_files, part_parts, saved, extract_unpack, forwarded, office_documents_stay, lumber, encrypted, M20_zip_bomb,
         M20_bomb_costs_little, zeros_are_no_empty_tar, smime_compressed, M20_each_limit_is_a_defect, what_is_opened_in_memory, compressed_again, M20_bombs_in_a_zip, M20_overlapping, M20_gzip_quine, M20_a_million_members, M20_names, M20_colliding_names, M20_links,
         M20_wrong_sizes, M20_truncated, M20_tar_with_a_damaged_header, M20_compressed_and_cut_off, M20_name_encodings, M20_content_encoding,
         M20_not_what_it_says, M20_other_formats_stay, M20_memory_demanded,
         M20_7z_that_claims_1e8_members, M20_tar_with_a_map_of_holes, M20_tar_that_the_library_takes_for_none,
         M20_zip_with_a_long_list,
         M19_zip_in_uuencode, M18_wrapper_counts_as_depth, budget_is_set, large_members_need_little_memory] + SIGNED


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
