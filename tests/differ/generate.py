"""Mail that can be read in two ways, out of a seed. make(seed, n) gives bytes; the same numbers give the same bytes anywhere."""
import base64, random

WORDS = ["alpha", "beta", "report", "invoice 7", "Grüße", "naïve", "价格", "a;b", "x=y", "it's", "(c)"]


def pick(r, *weighted):
    """Each a value, or (value, weight). A weight of 3 or more is mail as it should be; of the rest a message has r.odd at most."""
    pairs = [w if isinstance(w, tuple) and isinstance(w[1], int) else (w, 1) for w in weighted]
    if r.odd == 0:
        pairs = [p for p in pairs if p[1] == 0 or p[1] >= 3]
    value, weight = r.choices(pairs, [w for _, w in pairs])[0]
    r.odd -= weight < 3
    return value


def oddly(r, chance):
    if r.odd == 0 or r.random() >= chance:
        return False
    r.odd -= 1
    return True


def encoded_word(r, text, charset="utf-8"):
    raw = text.encode(charset, "replace")
    if r.random() < .5:
        return "=?%s?B?%s?=" % (charset, base64.b64encode(raw).decode())
    return "=?%s?q?%s?=" % (charset, "".join(chr(c) if chr(c).isalnum() and c < 128 else "=%02X" % c for c in raw))


def unstructured(r):
    word = r.choice(WORDS)
    return pick(r, ("plain text", 4), (word if word.isascii() else encoded_word(r, word), 4),
                encoded_word(r, "Grüße", "iso-8859-1"), encoded_word(r, "a") + " " + encoded_word(r, word), "x " + encoded_word(r, word) + " y",
                "folded\n " + "text", "folded\n\tand again\n  text", word, encoded_word(r, word) + encoded_word(r, word), "=?utf-8?q?unended",
                "=?x-unknown?q?a?=", "=?utf-8?x?a?=", "=?utf-8?b?YQ?=", "=?utf-8?b?Y?=", "=?utf-8?q?a b?=", "=?utf-8?q?=c3?= =?utf-8?q?=a9?=",
                "(comment " + encoded_word(r, word) + ")", "\"" + encoded_word(r, word) + "\"", "", "=?utf-8*en?q?a?=", "=?utf-8?Q?a=0Ab?=")


def address(r):
    user = pick(r, ("a", 4), "first.last", "\"q u\"", "a+b", "\"a@b\"", "a..b")
    at = user + "@" + pick(r, ("example.org", 4), "EXAMPLE.Org", "[192.0.2.1]", "sub.example.org", "exa\xedmple.org".encode().decode())
    return pick(r, (at, 3), ("<%s>" % at, 1), ("Name <%s>" % at, 4), "\"Quoted, Name\" <%s>" % at, "%s (comment)" % at, "%s <%s>" % (encoded_word(r, "Grüße"), at),
                "\"%s\" <%s>" % (encoded_word(r, "Grüße"), at), "Name (c) <%s>" % at, "<@route:%s>" % at, "N.A. Me <%s>" % at, "Name <%s" % at,
                "%s>" % at, "a b@example.org", "(c)%s" % at, "Grüße <%s>" % at, "\"a \\\" b\" <%s>" % at, "a@b@example.org", "<a@b> <c@d>", "Name <>", "name",
                "Name\n <%s>" % at)


def addresses(r):
    many = ", ".join(address(r) for _ in range(pick(r, (1, 5), (2, 3))))
    return pick(r, (many, 8), "group: %s;" % many, "undisclosed-recipients:;", many + ",", ", ,%s" % many, many.replace(", ", ";"))


def parameter(r, name, value):
    """value is ASCII or not; what comes back begins with a semicolon."""
    pct = "".join(c if c.isalnum() else "".join("%%%02X" % b for b in c.encode()) for c in value)
    plain = "\"%s\"" % value.replace("\\", "\\\\").replace("\"", "\\\"")
    half = len(value) // 2
    return pick(r, ("; %s=%s" % (name, plain), 6), "; %s=%s" % (name, value.replace(" ", "")), ";%s = %s" % (name, plain), ";\n\t%s=%s" % (name, plain),
                "; %s*=utf-8''%s" % (name, pct), "; %s*=UTF-8'en-US'%s" % (name, pct), "; %s*=%s" % (name, pct), "; %s*='%s" % (name, pct),
                "; %s*0=\"%s\"; %s*1=\"%s\"" % (name, value[:half], name, value[half:]), "; %s*1=\"%s\"; %s*0=\"%s\"" % (name, value[half:], name, value[:half]),
                "; %s*0*=utf-8''%s; %s*1=\"tail\"" % (name, pct, name), "; %s*1=lonely" % name, "; %s*0=a; %s*2=c" % (name, name), "; %s*0=a; %s*0=b" % (name, name),
                "; %s=%s; %s=other" % (name, plain, name), "; %s=%s; %s*=utf-8''other" % (name, plain, name), "; %s=\"%s\"" % (name, encoded_word(r, value)),
                "; %s=%s" % (name, encoded_word(r, value)), "; %s=\"unended" % name, "; %s=" % name, "; %s" % name, ";; %s=%s" % (name, plain), "; %s=%s (c)" % (name, plain),
                "; %s*=utf-8''%%" % name, "; %s*=x-unknown''a" % name, "; %s='%s'" % (name, value.replace(" ", "")), " %s=%s" % (name, plain), "; %s=a b.txt" % name)


def encoded(r, data):
    """(field value or None, body)"""
    b64 = base64.b64encode(data).decode()
    lines = "\n".join(b64[i:i + 60] for i in range(0, len(b64), 60))
    qp = "".join(chr(c) if 33 <= c < 127 and c != 61 or c in (32, 10) else "=%02X" % c for c in data).replace(" \n", "=20\n")
    return pick(r, ((None, "plain body\n"), 4), (("base64", lines + "\n"), 5), (("quoted-printable", qp + "\n"), 3), (("BASE64", lines), 1), (("\"base64\"", lines), 1), (("base64 (c)", lines), 1),
                ("=?utf-8?q?base64?=", lines), ("base645", lines), ("x-uuencode", "begin 644 a\n#86)C\n`\nend\n"), ("uuencode", "begin 644 a\n#86)C\n`\nend\n"), ("7bit", "text\n"), ("8bit", "Gr\xfc\xdfe\n"),
                ("binary", "a\rb\0c\n"), ("base64", "!!" + lines + "?"), ("base64", "Zg==Zg==\n"), ("base64", "Zm9v=YmFy\n"), ("base64", "Zm9vYg\n"), ("base64", "Zm9vY\n"), ("base64", "Zm9v\n\n--x\nYmFy\n"),
                ("base64", ""), ("base64", "="), ("quoted-printable", "a=\nb=3dc =  \nd=G1=\n"), ("quoted-printable", "a=3"), ("quoted-printable", "trailing \t \nx"), ("quoted-printable", "=C3=A9=\n"),
                ("base64 quoted-printable", lines), ("base64;", lines), ("", lines))


def boundary_line(r, b, last=False):
    end = "--" if last else ""
    return "--" + b + end + pick(r, ("\n", 12), " \n", "\t \n", "\r\n", " x\n", "-\n", "x\n", "--\n", "\0\n")


def header_of(r, fields):
    """Fields with what befalls them in the wild."""
    out = []
    for name, value in fields:
        out.append(pick(r, ("%s: %s\n", 20), "%s:%s\n", "%s : %s\n", "%s:\n %s\n", "%s:\t%s\n", "%s: %s\r\n", "%s: %s \n") % (name, value))
    odd = pick(r, (None, 30), "no colon here\n", "From x\n", ": nameless\n", "X-A: a\rb\n", "X-B: a\0b\n", " fold without a field\n", "X-\xff: c\n", "X-C\n", "\t\n")
    if odd:
        out.insert(r.randrange(len(out) + 1), odd)
    if out and oddly(r, .03):
        out.append(r.choice(out))
    return "".join(out)


def separator(r):
    return pick(r, ("\n", 20), "\r\n", " \n", "", "\r", "\n\n")


def leaf(r, outer):
    encoding, body = encoded(r, r.choice([b"hello\n", b"\x00\x01\xff\xfe" * 5, "Grüße\n".encode(), b"", b"a" * 100, b"= trailing \n"]))
    fields = []
    if r.random() < .8:
        value = pick(r, ("text/plain", 5), ("application/pdf", 4), ("text/html; charset=utf-8", 3), "text/plain; charset=iso-8859-1", "TEXT/Plain", "text", "text/", "/plain", "image/png; (c) x=y", "text/plain charset=utf-8",
                     "application/x-a, text/plain", "message/partial; id=a; number=1", "message/external-body; access-type=x", "", "text /plain", "\"text/plain\"", "multipart/mixed", "multipart/mixed; boundary=nowhere")
        fields.append(("Content-Type", value + (parameter(r, "name", r.choice(WORDS) + ".txt") if r.random() < .4 else "")))
    if oddly(r, .03):
        fields.append(("Content-Type", "application/x-second"))
    if encoding is not None:
        fields.append(("Content-Transfer-Encoding", encoding))
        if oddly(r, .03):
            fields.append(("Content-Transfer-Encoding", "base64" if encoding != "base64" else "7bit"))
    if r.random() < .5:
        fields.append(("Content-Disposition", pick(r, ("attachment", 4), "inline", "ATTACHMENT", "x-other", "", "attach ment", "\"attachment\"") +
                       (parameter(r, "filename", r.choice(WORDS) + ".txt") if r.random() < .8 else "")))
    r.shuffle(fields)
    return fields, body


def multipart(r, outer, depth):
    b = pick(r, ("b%d" % r.randrange(99), 8), "=_a'b(c)+_,-./:=?", "with space", "x" * 70, "x" * 71, "trail ")
    if outer:
        b = pick(r, (b, 8), outer[-1], outer[-1] + "x", outer[-1][:-1] or "q", outer[-1] + "--")
    written = pick(r, ("; boundary=\"%s\"" % b, 12), "; boundary=%s" % b, "; boundary=\"%s\"; boundary=other" % b, "; boundary=other; boundary=\"%s\"" % b, "; boundary*=utf-8''%s" % b, "; boundary*0=\"%s\"" % b,
                   "; boundary=\"%s\"; boundary*=utf-8''other" % b, "", "; boundary=", "; boundary=\"\"", "; BOUNDARY=\"%s\"" % b, " boundary=\"%s\"" % b, "; bound(c)ary=\"%s\"" % b, "; boundary=(c)\"%s\"" % b)
    body = pick(r, ("", 8), "preamble\n", "\n", "Content-Type: text/plain\n\nhidden\n", "--\n")
    for _ in range(pick(r, (1, 3), (2, 4), (3, 3), 0)):
        fields, inside = entity(r, outer + [b], depth + 1)
        body += boundary_line(r, b) + header_of(r, fields) + separator(r) + inside + pick(r, ("\n", 8), "", "\n\n")
        if not body.endswith("\n"):
            body += "\n"
    body += pick(r, (boundary_line(r, b, True), 8), "", boundary_line(r, b, True) + boundary_line(r, b) + "\nafter the end\n")
    body += pick(r, ("", 6), "epilogue\n", "\n", "--other\n\nx\n")
    fields = [("Content-Type", "multipart/" + pick(r, ("mixed", 6), "alternative", "related", "digest", "signed", "Mixed") + written)]
    if oddly(r, .04):
        fields.append(("Content-Transfer-Encoding", r.choice(["base64", "quoted-printable", "8bit"])))
    return fields, body


def message(r, outer, depth):
    fields, body = entity(r, outer, depth + 1)
    value = pick(r, ("message/rfc822", 8), "MESSAGE/RFC822", "message/global", "message/rfc822; name=\"a.eml\"")
    inner = header_of(r, [("Subject", "inner")] + fields) + separator(r) + body
    around = [("Content-Type", value)]
    if oddly(r, .15):
        around.append(("Content-Transfer-Encoding", "base64"))
        inner = base64.encodebytes(inner.encode("utf-8", "replace")).decode()
    return around, inner


def entity(r, outer, depth):
    kind = pick(r, ("leaf", 6), ("multipart", 4 if depth < 3 else 0), ("message", 3 if depth < 3 else 0))
    if kind == "leaf":
        return leaf(r, outer)
    return multipart(r, outer, depth) if kind == "multipart" else message(r, outer, depth)


def make(seed, n):
    r = random.Random("%s/%d" % (seed, n))
    r.odd = r.choice([1, 1, 2, 3])
    fields, body = multipart(r, [], 0) if r.random() < .6 else entity(r, [], 0)
    top = [("From", addresses(r)), ("To", addresses(r)), ("Subject", unstructured(r)), ("Date", "Mon, 23 Nov 2026 05:41:00 +0000")]
    if not oddly(r, .05):
        top.append(("MIME-Version", "1.0"))
    return (header_of(r, top + fields) + separator(r) + body).encode("utf-8", "surrogateescape").replace(b"\r\n", b"\n")
