#!/usr/bin/env python3
"""Ambiguous mail, read by mailmill, by Python's email (its new policy and the old one) and, where its library is installed, by GMime. Every
difference must be one that allowed.txt explains.
usage: run.py [--seed TEXT] [--count N] [--mail] [--show RULE]
   --mail: the real messages of tests/mail beside generated ones; --show: print some of the differences that a rule explains"""
import argparse, collections, email, email.header, email.policy, email.utils, glob, hashlib, json, os, re, shutil, subprocess, sys, tempfile
import generate

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BINARY = os.environ.get("MAILMILL", TOP + "/build/mailmill")
ALL = 5000  # so many messages, and the real ones, need nearly every line of allowed.txt
PARTS = ["type", "disposition", "name", "sha256"]


def mailmill(folder, n):
    with tempfile.TemporaryDirectory() as tmp:
        p = subprocess.run([BINARY, "--state", tmp + "/state", "--root", tmp, HERE + "/answers.lua", folder], stdin=subprocess.DEVNULL,
                           env=dict(os.environ, HOME=tmp, TZ="UTC"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=900)
    answers = [json.loads(line) for line in p.stdout.decode("utf-8").splitlines()]
    if len(answers) != n:
        sys.exit("mailmill answered for %d messages of %d: %s\n0 passed, 1 failed" % (len(answers), n, p.stderr.decode()[-2000:]))
    answers.sort(key=lambda a: a["source"])
    return answers


def gmime(paths):
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "gmime-3.0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    if flags.returncode:
        print("left out: GMime (libgmime-3.0-dev is not installed)")
        return None
    program = TOP + "/build/differ-gmime"
    os.makedirs(TOP + "/build", exist_ok=True)
    subprocess.run([os.environ.get("CC", "gcc"), "-O1", "-o", program, HERE + "/gmime.c", *flags.stdout.split()], check=True)
    p = subprocess.run([program], input="".join(path + "\n" for path in paths).encode(), stdout=subprocess.PIPE, timeout=900)
    return [json.loads(line.decode("utf-8", "replace")) for line in p.stdout.splitlines()]


def attempt(f, otherwise=None):
    try:
        return f()
    except Exception as e:  # Python's email raises on some mail: that is its answer
        return "raised " + type(e).__name__ if otherwise is None else otherwise


def decoded(value):
    return str(email.header.make_header(email.header.decode_header(value)))


def old_part(p):
    name = attempt(lambda: p.get_filename())
    return {"type": attempt(p.get_content_type), "disposition": attempt(p.get_content_disposition), "sha256": payload_hash(p),
            "name": name and attempt(lambda: decoded(str(name)))}


def new_part(p):
    return {"type": attempt(p.get_content_type), "disposition": attempt(p.get_content_disposition), "sha256": payload_hash(p),
            "name": attempt(lambda: p.get_filename())}


def payload_hash(p):
    def of():
        data = p.get_payload(decode=True)
        return hashlib.sha256(data).hexdigest() if data is not None else None
    return attempt(of)


def old(raw):
    m = email.message_from_bytes(raw, policy=email.policy.compat32)
    return {"subject": attempt(lambda: decoded(str(m["subject"] or ""))), "parts": [old_part(p) for p in m.walk() if not p.is_multipart()],
            **{f: [a for _, a in email.utils.getaddresses([str(v) for v in m.get_all(f, [])]) if a] for f in ("from", "to")}}


def new(raw):
    m = email.message_from_bytes(raw, policy=email.policy.default)
    return {"subject": attempt(lambda: str(m["subject"] or "")), "parts": [new_part(p) for p in m.walk() if not p.is_multipart()],
            **{f: attempt(lambda: [a.addr_spec for v in m.get_all(f, []) for a in v.addresses if a.addr_spec]) for f in ("from", "to")}}


def blanks(s):
    return re.sub(r"\s+", " ", s or "").strip() if isinstance(s, str) or s is None else s


def domains_low(addrs):
    if not isinstance(addrs, list):
        return addrs
    addrs = [a.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for a in addrs]
    return [blanks(a.rpartition("@")[0] + a[len(a.rpartition("@")[0]):].lower()).replace("\"", "").replace(" ", "") for a in addrs if a]


def differences(ours, theirs):
    """(field, ours, theirs): the same but for what nobody means: blanks in a row, case of a domain or a disposition."""
    if theirs is None:
        yield "message", "read", "not read"
        return
    if blanks(ours["subject"]) != blanks(theirs["subject"]):
        yield "subject", ours["subject"], theirs["subject"]
    for f in ("from", "to"):
        if domains_low(ours[f]) != domains_low(theirs[f]):
            yield f, ours[f], theirs[f]
    if len(ours["parts"]) != len(theirs["parts"]):
        yield "parts", [p["type"] for p in ours["parts"]], [p["type"] for p in theirs["parts"]]
        return
    for a, b in zip(ours["parts"], theirs["parts"]):
        for f in PARTS:
            x, y = a.get(f), b.get(f)
            if f == "disposition":
                x, y = (x or "").lower() or None, (y or "").lower() or None
            if f == "name":
                x, y = blanks(x) or None, blanks(y) or None
            if x != y:
                yield f, x, y


def allowed():
    """(peers, condition, fields, why): the condition is a defect that mailmill named, or a regular expression over the message."""
    rules = []
    for line in open(HERE + "/allowed.txt"):
        if line.strip() and not line.startswith("#"):
            peers, fields, condition, why = [x.strip() for x in line.split(" | ", 3)]
            rules.append((set(peers.split()), set(fields.split()), condition, why))
    return rules


def holds(condition, raw, answer):
    if condition.startswith("/"):
        return re.search(condition[1:-1].encode(), raw, re.M | re.I) is not None
    return any(c in answer["defects"] for c in condition.split())


def messages(args):
    made = [generate.make(args.seed, i) for i in range(args.count)]
    if not args.mail:
        return made
    paths = [p for d in sorted(glob.glob(TOP + "/tests/mail/*/")) for p in sorted(glob.glob(d + "**", recursive=True)) if os.path.isfile(p)]
    return made + [re.sub(rb"\r+\n", b"\n", open(p, "rb").read()) for p in paths]  # mailmill reads CRLF as LF


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--seed", default="mailmill")
    ap.add_argument("--count", type=int, default=600)
    ap.add_argument("--mail", action="store_true")
    ap.add_argument("--show")
    args = ap.parse_args()
    print("seed %s, %d messages" % (args.seed, args.count))
    raws, rules, used = messages(args), allowed(), collections.Counter()
    failed, compared = 0, 0
    with tempfile.TemporaryDirectory() as d:
        paths = ["%s/%06d.eml" % (d, i) for i in range(len(raws))]
        for path, raw in zip(paths, raws):
            open(path, "wb").write(raw)
        ours = mailmill(d, len(raws))
        peers = {"python": [attempt(lambda: new(r)) for r in raws], "compat32": [attempt(lambda: old(r)) for r in raws], "gmime": gmime(paths)}
    for i, raw in enumerate(raws):
        for peer, answers in peers.items():
            if answers is None:
                continue
            compared += 1
            theirs = answers[i] if isinstance(answers[i], dict) else None
            for field, x, y in differences(ours[i], theirs):
                why = next((r for r in rules if peer in r[0] and field in r[1] and holds(r[2], raw, ours[i])), None)
                if why:
                    used[why[2]] += 1
                if not why or (args.show and args.show == why[2]):
                    failed += not why
                    print("%s message %d, %s: %r, %s has %r   (defects: %s)" % ("FAIL" if not why else why[2], i, field, x, peer, y, " ".join(ours[i]["defects"])))
    for rule in rules:
        print("%6d  %s" % (used[rule[2]], rule[2])) if args.show == "" else None
    unused = [r for r in rules if not used[r[2]]] if args.count >= ALL and args.mail else []
    for rule in unused:
        print("not needed by this seed: %s | %s" % (" ".join(sorted(rule[1])), rule[2]))
    print("%d readings compared, %d differences explained" % (compared, sum(used.values())))
    print("%d passed, %d failed" % (compared, failed))
    sys.exit(1 if failed else 0)


main()
