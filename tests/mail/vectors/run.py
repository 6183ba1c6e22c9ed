#!/usr/bin/env python3
"""Single header fields, encodings, TNEF files, message/partial and bounces, each with its right answer, asked through the Lua API (ask.lua)
where it has the question, else through a driver of the core's (tests/tools/params.c). A difference must stand in README.md, by name and
with its reason; one that does and no longer differs fails as well. usage: run.py [-v] [NAME …]; ends with the count."""
import base64, calendar, datetime, hashlib, json, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
BINARY = os.environ.get("MAILMILL", TOP + "/build/mailmill")


def vectors(name):
    return json.load(open("%s/%s.json" % (HERE, name)))


def file_bytes(path):
    return open(HERE + "/" + path, "rb").read()


def field(name, value):
    value = value.encode("utf-8", "surrogateescape")
    return name + b":" + value + (b"" if value.endswith(b"\n") else b"\n") + b"X-After: 1\n\nbody\n"


def wrapped(kind, encoding, data):
    return b"MIME-Version: 1.0\nContent-Type: %s\nContent-Transfer-Encoding: %s\n\n%s" % (kind, encoding, data)


def seconds(d):
    """Seconds since 1970 of a vector's date; None where it is none."""
    if not d or not 1 <= d["month"] <= 12:
        return None
    east = (d["tz_hour"] * 60 + d["tz_minute"]) * (-1 if d["tz_before_gmt"] else 1)
    return calendar.timegm((d["year"], d["month"], d["day"], d["hour"], d["minute"], d["second"])) - east * 60


def address(group, a):
    return (group or "", " ".join((a["name"] or "").split()), a["address"])


# Each kind: how a vector becomes messages, and what of the answers is compared with what is expected.

def unstructured(v):
    return [field(b"Subject", v["input"])], lambda a: a[0]["subject"], v["expect"]


def addresses(v):
    got = lambda a: [address(t.get("group"), {"name": t["name"], "address": t["addr"]}) for t in a[0]["to"]]
    e = v["expect"]
    if e and "Group" in e:
        want = [address(g["name"], a) for g in e["Group"] for a in g["addresses"] if a["address"]]
    else:
        want = [address("", a) for a in (e or {}).get("List", [])]
    return [field(b"To", v["input"])], got, want


def date(v):
    got = lambda a: None if any(d.startswith("date.from") for d in a[0]["defects"]) else a[0]["date"]
    return [field(b"Date", v["input"])], got, seconds(v["expect"])


def received(v):
    got = lambda a: a[0]["received"] if "date.from.received" in a[0]["defects"] else None
    return [field(b"Received", v["input"])], got, seconds(v["expect"]["date"])


def identifiers(v):
    return [field(b"References", v["input"])], lambda a: [re.sub(r"^<|>$", "", x) for x in a[0]["references"]], v["expect"] or []


def keywords(v):
    got = lambda a: [" ".join(x.split()) for x in (a[0].get("keywords") or "").split(",") if x.strip()]
    return [field(b"Keywords", v["input"])], got, v["expect"]


def codec(v):
    raw = wrapped(b"application/octet-stream", v["codec"].encode(), file_bytes(v["input_file"]))
    return [raw], lambda a: [(p["len"], p["sha256"]) for p in a[0]["parts"]], [(v["expect_len"], v["expect_sha256"])]


def tnef(v):
    raw = wrapped(b"application/ms-tnef; name=winmail.dat", b"base64", base64.encodebytes(file_bytes(v["file"])))
    got = lambda a: [(p.get("name"), p["len"], p["sha256"]) for p in a[0]["inside"]]
    return [raw], got, [(e["name"], e["len"], e["sha256"]) for e in v["expect"]]


def partial(v):
    want = [["message/partial"]] * len(v["inputs"])
    got = lambda a: [[p["type"] for p in x["parts"]] if "message.partial" in x["defects"] else x["defects"] for x in a]
    return [file_bytes(f) for f in v["inputs"]], got, want


def bounce(v):
    return [open("%s/../%s" % (HERE, v["file"]), "rb").read()], lambda a: sorted(set(a[0]["failed"])), sorted(v["failed_recipients"])


KINDS = {
    "header-unstructured": unstructured, "header-address": addresses, "header-date": date, "header-received": received, "header-id": identifiers,
    "header-list": keywords, "codecs": codec, "tnef": tnef, "message-partial": partial, "bounce-recipients": bounce,
}


def listed():
    """`kind id`: reason, in README.md."""
    text = open(HERE + "/README.md").read()
    return dict(re.findall(r"^- `([^`]+)`: (.*(?:\n  .*)*)", text, re.M))


def ask(cases):
    """The answers of every message of every case, in order."""
    tmp = tempfile.mkdtemp(prefix="mailmill-vectors-")
    try:
        os.mkdir(tmp + "/in")
        number, owner = 0, []
        for i, (_, messages, _, _) in enumerate(cases):
            for raw in messages:
                open("%s/in/%05d.eml" % (tmp, number), "wb").write(raw)
                owner.append(i)
                number += 1
        p = subprocess.run([BINARY, "--state", tmp + "/state", "--root", tmp, HERE + "/ask.lua", tmp + "/in"], stdin=subprocess.DEVNULL,
                           env=dict(os.environ, HOME=tmp, TZ="UTC"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
    finally:
        shutil.rmtree(tmp)
    sys.stderr.write(p.stderr.decode("utf-8", "replace")[-2000:])
    answers = [[] for _ in cases]
    for line in p.stdout.decode("utf-8", "surrogateescape").splitlines():
        answer = json.loads(line, strict=False)
        answers[owner[int(os.path.basename(answer["source"])[:5])]].append(answer)
    return answers


def content_types():
    """(name, got, want) of each; RFC 2231's language is not kept, so the vectors' is left out."""
    subprocess.run(["make", "-s", "build/tools/params"], cwd=TOP, check=True)
    cases = vectors("header-content-type")
    values = [re.sub(r"\r?\n(?![ \t]).*", "", v["input"], flags=re.S).encode("utf-8") for v in cases]
    p = subprocess.run([TOP + "/build/tools/params"], input=b"".join(v.hex().encode() + b"\n" for v in values), stdout=subprocess.PIPE, check=True)
    for v, line in zip(cases, p.stdout.decode("utf-8", "surrogateescape").splitlines()):
        a, e = json.loads(line), v["expect"]
        kind, _, subtype = a["value"].partition("/")
        got = (kind, subtype or None, sorted(map(tuple, a["params"]))) if kind else None
        want = e and (e["c_type"].lower(), e["c_subtype"] and e["c_subtype"].lower(),
                      sorted((n, x) for n, x in e.get("attributes") or [] if not n.endswith("-language")))
        yield "header-content-type " + v["id"], got, want


def results():
    cases = [("%s %s" % (kind, v["id"]), *make(v)) for kind, make in KINDS.items() for v in vectors(kind)]
    for (name, _, read, want), a in zip(cases, ask(cases)):
        yield name, read(a) if a else "no answer", want
    yield from content_types()


def main():
    known, passed, failed, differ, per = listed(), 0, 0, 0, {}
    verbose, only = "-v" in sys.argv, [a for a in sys.argv[1:] if a != "-v"]
    for name, got, want in results():
        if only and not any(o in name for o in only):
            continue
        same, count = got == want, per.setdefault(name.split()[0], [0, 0])
        count[0] += same
        count[1] += 1
        if same != (name in known):
            passed, differ = passed + 1, differ + (not same)
        else:
            failed += 1
            print("FAIL %s: %s" % (name, "is listed in README.md and passes" if same else "got %r, want %r" % (got, want)))
        if verbose and not same and name in known:
            print("differs %s: got %r, want %r" % (name, got, want))
    print("vectors: " + ", ".join("%s %d of %d" % (k, *c) for k, c in per.items()) + "; %d listed differences" % differ)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0)


main()
