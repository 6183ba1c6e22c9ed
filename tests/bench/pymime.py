#!/usr/bin/env python3
"""Python's email and mailbox as a user writes it: pymime.py list|extract PATH [OUTDIR]; PATH is an mbox or a Maildir.
Ends with a sync, so that the output is on disk as it is with the others. "truth" is a list with names of senders decoded by the module's
older functions: its newer ones leave blanks between the encoded words of a name."""
import email, email.header, email.policy, email.utils, mailbox, os, sys


def leaves(msg):
    return [p for p in msg.walk() if not p.is_multipart()]


def sender(msg, mode):
    if mode == "truth":
        raw = next(v for k, v in msg.raw_items() if k == "From")
        return str(email.header.make_header(email.header.decode_header(email.utils.parseaddr(raw)[0])))
    return msg["from"].addresses[0].display_name


def show(n, msg, mode):
    print("%d %s <%s> | %s" % (n, sender(msg, mode), msg["from"].addresses[0].addr_spec, msg["subject"]))
    for p in leaves(msg):
        print("  %s %s %s %s" % (p.get_content_type(), p.get_content_charset() or "-", p.get_content_disposition() or "-",
                                 p.get_filename() or "-"))


def save(n, msg, out):
    for k, p in enumerate(p for p in leaves(msg) if p.get_content_disposition() == "attachment"):
        with open(os.path.join(out, "%d.%d" % (n, k)), "wb") as f:
            f.write(p.get_payload(decode=True))


def main():
    mode, path = sys.argv[1:3]
    make = lambda f: email.message_from_binary_file(f, policy=email.policy.default)
    box = mailbox.Maildir(path, factory=make, create=False) if os.path.isdir(path) else mailbox.mbox(path, factory=make)
    for n, msg in enumerate(box, 1):
        save(n, msg, sys.argv[3]) if mode == "extract" else show(n, msg, mode)
    if mode == "extract":
        os.sync()


if __name__ == "__main__":
    main()
