"""A real Dovecot and a real Postfix on loopback, with configuration, mail and state of their own below one directory.

Both are started as root, as their packages expect (they give their rights up themselves); elsewhere the tests that need them say why they are skipped.
Ports are chosen free; everything is stopped by pid."""
import os, pwd, shutil, signal, socket, subprocess, tempfile, time


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def missing():
    """Why the servers cannot run here, or None."""
    if os.geteuid() != 0:
        return "Dovecot and Postfix are started as root; this is uid %d" % os.geteuid()
    for need in ("/usr/sbin/dovecot", "/usr/sbin/postfix", "/usr/lib/dovecot/pop3"):
        if not os.path.exists(need):
            return "%s is not installed (make setup-test)" % need
    return None


def wait_port(port, what, seconds=15):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with socket.socket() as s:
            s.settimeout(1)
            if s.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError("%s does not answer on port %d" % (what, port))


def stop_pid_file(path, seconds=10):
    try:
        pid = int(open(path).read().split()[0])
    except (OSError, ValueError, IndexError):
        return
    try:
        os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            os.kill(pid, 0)
            time.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def run(*cmd, **kw):
    """Output to a file, not a pipe: a daemon that keeps a pipe open would make us wait for its end."""
    with tempfile.TemporaryFile() as out:
        p = subprocess.run(cmd, stdout=out, stderr=out, stdin=subprocess.DEVNULL, timeout=60, **kw)
        out.seek(0)
        text = out.read()
    if p.returncode:
        raise RuntimeError("%s: %s" % (" ".join(cmd), text.decode("utf-8", "replace")))
    return text


def make_ca(d):
    """A test CA and certificates: d/ca.pem, d/NAME.pem and d/NAME.key for good, expired, wrong (another name)."""
    os.makedirs(d, exist_ok=True)
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=mailmill test CA",
        "-keyout", d + "/ca.key", "-out", d + "/ca.pem")
    for name, san, days in (("good", "DNS:localhost,IP:127.0.0.1", ["-days", "10"]), ("wrong", "DNS:elsewhere.example", ["-days", "10"]),
                            ("expired", "DNS:localhost,IP:127.0.0.1", ["-days", "-1"])):
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=" + name, "-keyout", "%s/%s.key" % (d, name), "-out",
            "%s/%s.csr" % (d, name))
        with open("%s/%s.ext" % (d, name), "w") as f:
            f.write("subjectAltName=%s\n" % san)
        run("openssl", "x509", "-req", "-in", "%s/%s.csr" % (d, name), "-CA", d + "/ca.pem", "-CAkey", d + "/ca.key", "-CAcreateserial",
            *days, "-extfile", "%s/%s.ext" % (d, name), "-out", "%s/%s.pem" % (d, name))


class Dovecot:
    """POP3 with TLS (self.tls), and plain with STLS (self.plain). Password of everybody: self.password. Maildirs: self.mail/USER."""
    password = "correct-horse"

    def __init__(self, d, ca, cert="good", extra=""):
        self.d, self.mail = d, d + "/mail"
        self.tls, self.plain = free_port(), free_port()
        for sub in ("run", "mail", "index", "control", "auth"):
            os.makedirs(d + "/" + sub, exist_ok=True)
        # the auth socket of Postfix lies here as well: the way to it must be open to its user
        path = d
        while path != "/":
            if os.stat(path).st_mode & 0o11 != 0o11 and os.stat(path).st_uid == os.geteuid():
                os.chmod(path, os.stat(path).st_mode | 0o11)
            path = os.path.dirname(path)
        mail = pwd.getpwnam("mail")
        for sub in ("mail", "index", "control"):
            os.chown(d + "/" + sub, mail.pw_uid, mail.pw_gid)
        self.auth = d + "/auth/smtp"
        with open(d + "/dovecot.conf", "w") as f:
            f.write(CONF_DOVECOT.format(d=d, ca=ca, cert=cert, tls=self.tls, plain=self.plain, password=self.password, extra=extra))
        run("dovecot", "-c", d + "/dovecot.conf")
        wait_port(self.tls, "Dovecot")

    def user(self, name):
        """An empty mailbox; its new/ directory."""
        for sub in ("cur", "new", "tmp"):
            os.makedirs("%s/%s/%s" % (self.mail, name, sub), exist_ok=True)
        return "%s/%s/new" % (self.mail, name)

    def own(self, name):
        mail = pwd.getpwnam("mail")
        for base, dirs, files in os.walk(self.mail + "/" + name):
            for n in [base] + [base + "/" + f for f in files]:
                os.chown(n, mail.pw_uid, mail.pw_gid)

    def count(self, name):
        return sum(len(os.listdir("%s/%s/%s" % (self.mail, name, s))) for s in ("cur", "new"))

    def close(self):
        stop_pid_file(self.d + "/run/master.pid")


CONF_DOVECOT = """
base_dir = {d}/run
state_dir = {d}/run
log_path = {d}/dovecot.log
first_valid_uid = 1
first_valid_gid = 1
protocols = pop3
listen = 127.0.0.1
ssl = yes
ssl_cert = <{ca}/{cert}.pem
ssl_key = <{ca}/{cert}.key
disable_plaintext_auth = yes
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:{d}/mail/%u:INDEX={d}/index/%u:CONTROL={d}/control/%u
mail_uid = mail
mail_gid = mail
mail_max_userip_connections = 50
pop3_lock_session = yes
{extra}
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={d}/home/%u
}}
service auth {{
  unix_listener {d}/auth/smtp {{
    mode = 0666
  }}
}}
service pop3-login {{
  inet_listener pop3 {{
    port = {plain}
  }}
  inet_listener pop3s {{
    port = {tls}
    ssl = yes
  }}
}}
"""


class Postfix:
    """SMTP with STARTTLS and AUTH PLAIN on self.port; what it accepts for anyone lands in the Maildir self.mail/."""

    def __init__(self, d, ca, auth):
        self.d, self.port, self.mail = d, free_port(), d + "/mail"
        self.ca, self.auth = ca, auth
        owner = pwd.getpwnam("postfix")
        for sub in ("conf", "queue", "data", "mail"):
            os.makedirs(d + "/" + sub, exist_ok=True)
        os.chown(d + "/data", owner.pw_uid, owner.pw_gid)
        mail = pwd.getpwnam("mail")
        os.chown(self.mail, mail.pw_uid, mail.pw_gid)
        with open(d + "/conf/main.cf", "w") as f:
            f.write(CONF_POSTFIX.format(d=d, ca=ca, auth=auth, uid=mail.pw_uid, gid=mail.pw_gid))
        with open(d + "/conf/master.cf", "w") as f:
            f.write(MASTER_POSTFIX.format(port=self.port))
        self.start()

    def start(self):
        run("postfix", "-c", self.d + "/conf", "start")
        wait_port(self.port, "Postfix")

    def received(self):
        """Paths of the mails that have arrived."""
        new = self.mail + "/all/new"
        return [new + "/" + n for n in sorted(os.listdir(new))] if os.path.isdir(new) else []

    def wait(self, n, seconds=60):
        end = time.monotonic() + seconds
        while len(self.received()) < n and time.monotonic() < end:
            time.sleep(0.1)
        time.sleep(0.3)
        return self.received()

    def close(self):
        stop_pid_file(self.d + "/queue/pid/master.pid")


CONF_POSTFIX = """
compatibility_level = 3.6
queue_directory = {d}/queue
data_directory = {d}/data
maillog_file = {d}/postfix.log
maillog_file_prefixes = {d}
myhostname = test.localhost
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks =
smtpd_tls_cert_file = {ca}/good.pem
smtpd_tls_key_file = {ca}/good.key
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = {auth}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
smtpd_recipient_restrictions = permit_sasl_authenticated, reject
smtpd_client_connection_rate_limit = 0
virtual_mailbox_domains = example.com, example.org
virtual_mailbox_base = {d}/mail
virtual_mailbox_maps = static:all/
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
virtual_minimum_uid = 1
virtual_mailbox_limit = 0
message_size_limit = 0
# else it rewrites "Subject :" inside an attached message
disable_mime_input_processing = yes
alias_maps =
"""

MASTER_POSTFIX = """
127.0.0.1:{port} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""
