#!/usr/bin/env python3
"""The mail the figures are made on: the same bytes on every run, nothing but the standard library.

  small   20,000 messages, about 4-20 KiB: text/plain, multipart/alternative, quoted-printable, base64 text, many charsets, RFC 2047
          headers, a few small attachments, a few lines that start with "From " or "." (mboxrd quoting, POP3 dot-stuffing)
  attach  2,000 messages, 50 KiB - 3 MiB, 1-5 base64 attachments (magic bytes of pdf, png, zip, docx, then random data), 1.4 GiB
  huge    1 message of 200 MB with one base64 attachment

--scale makes a fraction of a set: --scale 0.1 --suffix -tenth. Each set is written twice: OUT/SET.mbox (mboxrd, LF) and
OUT/mail/SET/cur/ (LF; the names carry ,S=BYTES,W=BYTES-WITH-CRLF, as Dovecot writes them). small1k are the first 1,000 of small, as hard
links, for what waits a round trip or two each message. OUT/SET.json has the counts; OUT/SET.messages and OUT/SET.attachments have the
SHA-256 of each message and of each attachment, sorted."""
import argparse, base64, binascii, hashlib, json, os, random, re, shutil, time

WORDS = {
    "us-ascii": "the quick invoice meeting project report update please find attached review schedule "
                "budget server release customer order shipment number confirm regards team tomorrow "
                "monday price request information account support ticket status version deploy".split(),
    "de": "für über Grüße möglich Änderung Straße prüfen Lösung größer können Rückfrage Vertrag Anhang "
          "Besprechung nächste Woche schön Übersicht bestätigen Angebot Lieferung".split(),
    "fr": "été réunion dépôt à bientôt élève garçon français où déjà très pièce jointe société "
          "modifié coûts hôtel être naïve reçu".split(),
    "ru": "привет отчёт договор встреча завтра спасибо документ проект вложение счёт оплата "
          "пожалуйста проверьте сообщение".split(),
    "ja": "会議 資料 添付 確認 お願い 明日 報告 書類 請求 予定 変更 連絡 ありがとう 案件".split(),
    "zh": "会议 附件 请 查收 报告 合同 明天 谢谢 项目 更新 发票 付款 确认 通知".split(),
    "emoji": "🎉 launch 🚀 ready ✓ naïve café – “quoted” … €99 dogs 🐕 done".split(),
}
TEXTS = [  # (language, charset, transfer encoding, weight)
    ("us-ascii", "us-ascii", "7bit", 34), ("de", "utf-8", "qp", 14), ("fr", "iso-8859-1", "qp", 10),
    ("de", "iso-8859-15", "qp", 5), ("fr", "windows-1252", "qp", 6), ("emoji", "utf-8", "8bit", 8),
    ("ru", "koi8-r", "b64", 5), ("ru", "windows-1251", "qp", 4), ("ja", "iso-2022-jp", "7bit", 4),
    ("ja", "shift_jis", "b64", 2), ("zh", "gb18030", "b64", 4), ("zh", "utf-8", "b64", 4),
]
TW = [t[3] for t in TEXTS]
KINDS = [
    ("pdf", "application/pdf", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog /Pages 2 0 R >>\nendobj\n"),
    ("png", "image/png", b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x05\x00\x00\x00\x04\x00\x08\x06\x00\x00\x00"),
    ("zip", "application/zip", b"PK\x03\x04\x14\x00\x00\x00\x08\x00\x21\x52\x8a\x57data/report.csv"),
    ("docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
     b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00\x21\x00\xdf\xa4\xd2\x6c\x5a\x01\x00\x00\x20\x05\x00\x00"
     b"\x13\x00\x08\x02[Content_Types].xml word/document.xml "),
]
NAMES = ["Rechnung Größe.", "report-2024.", "été.", "отчёт.", "資料.", "Q3 budget (final).", "scan0001.", "photo."]
FROM_RX = re.compile(rb"^(>*From )", re.M)
DAYS = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
T0 = 1_700_000_000
HUGE = {"huge": int(200e6 * 57 / 77) // 57 * 57, "gib": 1 << 30}   # decoded; the message of "huge" has 200 MB


def b64(data):                                   # 76-column base64, LF line ends
    out, step = [], 57 * 4096
    for i in range(0, len(data), step):
        enc = base64.b64encode(data[i:i + step])
        out.extend(enc[j:j + 76] for j in range(0, len(enc), 76))
    return b"\n".join(out) + b"\n"


def ew(text, charset, how):                      # RFC 2047, folded in several encoded words
    words, cur = [], ""
    for ch in text:
        if len((cur + ch).encode(charset, "replace")) > (30 if how == "B" else 14):
            words.append(cur); cur = ""
        cur += ch
    words.append(cur)
    out = []
    for w in words:
        raw = w.encode(charset, "replace")
        if how == "B":
            enc = base64.b64encode(raw).decode()
        else:
            enc = "".join(chr(c) if chr(c).isalnum() and c < 128 else "_" if c == 32 else "=%02X" % c for c in raw)
        out.append("=?%s?%s?%s?=" % (charset, how, enc))
    return "\n ".join(out)


def date(t):
    g = time.gmtime(t)
    return "%s, %d %s %d %02d:%02d:%02d +0000" % (DAYS[g.tm_wday], g.tm_mday, MONTHS[g.tm_mon - 1], g.tm_year,
                                                 g.tm_hour, g.tm_min, g.tm_sec)


def paragraph(r, lang, nbytes, sep=" "):
    w, out, n, col = WORDS[lang], [], 0, 0
    while n < nbytes:
        x = r.random()
        if x < 0.002:
            s = "\nFrom the desk of " + r.choice(w)
        elif x < 0.004:
            s = "\n.\n. dot line "
        else:
            s = r.choice(w if r.random() < 0.6 else WORDS["us-ascii"] if lang not in ("ja", "zh", "ru") else w)
        col += len(s) + 1
        if col > 70:
            s += "\n"; col = 0
        out.append(s); n += len(s) + 1
    return sep.join(out) + "\n"


def encode_body(text, charset, cte):
    raw = text.encode(charset, "replace")
    if cte == "qp":
        return "quoted-printable", binascii.b2a_qp(raw, istext=True)
    if cte == "b64":
        return "base64", b64(raw)
    return cte, raw


def headers(r, i, seq, lang, charset):
    h, t = [], T0 + i * 37
    w = WORDS[lang]
    name = " ".join(r.choice(w) for _ in range(2)).title()
    subj = " ".join(r.choice(w) for _ in range(r.randint(3, 9)))
    how = "B" if lang in ("ja", "zh", "ru") else r.choice("QB")
    cs = charset if charset != "us-ascii" else None
    user = "u%05d" % r.randrange(5000)
    h.append("Return-Path: <%s@example.org>" % user)
    h.append("Delivered-To: reader@example.net")
    for k in range(r.randint(2, 5)):
        h.append("Received: from mx%d.example.org (mx%d.example.org [192.0.2.%d])\n\tby mail%d.example.net (Postfix) "
                 "with ESMTPS id %08X\n\tfor <reader@example.net>; %s" % (k, k, r.randrange(1, 254), k,
                                                                         r.getrandbits(32), date(t - k)))
    if r.random() < 0.7:
        sig = base64.b64encode(r.randbytes(192)).decode()
        h.append("DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=s1;\n\th=from:to:subject:date;"
                 "\n\tbh=%s;\n\tb=%s" % (base64.b64encode(r.randbytes(32)).decode(),
                                         "\n\t ".join(sig[j:j + 70] for j in range(0, len(sig), 70))))
    h.append("Message-ID: <%s.%d.%x@example.org>" % (seq, i, r.getrandbits(48)))
    h.append("Date: " + date(t))
    h.append("From: %s <%s@example.org>" % (ew(name, cs, how) if cs else '"%s"' % name, user))
    h.append("To: reader@example.net" + "".join(",\n\t\"Person %d\" <p%d@example.com>" % (j, j)
                                               for j in range(r.randint(0, 4))))
    if r.random() < 0.3:
        h.append("Cc: " + ", ".join("c%d@example.com" % j for j in range(r.randint(1, 5))))
    h.append("Subject: " + (ew(subj, cs, how) if cs else subj))
    if r.random() < 0.4:
        h.append("References:" + "".join("\n <%x@example.org>" % r.getrandbits(64) for _ in range(r.randint(1, 5))))
    if r.random() < 0.2:
        h.append("List-Id: Announce <announce.example.org>\nList-Unsubscribe: <mailto:leave@example.org>")
        h.append("Precedence: bulk")
    h.append("X-Mailer: Bench/1.0")
    h.append("MIME-Version: 1.0")
    return h


def disp_name(r, n):
    if n.isascii():
        return '"%s"' % n, 'filename="%s"' % n
    if r.random() < 0.5:
        return '"%s"' % ew(n, "utf-8", "B"), 'filename="%s"' % ew(n, "utf-8", "B")
    pct = "".join(chr(c) if chr(c).isalnum() and c < 128 or c == 46 else "%%%02X" % c for c in n.encode())
    return '"%s"' % ew(n, "utf-8", "Q"), "filename*=utf-8''" + pct


def attachment(r, size, digests, n):
    ext, ctype, magic = r.choice(KINDS)
    data = magic + r.randbytes(max(0, size - len(magic)))
    digests.append(hashlib.sha256(data).digest())
    ct, fn = disp_name(r, r.choice(NAMES) + ext)
    return (("Content-Type: %s;\n name=%s\nContent-Transfer-Encoding: base64\nContent-Disposition: attachment;\n %s\n\n"
             % (ctype, ct, fn)).encode() + b64(data), len(data))


def text_part(r, size):
    lang, charset, cte, _ = r.choices(TEXTS, TW)[0]
    name, body = encode_body(paragraph(r, lang, size), charset, cte)
    return lang, charset, name, body


def small(r, i, digests):
    size = int(r.triangular(2000, 14500, 5000))
    x = r.random()
    if x < 0.55:
        lang, charset, cte, body = text_part(r, size)
        h = headers(r, i, "small", lang, charset)
        h.append("Content-Type: text/plain; charset=%s\nContent-Transfer-Encoding: %s" % (charset, cte))
        return ("\n".join(h) + "\n\n").encode() + body, 0
    lang, charset, cte, _ = r.choices(TEXTS, TW)[0]
    txt = paragraph(r, lang, size // 3)
    html = ("<html><head><meta charset=\"%s\"><style>p { margin: 0 }</style></head><body>\n" % charset +
            "".join("<p style=\"color:#333\">%s</p>\n" % p for p in paragraph(r, lang, size // 2).split("\n") if p) +
            "</body></html>\n")
    c1, b1 = encode_body(txt, charset, cte)
    c2, b2 = encode_body(html, charset, "qp" if cte in ("7bit", "8bit") and charset != "iso-2022-jp" else cte)
    bnd = "=_alt_%016x" % r.getrandbits(64)
    alt = b"".join(b"--%s\nContent-Type: text/%s; charset=%s\nContent-Transfer-Encoding: %s\n\n%s\n" %
                   (bnd.encode(), s, charset.encode(), c.encode(), b)
                   for s, c, b in ((b"plain", c1, b1), (b"html", c2, b2))) + b"--%s--\n" % bnd.encode()
    h = headers(r, i, "small", lang, charset)
    if x < 0.92:
        h.append("Content-Type: multipart/alternative;\n boundary=\"%s\"" % bnd)
        return ("\n".join(h) + "\n\nThis is a multi-part message in MIME format.\n").encode() + alt, 0
    mix = "=_mix_%016x" % r.getrandbits(64)
    att, n = attachment(r, r.randrange(500, 5000), digests, 0)
    h.append("Content-Type: multipart/mixed;\n boundary=\"%s\"" % mix)
    m = mix.encode()
    return (("\n".join(h) + "\n\n").encode() + b"--%s\nContent-Type: multipart/alternative;\n boundary=\"%s\"\n\n%s" %
            (m, bnd.encode(), alt) + b"--%s\n%s\n--%s--\n" % (m, att, m)), n


def attach(r, i, digests):
    total = int(50 * 1024 * (3 * 1024 / 50) ** r.random())       # log-uniform message size
    n = r.randint(1, 5)
    cuts = sorted(r.random() for _ in range(n - 1))
    shares = [b - a for a, b in zip([0.0] + cuts, cuts + [1.0])]
    lang, charset, cte, body = text_part(r, r.randrange(300, 2500))
    h = headers(r, i, "attach", lang, charset)
    mix = "=_mix_%016x" % r.getrandbits(64)
    h.append("Content-Type: multipart/mixed;\n boundary=\"%s\"" % mix)
    m = mix.encode()
    parts = [("\n".join(h) + "\n\n").encode(), b"--%s\nContent-Type: text/plain; charset=%s\nContent-Transfer-Encoding: "
             b"%s\n\n%s\n" % (m, charset.encode(), cte.encode(), body)]
    dec = 0
    for s in shares:
        a, d = attachment(r, max(600, int(s * max(1, total - 5000) * 57 / 77)), digests, 0)
        parts += [b"--%s\n" % m, a]; dec += d
    parts.append(b"--%s--\n" % m)
    return b"".join(parts), dec


def huge_chunks(r, size, dg):
    h = headers(r, 0, "huge", "us-ascii", "us-ascii")
    h.append("Content-Type: multipart/mixed;\n boundary=\"=_huge\"")
    yield ("\n".join(h) + "\n\n--=_huge\nContent-Type: text/plain; charset=us-ascii\n\nsee the attachment\n"
           "--=_huge\nContent-Type: application/zip; name=\"huge.zip\"\nContent-Transfer-Encoding: base64\n"
           "Content-Disposition: attachment; filename=\"huge.zip\"\n\n").encode()
    magic, left, sha = KINDS[2][2], size, hashlib.sha256()
    while left:
        n = min(left, 57 * 65536)
        data = magic + r.randbytes(n - len(magic)); magic = b""
        sha.update(data); left -= n
        yield b64(data)
    dg.append(sha.digest())
    yield b"--=_huge--\n"


class Sink:
    def __init__(self, out, name):
        self.dir, self.base = os.path.join(out, "mail", name), os.path.join(out, name)
        shutil.rmtree(self.dir, ignore_errors=True)
        for d in ("cur", "new", "tmp"):
            os.makedirs(os.path.join(self.dir, d))
        self.mbox = open(self.base + ".mbox", "wb", buffering=1 << 20)
        self.n = self.bytes = self.wbytes = 0
        self.paths, self.digests = [], []

    def add(self, i, chunks):
        tmp = os.path.join(self.dir, "tmp", "x")
        size = lines = 0
        sha = hashlib.sha256()
        self.mbox.write(b"From bench@example.org %s\n" % time.asctime(time.gmtime(T0 + i)).encode())
        last = b"\n"
        with open(tmp, "wb", buffering=1 << 20) as f:
            for c in chunks:
                f.write(c)
                sha.update(c)
                size += len(c)
                lines += c.count(b"\n")
                self.mbox.write(FROM_RX.sub(rb">\1", c))
                last = c
        if not last.endswith(b"\n"):
            raise SystemExit("message does not end in a newline")
        self.mbox.write(b"\n")
        p = os.path.join(self.dir, "cur", "%d.M%06dP1.bench,S=%d,W=%d:2," % (T0 + i, i, size, size + lines))
        os.rename(tmp, p)
        os.utime(p, (T0 + i, T0 + i))
        self.paths.append(p)
        self.digests.append(sha.digest())
        self.n += 1
        self.bytes += size
        self.wbytes += size + lines

    def done(self, attachments, decoded):
        self.mbox.close()
        write_set(self.base, self.digests, attachments,
                  {"messages": self.n, "bytes_lf": self.bytes, "bytes_crlf": self.wbytes, "decoded_bytes": decoded})


def write_set(base, messages, attachments, counts):
    for kind, digests in (("messages", messages), ("attachments", attachments)):
        with open("%s.%s" % (base, kind), "w") as f:
            f.writelines(d.hex() + "\n" for d in sorted(digests))
    with open(base + ".json", "w") as f:                     # last: a set that has it is whole
        json.dump(dict(counts, attachments=len(attachments)), f, indent=1)


def subset(out, name, paths, digests):
    d = os.path.join(out, "mail", name)
    shutil.rmtree(d, ignore_errors=True)
    for s in ("cur", "new", "tmp"):
        os.makedirs(os.path.join(d, s))
    for p in paths:
        os.link(p, os.path.join(d, "cur", os.path.basename(p)))
    total = lambda k: sum(int(re.search(k + r"=(\d+)", os.path.basename(p)).group(1)) for p in paths)
    write_set(os.path.join(out, name), digests, [], {"messages": len(paths), "bytes_lf": total("S"), "bytes_crlf": total("W"), "decoded_bytes": 0})


def make(out, name, scale=1.0, suffix="", say=print):
    os.makedirs(out, exist_ok=True)
    start = time.time()
    sink, digests, decoded = Sink(out, name + suffix), [], 0
    if name in HUGE:
        decoded = int(HUGE[name] * scale)
        sink.add(0, huge_chunks(random.Random(name), decoded, digests))
    else:
        gen, count = {"small": (small, 20000), "attach": (attach, 2000)}[name]
        for i in range(int(count * scale)):
            msg, d = gen(random.Random("%s-%d" % (name, i)), i, digests)
            sink.add(i, (msg,))
            decoded += d
    if name == "small":
        subset(out, "small1k" + suffix, sink.paths[:1000], sink.digests[:1000])
    sink.done(digests, decoded)
    say("%s: %d messages, %.1f MiB, %d attachments, made in %.0f s" % (name + suffix, sink.n, sink.bytes / 2**20, len(digests), time.time() - start))


def main():
    ap = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    ap.add_argument("out")
    ap.add_argument("--sets", default="small,attach,huge,gib")
    ap.add_argument("--scale", type=float, default=1.0)
    ap.add_argument("--suffix", default="")
    a = ap.parse_args()
    for s in a.sets.split(","):
        make(a.out, s, a.scale, a.suffix)


if __name__ == "__main__":
    main()
