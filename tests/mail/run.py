#!/usr/bin/env python3
"""The 300 real messages of this folder through the public Lua API (answers.lua), compared with what two other parsers say (check.py).
usage: run.py [CORPUS]: another folder with an oracle.jsonl and the messages it names; ends with the count."""
import hashlib, json, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = sys.argv[1] if len(sys.argv) > 1 else HERE
BINARY = os.environ.get("MAILMILL", os.path.dirname(os.path.dirname(HERE)) + "/build/mailmill")

DIFFERS = {  # where mailmill means to say something else than the oracle's one witness
    "mime4j/testmsgs/malformedHeader-noheader.msg": "a text without any header is all body, as the message says of itself",
}


def write_messages(d, oracle):
    for i, r in enumerate(oracle):
        raw = open(os.path.join(CORPUS, r["file"]), "rb").read()[r["strip_from"]:]
        open("%s/%04d.eml" % (d, i), "wb").write(raw)


def as_written(field, addresses, raw):
    """Domains come in lower case; the oracle has them as the sender wrote them."""
    head = b"".join(re.findall(rb"^%s\s*:.*\n(?:[ \t].*\n)*" % field.encode(), raw, re.I | re.M))
    out = []
    for name, addr in addresses:
        found = re.search(re.escape(addr.encode()), head, re.I) if addr and addr.encode() not in head else None
        out.append([name, found.group().decode("utf-8", "replace") if found else addr])
    return out


def convert(answer, record, raw):
    answer["id"] = record["id"]
    for part in answer["parts"]:
        text = part.pop("text", None)
        for key in ("disposition", "filename"):
            part.setdefault(key, None)
        if text is not None:
            part["text_sha256"] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    for field in ("from", "to"):
        answer[field] = as_written(field, answer[field], raw)
    return answer


def main():
    oracle = [json.loads(line) for line in open(CORPUS + "/oracle.jsonl")]
    oracle = [r for r in oracle if r["id"] not in DIFFERS]
    tmp = tempfile.mkdtemp(prefix="mailmill-mail-")
    try:
        folder = tmp + "/messages"
        os.mkdir(folder)
        write_messages(folder, oracle)
        p = subprocess.run([BINARY, "--state", tmp + "/state", "--root", tmp, HERE + "/answers.lua", folder], stdin=subprocess.DEVNULL,
                           env=dict(os.environ, HOME=tmp, TZ="UTC"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)
        sys.stderr.write(p.stderr.decode("utf-8", "replace")[-3000:])
        with open(tmp + "/oracle.jsonl", "w") as out:
            out.writelines(json.dumps(r) + "\n" for r in oracle)
        with open(tmp + "/answers.jsonl", "w") as out:
            for line in p.stdout.decode("utf-8", "surrogateescape").splitlines():
                answer = json.loads(line)
                i = int(os.path.basename(answer["source"])[:4])
                raw = open("%s/%04d.eml" % (folder, i), "rb").read()
                out.write(json.dumps(convert(answer, oracle[i], raw)) + "\n")
        sys.exit(subprocess.run([sys.executable, HERE + "/check.py", tmp + "/oracle.jsonl", tmp + "/answers.jsonl"]).returncode or p.returncode)
    finally:
        shutil.rmtree(tmp)


main()
