"""A POP3 server for a mailbox of a few messages, which remembers what was deleted."""
import socketserver, threading


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True

    def __init__(self, mails):
        self.mails, self.deleted, self.sessions = dict(enumerate(mails, 1)), [], 0
        super().__init__(("127.0.0.1", 0), Session)
        self.port = self.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


class Session(socketserver.StreamRequestHandler):
    def handle(self):
        self.server.sessions += 1
        mails, marked = self.server.mails, []
        say = lambda text: self.wfile.write(text.encode() + b"\r\n")
        body = lambda b: self.wfile.write(b"".join((b"." if l.startswith(b".") else b"") + l + b"\r\n" for l in b.split(b"\n")[:-1]) + b".\r\n")
        say("+OK ready")
        for line in self.rfile:
            word, *rest = line.decode("latin-1").split()
            word, n = word.upper(), int(rest[0]) if rest and rest[0].isdigit() else 0
            if word == "CAPA":
                say("+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.")
            elif word == "STAT":
                say("+OK %d %d" % (len(mails), sum(map(len, mails.values()))))
            elif word in ("LIST", "UIDL") and not n:
                say("+OK\r\n" + "".join("%d %s\r\n" % (i, len(m) if word == "LIST" else "uid%d" % i) for i, m in mails.items()) + ".")
            elif word == "RETR" and n in mails:
                say("+OK")
                body(mails[n])
            elif word == "DELE":
                marked.append(n)
                say("+OK")
            elif word == "QUIT":
                self.server.deleted += marked
                say("+OK bye")
                return
            else:
                say("+OK" if word in ("USER", "PASS", "NOOP") else "-ERR")


class Crowd(Server):
    """A mailbox of so many messages, none of which is kept anywhere. A session takes cut RETRs, then breaks."""
    def __init__(self, n, uid="%064d", cut=None):
        super().__init__([])
        self.n, self.uid, self.cut, self.retrieved = n, uid, cut, 0
        self.RequestHandlerClass = CrowdSession

    def handle_error(self, *_):
        """A client that has had enough hangs up."""


class CrowdSession(socketserver.StreamRequestHandler):
    wbufsize = 1 << 16
    BODY = b"From: a@x.example\r\nSubject: %d\r\n\r\nbody\r\n"

    def list(self, line):
        self.wfile.write(b"+OK\r\n")
        for at in range(1, self.server.n + 1, 1 << 12):  # never much at a time: what a child's memory is counted from is ours
            self.wfile.write(b"".join(line(i) for i in range(at, min(at + (1 << 12), self.server.n + 1))))
        self.wfile.write(b".\r\n")

    def handle(self):
        server, say = self.server, lambda text: self.wfile.write(text.encode() + b"\r\n")
        server.sessions, left = server.sessions + 1, server.cut or 0
        say("+OK ready")
        self.wfile.flush()
        for line in self.rfile:
            word, *rest = line.decode("latin-1").split()
            word, n = word.upper(), int(rest[0]) if rest and rest[0].isdigit() else 0
            if word == "CAPA":
                say("+OK\r\nUSER\r\nUIDL\r\nTOP\r\nPIPELINING\r\n.")
            elif word == "STAT":
                say("+OK %d 1000000000" % server.n)
            elif word == "LIST":
                self.list(lambda i: b"%d %d\r\n" % (i, len(self.BODY) - 2 + len(str(i))))
            elif word == "UIDL":
                self.list((lambda i, uid=("%d " + server.uid + "\r\n").encode(): uid % (i, i)))
            elif word == "RETR":
                if server.cut and not (left := left - 1):
                    return
                server.retrieved += 1
                self.wfile.write(b"+OK\r\n" + self.BODY % n + b".\r\n")
            elif word == "QUIT":
                say("+OK bye")
                return
            else:
                say("+OK" if word in ("USER", "PASS", "NOOP") else "-ERR")
            self.wfile.flush()
