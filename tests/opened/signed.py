"""S/MIME signatures, with certificates and mail made by the openssl command."""
import binascii, functools, json, os, subprocess, tempfile, time

from kit import Case, has, mail, same

SHOW = """mail.on_message(function(m)
  local function short(s)
    if not s then return { none = true } end
    return { verified = s.verified, reason = s.reason, signer = s.signer, name = s.name, emails = table.concat(s.emails, " "), digest = s.digest,
             issuer = s.issuer, n = #s.signers, by_sender = s.by_sender, signed_at = s.signed_at, expires = s.expires,
             each = (function() local t = {} for i, one in ipairs(s.signers) do t[i] = one.verified end return t end)() }
  end
  local parts = {}
  for p in m:attachments() do parts[p.name or "?"] = short(p.signature) end
  print(json.encode { whole = short(m.signature), system = short(m.signature), by = short(m:verify { ca = "%s"%s }), parts = parts,
                      text = m.text, encrypted = m.encrypted, first = short(m:parts()[1].signature), defects = table.concat(m.defects, " "),
                      marks = (function() local t = {} for i, p in ipairs(m:parts()) do t[i] = p.encrypted end return t end)() })
end)
"""


def ssl(*args, cwd=None, data=None):
    p = subprocess.run(["openssl", *args], cwd=cwd, input=data, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    if p.returncode:
        raise AssertionError("openssl %s: %s" % (" ".join(args), p.stderr.decode()))
    return p.stdout


@functools.lru_cache(None)
def pki():
    """Two authorities; signers alice and bob by the first, mallory by the second, old whose time is over; web is for servers only."""
    d = tempfile.mkdtemp(prefix="mailmill-pki-")
    import atexit, shutil
    atexit.register(shutil.rmtree, d, True)
    for ca in ("ca", "other"):
        ssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", ca + ".key", "-out", ca + ".pem", "-days", "30",
            "-subj", "/O=Test/CN=Root %s" % ca, "-addext", "keyUsage=critical,keyCertSign,cRLSign", cwd=d)
    for name, ca, days, ext in [("alice", "ca", 20, "emailProtection"), ("bob", "ca", 20, "emailProtection"), ("mallory", "other", 20, "emailProtection"),
                                ("old", "ca", -1, "emailProtection"), ("web", "ca", 20, "serverAuth")]:
        ssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/O=Test/CN=" + name.title() + " Ü", "-utf8", cwd=d)
        with open(d + "/ext", "w") as f:
            f.write("subjectAltName=email:%s@b.example\nextendedKeyUsage=%s\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\n" % (name, ext))
        when = ["-days", str(days)] if days > 0 else ["-days", "1"]
        cmd = ["x509", "-req", "-in", name + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key", "-CAcreateserial", "-out", name + ".pem", "-extfile", "ext", *when]
        if days <= 0:  # the x509 command takes no dates; ca does
            for f, text in [("index.txt", ""), ("serial", "1000\n"), ("ca.cnf", "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
                                                                     "default_md=sha256\npolicy=p\n[p]\nO=optional\nCN=supplied\n")]:
                with open(d + "/" + f, "w") as out:
                    out.write(text)
            cmd = ["ca", "-batch", "-config", "ca.cnf", "-cert", ca + ".pem", "-keyfile", ca + ".key", "-in", name + ".csr", "-out", name + ".pem", "-extfile", "ext",
                   "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-utf8", "-notext"]
        ssl(*cmd, cwd=d)
    return d


BODY = b"Content-Type: text/plain; charset=utf-8\r\n\r\nPay 100 to Bob.\r\n\r\nTrailing blank \r\n.\r\n"


def sign(who="alice", opaque=False, body=BODY, args=(), sender="alice@b.example"):
    d = pki()
    signers = [x for name in who.split() for x in ("-signer", name + ".pem", "-inkey", name + ".key")]
    out = ssl("cms", "-sign", *signers, *(["-nodetach"] if opaque else []), "-binary", "-md", "sha256", *args, cwd=d, data=body)
    return b"From: %s\nTo: b@b.example\nSubject: order\nDate: %s\n" % (sender.encode(), time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime()).encode()) + out


def look(c, data, ca="ca.pem", more="", **env):
    c.env.update(env)
    return json.loads(c.run(SHOW % (pki() + "/" + ca, more), c.write("m.eml", data)))


def good(s, what):
    same((s.get("verified"), s.get("reason"), s.get("n"), s.get("by_sender"), s.get("emails"), s.get("digest")),
         (True, None, 1, True, "alice@b.example", "SHA256"), what)


def S_clear_signed(c):
    for ends in (b"\r\n", b"\n"):
        got = look(c, sign().replace(b"\r\n", b"\n").replace(b"\n", ends))
        good(got["by"], "clear signed")
        same((got["by"]["name"], got["by"]["signer"], got["by"]["issuer"]), ("Alice Ü", "CN=Alice Ü,O=Test", "CN=Root ca,O=Test"), "names")
        same((got["whole"]["verified"], got["first"]["verified"]), (False, False), "the system does not know this root")
        has(got["whole"]["reason"], "not trusted")
        if abs(got["by"]["signed_at"] - time.time()) > 600 or got["by"]["expires"] < time.time():
            raise AssertionError("times: %r" % got["by"])
        has(got["text"], "Pay 100")


def S_opaque_signed(c):
    got = look(c, sign(opaque=True))
    good(got["by"], "opaque")
    has(got["text"], "Pay 100")
    inner = mail(("a.pdf", b"%PDF")).replace(b"\n", b"\r\n")
    got = look(c, sign(opaque=True, body=inner))
    same(got["parts"]["a.pdf"]["verified"], False, "what is inside lies under it")
    has(got["parts"]["a.pdf"]["reason"], "not trusted")


def S_system_store(c):
    got = look(c, sign(), SSL_CERT_FILE=pki() + "/ca.pem")
    good(got["whole"], "trusted by the system")
    good(look(c, sign(opaque=True), SSL_CERT_FILE=pki() + "/ca.pem")["whole"], "opaque")


def S_wrong_authority(c):
    for opaque in (False, True):
        got = look(c, sign("mallory", opaque))["by"]
        same((got["verified"], got["emails"]), (False, "mallory@b.example"), "another authority's")
        has(got["reason"], "not trusted")
        same(look(c, sign("mallory", opaque), ca="other.pem")["by"]["verified"], True, "by its own")


def S_expired(c):
    got = look(c, sign("old"))["by"]
    same(got["verified"], False, "expired")
    has(got["reason"], "expired")
    got = look(c, sign("old"), more=", at = 1579000000")["by"]
    same((got["verified"], got["reason"]), (False, "its certificate is not trusted: certificate is not yet valid"), "then the root was not yet there")


def S_tampered(c):
    data = sign()
    changed = look(c, data.replace(b"Pay 100", b"Pay 900"))["by"]
    same((changed["verified"], changed["reason"]), (False, "what was signed has been changed since"), "content")
    same(look(c, data.replace(b"charset=utf-8", b"charset=utf-7"))["by"]["verified"], False, "its header")
    got = look(c, data.replace(b"blank ", b"blank"))["by"]
    same(got["verified"], False, "a blank at a line's end")
    opaque = sign(opaque=True)
    head, _, der = opaque.replace(b"\r\n", b"\n").partition(b"\n\n")
    raw = binascii.a2b_base64(der)
    same(raw.count(b"Pay 100"), 1, "the content lies open")
    got = look(c, head + b"\n\n" + binascii.b2a_base64(raw.replace(b"Pay 100", b"Pay 900")))["by"]
    same((got["verified"], got["reason"]), (False, "what was signed has been changed since"), "opaque")


def S_signature_of_another_mail(c):
    one, two = sign(body=BODY), sign(body=BODY.replace(b"100", b"900"))
    same(look(c, one.replace(b"Pay 100", b"Pay 900"))["by"]["verified"], False, "not by content")
    cut = lambda m: m.replace(b"\r\n", b"\n").partition(b"filename=\"smime.p7s\"\n\n")
    a, b = cut(one), cut(two)
    bound = lambda m: m[2].partition(b"\n\n------")[0]
    same(look(c, a[0] + a[1] + a[2].replace(bound(a), bound(b)))["by"]["verified"], False, "another one's signature")
    # an opaque signature put beside other content: the content inside must not count
    opaque = sign(opaque=True, body=BODY).replace(b"\r\n", b"\n").partition(b"\n\n")[2].strip()
    got = look(c, (a[0] + a[1] + a[2].replace(bound(a), opaque)).replace(b"Pay 100", b"Pay 900"))["by"]
    same((got["verified"], got["reason"]), (False, "what was signed has been changed since"), "content in the signature")


def S_weak_digests(c):
    for md in ("sha1", "md5"):
        d = pki()
        out = sign(args=("-md", md))
        got = look(c, out)["by"]
        same((got["verified"], got["reason"], got["digest"]), (False, "it was made with a digest that can be forged", md.upper()), md)


def S_two_signers(c):
    got = look(c, sign("alice bob"))["by"]
    same((got["verified"], got["n"], got["each"]), (True, 2, [True, True]), "both")
    got = look(c, sign("alice mallory"))["by"]
    same((got["verified"], got["n"], sorted(got["each"])), (False, 2, [False, True]), "one of them is not trusted")


def S_purpose(c):
    got = look(c, sign("web"))["by"]
    same(got["verified"], False, "a web server's certificate")
    has(got["reason"], "purpose")


def S_sender(c):
    got = look(c, sign(sender="bob@b.example"))["by"]
    same((got["verified"], got["by_sender"]), (True, False), "good, and another one's")


def S_no_certificate(c):
    got = look(c, sign(args=("-nocerts",)))["by"]
    same((got["verified"], got["reason"]), (False, "the signer's certificate did not come with it"), "none")


def S_broken(c):
    for junk in (b"", b"AAAA", b"MIIB"):
        data = sign()
        head, mid, rest = data.replace(b"\r\n", b"\n").partition(b"filename=\"smime.p7s\"\n\n")
        got = look(c, head + mid + junk + b"\n\n" + rest[rest.index(b"------"):])["by"]
        same((got["verified"], got["reason"]), (False, "the signature itself cannot be read"), repr(junk))


def S_part_of_a_mail(c):
    """A list's footer around it: the mail is not signed, its part is."""
    inner = sign().partition(b"\nDate: ")[2].partition(b"\n")[2]
    data = b"From: alice@b.example\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=L\n\n--L\n" + inner + b"\n--L\n\nfooter\n--L--\n"
    got = look(c, data)
    same((got["whole"], got["by"]), ({"none": True}, {"none": True}), "the whole")
    same(got["first"]["emails"], "alice@b.example", "the part")
    same(look(c, mail(("a.txt", b"x")))["whole"], {"none": True}, "not signed at all")


def S_large_content(c):
    body = b"Content-Type: text/plain\r\n\r\n" + b"a line of sixty-four bytes, again and again until it is much\r\n" * 150000
    good(look(c, sign(body=body))["by"], "9 MB, in a file")


def S_bad_ca(c):
    c.write("none.pem", b"nothing")
    for name, words in [("none.pem", "no certificate"), ("absent.pem", "absent.pem")]:
        c.write("m.eml", sign())
        c.run('mail.on_message(function(m) print(pcall(m.verify, m, { ca = "%s" })) end)' % name, "m.eml")
        has(c.out, "false", words)


def S_encrypted(c):
    d = pki()
    for args in ([], ["-aes-256-gcm"]):
        out = ssl("cms", "-encrypt", *(args or ["-aes128"]), "alice.pem", cwd=d, data=BODY)
        got = look(c, b"From: a@b.example\n" + out)
        same((got["encrypted"], got["marks"], got["whole"]), (True, [True], {"none": True}), "S/MIME")
        got = look(c, b"From: a@b.example\n" + out.replace(b"smime-type=enveloped-data; ", b"").replace(b"smime-type=authEnveloped-data; ", b""))
        same((got["encrypted"], got["marks"]), (True, [True]), "S/MIME that does not say so")
    pgp = b"From: a@b.example\nContent-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=b\n\n" \
        b"--b\nContent-Type: application/pgp-encrypted\n\nVersion: 1\n--b\nContent-Type: application/octet-stream; name=encrypted.asc\n\n-----BEGIN PGP MESSAGE-----\n--b--\n"
    got = look(c, pgp)
    same((got["encrypted"], got["marks"]), (True, [True, True]), "PGP/MIME")
    same(look(c, sign(opaque=True))["encrypted"], False, "signed only")


TESTS = [v for k, v in sorted(globals().items()) if k.startswith("S_")]
