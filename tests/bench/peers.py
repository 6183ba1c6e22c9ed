"""The programs mailmill is measured against: which are there, and how each is told to do the same work."""
import os, pwd, shutil


def found(name):
    return shutil.which(name)


def write(path, text, mode=0o600):
    with open(path, "w") as f:
        f.write(text)
    os.chmod(path, mode)


def maildir(path):
    for sub in ("cur", "new", "tmp"):
        os.makedirs("%s/%s" % (path, sub))


class Box:
    """What a fetcher is to fetch: user at 127.0.0.1:port, with TLS (ca) or without."""
    def __init__(self, user, password, port, tls, ca):
        self.user, self.password, self.port, self.tls, self.ca = user, password, port, tls, ca


def mailmill(place, box):
    """Everything into a Maildir folder, the script as one would write it."""
    write(place + "/fetch.lua", """mail.account {
  name = "bench", host = "localhost", port = %d, user = "%s", password = secret.env "BENCH_PASSWORD", %s,
}
mail.on_message(function(m) m:deliver "Inbox" end)
""" % (box.port, box.user, 'ca_file = "%s"' % box.ca if box.tls else "tls = false, plaintext_password = true"))
    return [place + "/fetch.lua", "--state", place + "/state", "--root", place + "/mail", "-q"], {"BENCH_PASSWORD": box.password}


def mpop(place, box):
    """Pipelines (when told so), syncs each message."""
    maildir(place + "/mail")
    write(place + "/mpoprc", "account x\nhost localhost\nport %d\nuser %s\npassword %s\nauth user\nkeep on\ndelivery maildir %s/mail\n"
          "uidls_file %s/uidls\nreceived_header off\npipelining on\n%s" %
          (box.port, box.user, box.password, place, place,
           "tls on\ntls_starttls off\ntls_trust_file %s\n" % box.ca if box.tls else "tls off\n"))
    return ["mpop", "-C", place + "/mpoprc", "-q", "x"], {}


def fdm(place, box):
    """One command a round trip; as root it wants a system user of its own, so it runs as mail."""
    maildir(place + "/mail")
    write(place + "/fdm.conf", 'set maximum-size 1G\nset no-received\nset lock-file "%s/lock"\naccount "x" pop3%s server "localhost" port %d user "%s" '
          'pass "%s" no-apop %s keep\naction "m" maildir "%s/mail"\nmatch all action "m"\n' %
          (place, "s" if box.tls else "", box.port, box.user, box.password, "no-verify" if box.tls else "", place))
    cmd = ["fdm", "-f", place + "/fdm.conf", "fetch"]
    if os.geteuid() == 0:
        mail = pwd.getpwnam("mail")
        for base, dirs, files in os.walk(place):
            for n in [base] + [base + "/" + f for f in files]:
                os.chown(n, mail.pw_uid, mail.pw_gid)
        cmd = ["setpriv", "--reuid=mail", "--regid=mail", "--clear-groups"] + cmd
    return cmd, {"HOME": place}


FETCHERS = {"mpop": mpop, "fdm": fdm}

# GMime's two ways to read: small in memory, and fast. Both write through a block buffer, which is faster than GMime's own 4 KiB writes.
GMIME = {"gmime file": {"GMIME_BUFFER": "1"}, "gmime mmap": {"GMIME_MMAP": "1", "GMIME_BUFFER": "1"}}

# Tools that take one message: foreach.c runs them over a Maildir folder. {} is the message, {d} a folder of its own.
EXTRACTORS = {
    "ripmime": ["ripmime", "-i", "{}", "-d", "{d}", "--no-nameless"],
    "munpack": ["munpack", "-q", "-f", "{}"],
    "mblaze": ["mshow", "-x", "{}"],
}
