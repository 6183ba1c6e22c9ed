"""Mail with something in it, and what a script sees of it."""
import binascii, email.message, json, os, re, subprocess, tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
SANITIZED = bool(re.search(b"__[at]san_init", open(BINARY, "rb").read()))  # its shadow is memory, too

LIST = """local function one(p)
  return { path = p.path, name = p.name, member = p.member, size = p.size, encrypted = p.encrypted,
           sha = not (p.encrypted and p.member) and p.sha256 or nil, attached = p.attached, reason = p.reason }
end
local function all(list) local out = {} for p in list do out[#out + 1] = one(p) end return out end
mail.on_message(function(m)
  local plain, open = all(m:attachments()), all(m:attachments { unpack = true })
  print(json.encode { plain = plain, open = open, defects = table.concat(m.defects, " ") })
end)
"""


def same(got, want, what):
    if got != want:
        raise AssertionError("%s: wanted %r, got %r" % (what, want, got))


def has(text, *parts):
    for part in parts:
        if part not in text:
            raise AssertionError("%r is missing in:\n%s" % (part, text))


def mail(*files, body="see the files", charset="utf-8"):
    """Each file: (name, bytes[, type])."""
    m = email.message.EmailMessage()
    m["From"], m["To"], m["Subject"], m["Date"] = "a@b.example", "c@d.example", "files", "Tue, 1 Oct 2024 10:00:00 +0000"
    m.set_content(body, charset=charset)
    for f in files:
        kind = (f[2] if len(f) > 2 else "application/octet-stream").split("/")
        m.add_attachment(f[1], maintype=kind[0], subtype=kind[1], filename=f[0])
    return m.as_bytes()


class Case:
    def __init__(self):
        self.d = tempfile.mkdtemp(prefix="mailmill-opened-")
        self.env = {"PATH": os.environ["PATH"], "HOME": self.d, "TZ": "UTC", "LC_ALL": "C.UTF-8", "TMPDIR": self.d}
        self.env.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))

    def write(self, name, data):
        path = os.path.join(self.d, name)
        with open(path, "wb") as f:
            f.write(data if isinstance(data, bytes) else data.encode())
        return path

    def run(self, script, *args, code=0):
        with open(self.d + "/.out", "w+b") as out, open(self.d + "/.err", "w+b") as err:
            p = subprocess.Popen(["timeout", "120", BINARY, "run", self.write("s.lua", script), *args], cwd=self.d, env=self.env,
                                 stdin=subprocess.DEVNULL, stdout=out, stderr=err)
            _, status, self.usage = os.wait4(p.pid, 0)
            p.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0), err.seek(0)
            self.out, self.err = out.read().decode("utf-8", "replace"), err.read().decode("utf-8", "replace")
        same(p.returncode, code, "exit code\n%s%s" % (self.out[-2000:], self.err[-2000:]))
        return self.out

    def look(self, data, limits=""):
        """What the message has: lists of attachments as sent and with archives opened, and the defects."""
        return json.loads(self.run(limits + LIST, self.write("m.eml", data)))

    def files(self, sub=""):
        top, found = os.path.join(self.d, sub), []
        for base, dirs, names in os.walk(top):
            found += [os.path.relpath(os.path.join(base, n), top) for n in names]
        return sorted(found)


def names(parts):
    return [p.get("name") for p in parts]


# ---- zip files as no honest program writes them ----

class RawZip:
    """Members as told, nothing checked: names are bytes, sizes may lie, two members may share their data."""

    def __init__(self):
        self.data, self.entries = bytearray(), []

    def add(self, name, content, flags=0, method=0, size=None, crc=None, packed=None, external=0, extra=b""):
        packed = content if packed is None else packed
        crc = binascii.crc32(content) if crc is None else crc
        size = len(content) if size is None else size
        head = b"\x14\0" + flags.to_bytes(2, "little") + method.to_bytes(2, "little") + b"\0\0\x21\0" + crc.to_bytes(4, "little") + \
            len(packed).to_bytes(4, "little") + size.to_bytes(4, "little") + len(name).to_bytes(2, "little") + len(extra).to_bytes(2, "little")
        at = len(self.data)
        self.data += b"PK\3\4" + head + name + extra + packed
        self.point(name, head, at, external, extra)
        return head, at

    def point(self, name, head, at, external=0, extra=b""):
        self.entries.append(b"PK\1\2\x14\3" + head[:24] + len(extra).to_bytes(2, "little") + b"\0" * 6 + external.to_bytes(4, "little") +
                            at.to_bytes(4, "little") + name + extra)

    def bytes(self):
        directory = b"".join(self.entries)
        n = min(len(self.entries), 0xffff).to_bytes(2, "little")
        return bytes(self.data) + directory + b"PK\5\6\0\0\0\0" + n + n + len(directory).to_bytes(4, "little") + \
            len(self.data).to_bytes(4, "little") + b"\0\0"
