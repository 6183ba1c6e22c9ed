#!/usr/bin/env python3
"""Runs every lesson of examples/ and compares what came out with NN-name.out: what it printed, the files below its root, what waits in its
outbox. usage: run.py [--write] [LESSON ...]; ends with the count. --write writes the .out files anew."""
import glob, json, os, re, shutil, subprocess, sys, tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARY = os.environ.get("MAILMILL", TOP + "/build/mailmill")
EXAMPLES = TOP + "/examples"


def mailmill(d, *args):
    env = {"PATH": os.environ["PATH"], "HOME": d, "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    p = subprocess.run([BINARY, "--state", d + "/state", *args], env=env, cwd=d, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                       stderr=subprocess.PIPE, timeout=120)
    return p.returncode, p.stdout.decode(), p.stderr.decode()


def files(root):
    """Paths with sizes; names in a Maildir are unique and say nothing, so they are counted."""
    lines, folders = [], {}
    for base, _, names in os.walk(root):
        for name in names:
            path = os.path.join(base, name)
            rel = os.path.relpath(path, root)
            m = re.fullmatch(r"(.*)/(new|cur)/\d+\.[^/]*?(:2,\w*)?", rel)
            if m:
                key = "%s/%s/…%s" % (m[1], m[2], m[3] or "")
                folders[key] = folders.get(key, 0) + 1
            else:
                lines.append("%s (%d bytes)" % (rel, os.path.getsize(path)))
    lines += ["%s × %d" % (k, n) for k, n in folders.items()]
    return sorted(lines)


def outbox(d):
    code, out, _ = mailmill(d, "outbox", "list", "--json")
    items = [json.loads(line) for line in out.splitlines()]
    return ["%s: %s to %s" % (i["state"], i["subject"], ", ".join(i["to"])) if "to" in i else "%s: %s" % (i["state"], " ".join(i["argv"]))
            for i in items]


def answer(lesson):
    d = tempfile.mkdtemp(prefix="mailmill-lesson-")
    try:
        code, out, err = mailmill(d, "--root", d + "/root", lesson)
        text = out
        for title, lines in (("files", files(d + "/root")), ("outbox", outbox(d))):
            if lines:
                text += "-- %s --\n%s\n" % (title, "\n".join(lines))
        if code:
            text += "-- exit code %d --\n%s" % (code, err)
        return text, code
    finally:
        shutil.rmtree(d)


def main():
    wanted = [a for a in sys.argv[1:] if a != "--write"]
    passed = failed = 0
    for lesson in sorted(glob.glob(EXAMPLES + "/[0-9][0-9]-*.lua")):
        name = os.path.basename(lesson)[:-4]
        if wanted and name not in wanted:
            continue
        got, code = answer(lesson)
        out = lesson[:-4] + ".out"
        if "--write" in sys.argv:
            open(out, "w").write(got)
        want = open(out).read() if os.path.exists(out) else "(there is no %s)" % out
        ok = got == want and code == 0
        passed, failed = passed + ok, failed + (not ok)
        if not ok:
            print("FAIL %s\n--- wanted\n%s--- got\n%s" % (name, want, got))
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


main()
