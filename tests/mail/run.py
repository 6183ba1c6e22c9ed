#!/usr/bin/env python3
"""The real messages of this folder through the public Lua API. First those with known right answers (answers.lua, compared by check.py); then
all of them, also those that nobody agrees on: everything asked, and every byte kept (whole.lua). Then the vectors (vectors/run.py).
usage: run.py [CORPUS]: another folder with oracle.jsonl, untrusted.jsonl and the messages they name; ends with the count."""
import hashlib, json, os, re, shutil, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
CORPUS = sys.argv[1] if len(sys.argv) > 1 else HERE
BINARY = os.environ.get("MAILMILL", os.path.dirname(os.path.dirname(HERE)) + "/build/mailmill")
STATUSES = ["agreed,agreed-eol,native", "majority"]
COUNT = re.compile(r"(\d+) passed, (\d+) failed")


def allowed():
    """The messages that mailmill reads otherwise and means to, in README.md: a line each, `id`: reason."""
    text = open(HERE + "/README.md").read()
    return dict(re.findall(r"^- `([^`]+)`: (.*(?:\n  .*)*)", text, re.M))


def records(name):
    path = os.path.join(CORPUS, name)
    return [json.loads(line) for line in open(path)] if os.path.exists(path) else []


def as_read(raw):
    """Every source gives line ends as LF; a byte order mark before an .eml file's header is none of the message."""
    return (raw[3:] if raw.startswith(b"\xef\xbb\xbf") else raw).replace(b"\r\n", b"\n")


def write_messages(d, messages):
    os.mkdir(d)
    for i, r in enumerate(messages):
        raw = open(os.path.join(CORPUS, r["file"]), "rb").read()[r["strip_from"]:]
        open("%s/%04d.eml" % (d, i), "wb").write(raw)


def mailmill(tmp, script, folder):
    return subprocess.run([BINARY, "--state", tmp + "/state-" + script, "--root", tmp, HERE + "/" + script, folder], stdin=subprocess.DEVNULL,
                          env=dict(os.environ, HOME=tmp, TZ="UTC"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=600)


def convert(answer, record):
    answer["id"] = record["id"]
    for part in answer["parts"]:
        text = part.pop("text", None)
        for key in ("disposition", "filename"):
            part.setdefault(key, None)
        if text is not None:
            part["text_sha256"] = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
    return answer


def judge(tmp, statuses, ids, listed):
    """check.py's verdict: a failed message must be listed, and a listed one must fail."""
    p = subprocess.run([sys.executable, HERE + "/check.py", tmp + "/oracle.jsonl", tmp + "/answers.jsonl", "--list=100000", "--status=" + statuses],
                       stdout=subprocess.PIPE, universal_newlines=True)
    failures = [line for line in p.stdout.splitlines() if line.startswith("FAIL ")]
    unlisted = [line for line in failures if line.split()[1] not in listed]
    stale = [i for i in listed if i in ids and not any(line.split()[1] == i for line in failures)]
    passed = int(COUNT.search(p.stdout).group(1))
    print("%s: %d answers as the oracle has them, %d listed differences" % (statuses, passed, len(failures) - len(unlisted)))
    print("".join(line + "\n" for line in unlisted) + "".join("FAIL %s is listed and passes\n" % i for i in stale), end="")
    return passed, len(unlisted) + len(stale)


def check_answers(tmp):
    oracle, listed = records("oracle.jsonl"), allowed()
    folder = tmp + "/oracle"
    write_messages(folder, oracle)
    p = mailmill(tmp, "answers.lua", folder)
    sys.stderr.write(p.stderr.decode("utf-8", "replace")[-3000:])
    shutil.copy(os.path.join(CORPUS, "oracle.jsonl"), tmp + "/oracle.jsonl")
    with open(tmp + "/answers.jsonl", "w") as out:
        for line in p.stdout.decode("utf-8", "surrogateescape").splitlines():
            answer = json.loads(line)
            i = int(os.path.basename(answer["source"])[:4])
            out.write(json.dumps(convert(answer, oracle[i])) + "\n")
    passed, failed = 0, int(p.returncode != 0)
    for statuses in STATUSES:
        ids = {r["id"] for r in oracle if r["status"] in statuses.split(",")}
        ok, bad = judge(tmp, statuses, ids, listed)
        passed, failed = passed + ok, failed + bad
    return passed, failed


def check_whole(tmp):
    messages = records("oracle.jsonl") + records("untrusted.jsonl")
    folder, failed = tmp + "/whole", 0
    write_messages(folder, messages)
    p = mailmill(tmp, "whole.lua", folder)
    if p.returncode:
        print("FAIL whole.lua: status %d\n%s" % (p.returncode, p.stderr.decode("utf-8", "replace")[-3000:]))
        failed = 1
    for i, r in enumerate(messages):
        out = "%s/%04d.out" % (tmp, i)
        was = as_read(open("%s/%04d.eml" % (folder, i), "rb").read())
        if not os.path.exists(out) or open(out, "rb").read() != was:
            print("FAIL %s: not filed byte for byte" % r.get("id", r["file"]))
            failed += 1
    print("%d messages asked for everything and filed byte for byte" % len(messages))
    return len(messages) - failed, failed


def main():
    tmp = tempfile.mkdtemp(prefix="mailmill-mail-")
    try:
        counts = [check_answers(tmp), check_whole(tmp)]
    finally:
        shutil.rmtree(tmp)
    if CORPUS == HERE and os.path.exists(HERE + "/vectors/run.py"):
        p = subprocess.run([sys.executable, HERE + "/vectors/run.py"], stdout=subprocess.PIPE, universal_newlines=True)
        print(p.stdout, end="")
        found = COUNT.findall(p.stdout)
        counts.append((int(found[-1][0]), int(found[-1][1])) if found else (0, 1))
    passed, failed = (sum(c) for c in zip(*counts))
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(failed > 0)


main()
