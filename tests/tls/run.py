#!/usr/bin/env python3
"""T15: servers that cannot prove who they are. Each bad certificate, each old version, each way of talking a client out of TLS, for POP3 on its TLS
port, POP3 with STLS, SMTP with STARTTLS and SMTP on its TLS port: no credential is sent, which the server's own record shows; the error names the
account and what is wrong; the mail stays where it is. Good certificates are the proof that the record shows one that is sent.
usage: run.py [TEST ...]; ends with the count."""
import base64, concurrent.futures, json, os, re, shutil, socket, ssl, subprocess, sys, tempfile, threading, time, traceback, warnings

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.path.abspath(os.environ.get("MAILMILL", TOP + "/build/mailmill"))
PASSWORD, USER = "Kanarie-3b9d27", "walt"
NEEDLES = [PASSWORD.encode(), base64.b64encode(PASSWORD.encode()), base64.b64encode(("\0%s\0%s" % (USER, PASSWORD)).encode())]
LOGINS = re.compile(rb"(?im)^(USER|PASS|APOP|AUTH)\b")
MAIL = b"From: a@example.com\r\nSubject: one\r\n\r\nbody\r\n"
PROTOCOLS = ("POP3 with TLS", "POP3 with STLS", "SMTP with STARTTLS", "SMTP with TLS")
D = None            # of keys and certificates


# ---- certificates ----

def openssl(*args):
    p = subprocess.run(["openssl", *args], cwd=D, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    if p.returncode:
        raise AssertionError("openssl %s: %s" % (" ".join(args), p.stdout.decode("utf-8", "replace")))


def file(name, text):
    with open(os.path.join(D, name), "w") as f:
        f.write(text)


CA = "basicConstraints=critical,CA:TRUE"
AGO, FAR = "20200101000000Z", "20491231000000Z"


def certificate(name, ext="subjectAltName=DNS:localhost", by="ca", cn="localhost", start=AGO, end=FAR, key="leaf", digest="sha256"):
    """NAME.pem, with the key KEY.key, signed by the certificate and key BY."""
    file("ext", ext + "\n")
    openssl("req", "-new", "-key", key + ".key", "-subj", "/CN=" + cn, "-out", "csr")
    openssl("ca", "-batch", "-config", "conf", "-cert", by + ".pem", "-keyfile", by + ".key", "-in", "csr", "-out", name + ".pem", "-notext",
            "-startdate", start, "-enddate", end, "-extfile", "ext", "-md", digest)
    if key not in ("leaf", name):
        shutil.copy("%s/%s.key" % (D, key), "%s/%s.key" % (D, name))


def authority(name, algorithm, subject=None, *more):
    openssl("req", "-x509", "-newkey", *algorithm, "-nodes", "-keyout", name + ".key", "-out", name + ".pem", "-days", "3650", "-subj", "/CN=" + (subject or name), *more)


def between(name, ext, by="ca", **how):
    """An authority below another, with the common key."""
    certificate(name, ext, by, cn=name, key="middle", **how)


def chain(name, *above):
    with open("%s/%s.pem" % (D, name), "a") as f:
        for a in above:
            f.write(open("%s/%s.pem" % (D, a)).read())


def dns_with_nul():
    """localhost\\0.evil.example as one name: DER, for openssl has no words for it."""
    name = b"localhost\0.evil.example"
    der = b"\x30" + bytes([len(name) + 2]) + b"\x82" + bytes([len(name)]) + name
    return "subjectAltName=DER:" + ":".join("%02x" % b for b in der)


def make_certificates():
    ec = ("ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    file("conf", "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\nnew_certs_dir=.\nrand_serial=yes\ndefault_md=sha256\npolicy=p\nunique_subject=no\n"
                 "[p]\ncommonName=supplied\n")
    file("index.txt", "")
    authority("ca", ec)
    authority("rsaca", ("rsa:2048",))
    authority("other", ec)
    authority("self", ec, "localhost", "-addext", "subjectAltName=DNS:localhost")
    authority("pastca", ec)
    for name in ("leaf", "middle"):
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out", name + ".key")
    openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024", "-out", "short.key")
    certificate("good", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    certificate("wild", "subjectAltName=DNS:*.example.com")
    certificate("expired", end="20210101000000Z")
    certificate("early", start="20480101000000Z")
    certificate("wrong", "subjectAltName=DNS:other.example.com")
    certificate("unknown", by="other")
    certificate("revoked")
    certificate("client", "subjectAltName=DNS:localhost\nextendedKeyUsage=clientAuth")
    certificate("signer", "subjectAltName=DNS:localhost\nkeyUsage=critical,keyCertSign,cRLSign")
    certificate("short", key="short")
    certificate("sha1", digest="sha1")
    certificate("md5", by="rsaca", digest="md5")
    certificate("star", "subjectAltName=DNS:*")
    certificate("startop", "subjectAltName=DNS:*.com")
    certificate("starpart", "subjectAltName=DNS:ma*.example.com,DNS:*il.example.com")
    certificate("starinside", "subjectAltName=DNS:mail.*.com")
    certificate("cn", "keyUsage=digitalSignature")
    certificate("cnright", "subjectAltName=DNS:other.example.com", cn="localhost")
    certificate("address", "subjectAltName=IP:127.0.0.2", cn="127.0.0.1")
    certificate("addressname", "subjectAltName=DNS:127.0.0.1", cn="127.0.0.1")
    certificate("nul", dns_with_nul())
    between("middleca", CA)
    certificate("whole", by="middleca", key="leaf")
    chain("whole", "middleca")
    certificate("missing", by="middleca")
    between("noca", "basicConstraints=critical,CA:FALSE")
    certificate("byleaf", by="noca")
    chain("byleaf", "noca")
    between("elsewhere", CA + "\nnameConstraints=critical,permitted;DNS:elsewhere.example")
    certificate("constrained", by="elsewhere")
    chain("constrained", "elsewhere")
    between("notours", CA + "\nnameConstraints=critical,excluded;DNS:localhost")
    certificate("excluded", by="notours")
    chain("excluded", "notours")
    between("last", CA + ",pathlen:0")
    between("toofar", CA, by="last")
    certificate("toodeep", by="toofar")
    chain("toodeep", "toofar", "last")
    between("oldca", CA, end="20210101000000Z")
    certificate("oldchain", by="oldca")
    chain("oldchain", "oldca")
    with open(D + "/trusted.pem", "w") as f:
        f.write(open(D + "/ca.pem").read() + open(D + "/rsaca.pem").read())
    lists = ["-config", "conf", "-cert", "ca.pem", "-keyfile", "ca.key"]
    openssl("ca", *lists, "-revoke", "revoked.pem")
    openssl("ca", *lists, "-gencrl", "-crldays", "30", "-out", "list.pem")
    openssl("ca", *lists, "-gencrl", "-crl_lastupdate", AGO, "-crl_nextupdate", "20210101000000Z", "-out", "oldlist.pem")
    for crl in ("list", "oldlist"):
        with open("%s/with%s.pem" % (D, crl), "w") as f:
            f.write(open(D + "/trusted.pem").read() + open("%s/%s.pem" % (D, crl)).read())


def key_of(name):
    path = "%s/%s.key" % (D, name)
    return path if os.path.exists(path) and name in ("short", "self") else D + "/leaf.key"


# ---- the server ----

class Server:
    """One protocol, one certificate; heard: every byte that came, in clear and inside TLS. odd: what it does instead of offering, starting or
    going on with TLS."""

    def __init__(self, protocol, cert, version=None, ciphers=None, odd=None):
        self.protocol, self.odd, self.heard, self.sessions, self.lock = protocol, odd, b"", 0, threading.Lock()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.set_ciphers(ciphers or "ALL:@SECLEVEL=0")
        self.context.load_cert_chain("%s/%s.pem" % (D, cert), key_of(cert))
        if version:
            self.context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            self.context.maximum_version = version
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def close(self):
        self.listener.close()

    def accept(self):
        while True:
            try:
                s = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.session, args=(s,), daemon=True).start()

    def session(self, s):
        s.settimeout(20)
        self.sessions += 1
        try:
            if self.protocol.endswith("with TLS"):
                s = self.shake(s)
            if s:
                (self.pop3 if self.protocol.startswith("POP3") else self.smtp)(s)
        except (OSError, ValueError):
            pass
        finally:
            if s:
                s.close()

    def shake(self, s):
        """None: it was cut, or failed."""
        if isinstance(self.odd, int):
            return self.cut(s, self.odd)
        if self.odd == "speaks clear":
            s.sendall(b"+OK hello\r\n" if self.protocol.startswith("POP3") else b"220 hello\r\n")
            self.hear(s)
            return None
        return self.context.wrap_socket(s, server_side=True)

    def cut(self, s, k):
        """Sends the first k bytes of its side of the handshake, and hangs up."""
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(came, goes, server_side=True)
        came.write(s.recv(65536))
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        s.sendall(goes.read()[:k])
        s.shutdown(socket.SHUT_WR)
        self.hear(s)
        return None

    def hear(self, s):
        """What comes until it ends."""
        while True:
            data = s.recv(65536)
            if not data:
                return
            self.note(data)

    def note(self, data):
        with self.lock:
            self.heard += data

    def lines(self, s):
        have = b""
        while True:
            while b"\n" not in have:
                data = s.recv(65536)
                if not data:
                    return
                self.note(data)
                have += data
            line, have = have.split(b"\n", 1)
            yield line.strip().decode("latin-1")

    def upgrade(self, s, answer):
        if self.odd == "refuses":
            s.sendall(b"-ERR not today\r\n" if answer.startswith(b"+OK") else b"454 not today\r\n")
            return s
        injected = {"says more": b"+OK fine\r\n" if answer.startswith(b"+OK") else b"250 AUTH PLAIN\r\n"}.get(self.odd, b"")
        s.sendall(answer + injected)
        if self.odd == "goes on in clear":
            s.sendall(b"+OK\r\n.\r\n" * 3 if answer.startswith(b"+OK") else b"250 AUTH PLAIN LOGIN\r\n" * 3)
            return s
        return self.shake(s)

    def pop3(self, s):
        encrypted = isinstance(s, ssl.SSLSocket)
        s.sendall(b"+OK hello <1.2@localhost>\r\n")
        for line in self.lines(s):
            verb = line.split(" ")[0].upper()
            offer = "" if encrypted or self.odd == "offers none" or not self.protocol.endswith("STLS") else "STLS\r\n"
            answer = {"CAPA": "-ERR what" if self.odd == "knows no CAPA" and not encrypted else "+OK\r\nUSER\r\nUIDL\r\nSASL PLAIN LOGIN\r\n%s." % offer,
                      "STAT": "+OK 1 %d" % len(MAIL), "LIST": "+OK\r\n1 %d\r\n." % len(MAIL), "UIDL": "+OK\r\n1 u1\r\n.",
                      "RETR": "+OK\r\n" + MAIL.decode() + ".", "AUTH": "+ "}.get(verb, "+OK")
            if verb == "STLS":
                if self.odd == "knows no CAPA":
                    s.sendall(b"-ERR what\r\n")
                    continue
                s = self.upgrade(s, b"+OK begin\r\n")
                if s and isinstance(s, ssl.SSLSocket):
                    return self.pop3_inside(s)
                if not s:
                    return
                continue
            s.sendall(answer.encode() + b"\r\n")
            if verb == "QUIT":
                return

    def pop3_inside(self, s):
        """The same conversation goes on without a greeting."""
        for line in self.lines(s):
            verb = line.split(" ")[0].upper()
            if verb == "AUTH" and len(line.split(" ")) < 3:
                s.sendall(b"+ \r\n")
                continue
            answer = {"CAPA": "+OK\r\nUSER\r\nUIDL\r\nSASL PLAIN LOGIN\r\n.", "STAT": "+OK 1 %d" % len(MAIL), "LIST": "+OK\r\n1 %d\r\n." % len(MAIL),
                      "UIDL": "+OK\r\n1 u1\r\n.", "RETR": "+OK\r\n" + MAIL.decode() + "."}.get(verb, "+OK")
            s.sendall(answer.encode() + b"\r\n")
            if verb == "QUIT":
                return

    def smtp(self, s, greeting=True):
        encrypted = isinstance(s, ssl.SSLSocket)
        if greeting:
            s.sendall(b"220 hello\r\n")
        lines = self.lines(s)
        for line in lines:
            verb = re.split("[ :]", line)[0].upper()
            offer = "" if encrypted or self.odd == "offers none" or not self.protocol.endswith("STARTTLS") else "250-STARTTLS\r\n"
            if verb == "EHLO" and self.odd == "knows no CAPA" and not encrypted:
                s.sendall(b"502 what\r\n")
            elif verb == "EHLO":
                s.sendall(("250-hello\r\n%s250 AUTH PLAIN LOGIN\r\n" % offer).encode())
            elif verb == "STARTTLS":
                s = self.upgrade(s, b"220 go on\r\n")
                if s and isinstance(s, ssl.SSLSocket):
                    return self.smtp(s, False)
                if not s:
                    return
            elif verb == "AUTH" and len(line.split(" ")) < 3:
                s.sendall(b"334 \r\n")
                next(lines, "")
                s.sendall(b"235 yes\r\n")
            elif verb == "DATA":
                s.sendall(b"354 go on\r\n")
                while next(lines, ".") != ".":
                    pass
                s.sendall(b"250 taken\r\n")
            else:
                s.sendall({"AUTH": b"235 yes\r\n", "QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n"))
            if verb == "QUIT":
                return


# ---- one run ----

passed = failed = 0


def script(protocol, port, host, ca, verify_as):
    tls = {"POP3 with STLS": '"starttls"', "SMTP with STARTTLS": '"starttls"'}.get(protocol, "true")
    more = ', verify_as = "%s"' % verify_as if verify_as else ""
    how = 'host = "%s", port = %d, user = "%s", password = secret.env "PW", tls = %s, ca_file = "%s/%s.pem"%s' % (host, port, USER, tls, D, ca, more)
    if protocol.startswith("POP3"):
        return 'mail.root "root"\nmail.account { name = "work", %s, timeout = 10 }\n' % how
    return 'mail.root "root"\nmail.smarthost { from = "me@example.com", %s }\nmail.on_message(function(m) m:forward "x@example.com" end)\n' % how


def play(protocol, server, host="localhost", ca="trusted", verify_as=None):
    """-> exit code, what was said, mails that wait in the outbox."""
    d = tempfile.mkdtemp(prefix="mailmill-tls-")
    try:
        with open(d + "/s.lua", "w") as f:
            f.write(script(protocol, server.port, host, ca, verify_as))
        with open(d + "/one.eml", "wb") as f:
            f.write(MAIL)
        env = {"PATH": os.environ["PATH"], "HOME": d, "PW": PASSWORD, "LC_ALL": "C.UTF-8"}
        env.update((k, v) for k, v in os.environ.items() if k.endswith("SAN_OPTIONS"))
        args = ["s.lua"] if protocol.startswith("POP3") else ["--send", "s.lua", "one.eml"]
        p = subprocess.run([BINARY, *args], cwd=d, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90)
        waits = []
        if protocol.startswith("SMTP"):
            waits = subprocess.run([BINARY, "outbox", "--json"], cwd=d, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=30).stdout.splitlines()
        return p.returncode, p.stdout.decode("utf-8", "replace"), [json.loads(w)["state"] for w in waits]
    finally:
        server.close()
        shutil.rmtree(d, ignore_errors=True)


def judge(what, trouble, said):
    global passed, failed
    passed, failed = passed + (not trouble), failed + bool(trouble)
    if trouble:
        print("FAIL %s: %s\n%s" % (what, "; ".join(trouble), said[-800:]), flush=True)


def refused(what, protocol, words, server, codes=(76,), **how):
    """words: of which the error has one."""
    code, said, waits = play(protocol, server, **how)
    trouble = []
    if code not in codes:
        trouble.append("exit code %d" % code)
    if any(n in server.heard for n in NEEDLES):
        trouble.append("the password was sent")
    if LOGINS.search(server.heard):
        trouble.append("a login was begun: %r" % server.heard[-200:])
    if b"MAIL FROM" in server.heard or b"RETR" in server.heard:
        trouble.append("it went on: %r" % server.heard[-200:])
    if not any(w in said for w in words):
        trouble.append("no word of %s" % " or ".join(map(repr, words)))
    if not ("work" in said or "localhost" in said or "127.0.0.1" in said):
        trouble.append("neither account nor host is named")
    if protocol.startswith("SMTP") and waits != ["ready"]:
        trouble.append("in the outbox: %s" % waits)
    if server.sessions > 4:
        trouble.append("%d connections" % server.sessions)
    judge("%s, %s" % (what, protocol), trouble, said)


LATER = {"POP3": (75, 76, 68), "SMTP": (0, 69, 76)}   # what may be otherwise the next time: mail that waits in the outbox is no failure of the run


def at_once(f, cases, jobs=4):
    global failed
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        for case, done in [(c, pool.submit(f, *c)) for c in cases]:
            try:
                done.result()
            except Exception:
                failed += 1
                print("FAIL %s: %s" % (case, traceback.format_exc()), flush=True)


MAIL_HOST = {"verify_as": "mail.example.com"}
BAD = [   # what, the certificate, words of the error, how the client comes
    ("expired", "expired", "has expired on 2021-01-01", {}),
    ("not yet valid", "early", "not valid before 2048-01-01", {}),
    ("for another host", "wrong", "is for other.example.com, not for localhost", {}),
    ("signed by itself", "self", "authority not known here: /CN=localhost", {}),
    ("signed by an unknown authority", "unknown", "authority not known here: /CN=other", {}),
    ("of a known authority, and that is not asked", "good", "authority not known here: /CN=ca", {"ca": "other"}),
    ("revoked", "revoked", "has been revoked", {"ca": "withlist"}),
    ("a list of revocations that is out of date", "good", "CRL has expired", {"ca": "witholdlist"}),
    ("for clients alone", "client", "unsuitable certificate purpose", {}),
    ("for signing certificates alone", "signer", "unsuitable certificate purpose", {}),
    ("RSA key of 1024 bits", "short", "key too weak", {}),
    ("signed with SHA-1", "sha1", "digest algorithm too weak", {}),
    ("signed with MD5", "md5", "digest algorithm too weak", {}),
    ("intermediate authority left out", "missing", "authority not known here: /CN=middleca", {}),
    ("signed by what is no authority", "byleaf", "invalid CA certificate", {}),
    ("expired authority in between", "oldchain", "has expired on 2021-01-01", {}),
    ("below an authority for other names", "constrained", "permitted subtree violation", {}),
    ("below an authority not for this name", "excluded", "excluded subtree violation", {}),
    ("deeper than its authority may go", "toodeep", "path length constraint exceeded", {}),
    ("wildcard for everything", "star", "is for *, not for localhost", {}),
    ("wildcard for all of .com", "startop", "is for *.com, not for mail.example.com", MAIL_HOST),
    ("wildcard in a part of a label", "starpart", "not for mail.example.com", MAIL_HOST),
    ("wildcard inside", "starinside", "not for mail.example.com", MAIL_HOST),
    ("wildcard for one label", "wild", "is for *.example.com, not for a.b.example.com", {"verify_as": "a.b.example.com"}),
    ("wildcard for the name itself", "wild", "is for *.example.com, not for example.com", {"verify_as": "example.com"}),
    ("name only in the subject", "cn", "names no host", {}),
    ("right subject, other names", "cnright", "is for other.example.com, not for localhost", {}),
    ("another address", "address", "is for 127.0.0.2, not for 127.0.0.1", {"host": "127.0.0.1"}),
    ("an address as a name", "addressname", "is for 127.0.0.1 (as a name), not for 127.0.0.1", {"host": "127.0.0.1"}),
    ("a name with a NUL", "nul", "not for localhost", {}),
]
GOOD = [("good", {}), ("good", {"host": "127.0.0.1"}), ("whole", {}), ("wild", MAIL_HOST), ("good", {"ca": "withlist"}), ("revoked", {})]


def T15_bad_certificates():
    at_once(lambda what, protocol, cert, words, how: refused(what, protocol, [words], Server(protocol, cert), **how),
            [(what, p, cert, words, how) for what, cert, words, how in BAD for p in PROTOCOLS])


def T15_good_certificates():
    """The record would show a password that is sent. A revoked certificate, too, is good where no list was given."""
    def one(cert, how, protocol):
        server = Server(protocol, cert)
        code, said, waits = play(protocol, server, **how)
        trouble = ["exit code %d" % code] * (code != 0) + ["no password came"] * (not any(n in server.heard for n in NEEDLES)) + ["waits: %s" % waits] * bool(waits)
        judge("good: %s %s, %s" % (cert, how, protocol), trouble, said)
    at_once(one, [(cert, how, p) for cert, how in GOOD for p in PROTOCOLS])


def T15_old_versions():
    """TLS before 1.2, and ciphers that hide nothing."""
    none = ["no version or cipher of TLS in common"]
    def one(what, protocol, version, ciphers):
        refused(what, protocol, none, Server(protocol, "good", version, ciphers))
    cases = [("TLS 1.0", ssl.TLSVersion.TLSv1, None), ("TLS 1.1", ssl.TLSVersion.TLSv1_1, None), ("NULL ciphers", ssl.TLSVersion.TLSv1_2, "eNULL:@SECLEVEL=0"),
             ("anonymous ciphers", ssl.TLSVersion.TLSv1_2, "aNULL:@SECLEVEL=0")]
    at_once(one, [(what, p, v, c) for what, v, c in cases for p in PROTOCOLS])


def T15_talked_out_of_it():
    """TLS is not offered, refused, begun with words in clear behind it, or not begun at all."""
    words = {"offers none": ["STLS", "STARTTLS"], "knows no CAPA": ["STLS", "STARTTLS", "EHLO"], "refuses": ["not today"],
             "says more": ["before the TLS handshake", "before TLS", "handshake"], "goes on in clear": ["does not speak TLS", "handshake"], "speaks clear": ["does not speak TLS"]}
    def one(odd, protocol):
        refused(odd, protocol, words[odd], Server(protocol, "good", odd=odd), LATER[protocol[:4]])
    at_once(one, [(odd, p) for odd in words for p in PROTOCOLS if odd == "speaks clear" or not p.endswith("with TLS")])


def T15_handshake_cut_off():
    """The connection ends after the k-th byte of the server's side."""
    at_once(lambda k, p: refused("cut after byte %d" % k, p, ["handshake", "closed the connection", "cut off"], Server(p, "good", odd=k), LATER[p[:4]]),
            [(k, p) for k in (0, 1, 5, 60, 500) for p in PROTOCOLS], 20)


def main():
    global D, failed
    warnings.simplefilter("ignore", DeprecationWarning)   # of the versions that nobody should use
    D = tempfile.mkdtemp(prefix="mailmill-certificates-")
    os.chmod(D, 0o700)
    try:
        began = time.monotonic()
        make_certificates()
        print("# certificates %.1f s" % (time.monotonic() - began), flush=True)
        for name, test in [(k, v) for k, v in globals().items() if k.startswith("T15_")]:
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            began = time.monotonic()
            test()
            print("# %s %.1f s" % (name, time.monotonic() - began), flush=True)
    except Exception:
        failed += 1
        traceback.print_exc()
    finally:
        shutil.rmtree(D, ignore_errors=True)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0 or not passed)


if __name__ == "__main__":
    main()
