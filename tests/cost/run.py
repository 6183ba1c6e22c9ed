#!/usr/bin/env python3
"""Reads hostile input of three sizes, each twice the one before, and counts the instructions: cost is linear when twice the input costs at
most 2.3 times as many. usage: run.py [--large] [WORD ...]   (--large: sizes times 8; WORD: only patterns with that in their names)

Who counts: the kernel (perf_event_open) where there is a counter and we may; else valgrind's callgrind, which runs the same program on a
processor of its own and is slower. Where there is neither, the test is skipped, with the reason. Never the clock."""
import glob, os, re, shutil, subprocess, sys, tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
COST = TOP + "/build/cost"
LARGE = 8
TABLES = ["mail", "fields", "text", "wires"]
MOST = 2.3       # for a doubling
# "rep movsb" is one instruction to the kernel and one a byte to valgrind: the C library copies with others here.
os.environ["GLIBC_TUNABLES"] = "glibc.cpu.x86_rep_movsb_threshold=0x7fffffffffff:glibc.cpu.x86_rep_stosb_threshold=0x7fffffffffff"
LEAST = 30000    # fewer instructions than these say nothing about growth: the pattern is too small


def skip(why):
    print("skipped: cost: " + why)
    print("0 passed, 0 failed, 1 skipped")
    sys.exit(0)


def by_kernel(times, words):
    out = subprocess.run([COST, "perf", str(times), "all", *words], stdout=subprocess.PIPE, check=True, text=True).stdout
    return [line.split("\t") for line in out.splitlines()]


def dumps(path):
    """callgrind writes a part for each mark: what it is called, and the sum."""
    name = None
    for line in open(path, errors="replace"):
        m = re.match(r"desc: Trigger: Client Request: (.*)\t(\d+)$", line)
        name = m.groups() if m else name
        if name and line.startswith("totals: "):
            yield name[0], name[1], line.split()[1]
            name = None


def by_callgrind(times, words):
    with tempfile.TemporaryDirectory() as d:
        running = []
        for table in TABLES:
            out = "%s/%s" % (d, table)
            running.append((table, subprocess.Popen(
                ["valgrind", "--tool=callgrind", "--collect-atstart=no", "--combine-dumps=yes", "--callgrind-out-file=" + out,
                 COST, "marks", str(times), table, *words], stdout=open(out + ".txt", "w"), stderr=open(out + ".err", "w"))))
        found = []
        for table, p in running:
            if p.wait() != 0:
                sys.exit("%s: %s\n0 passed, 1 failed" % (table, open("%s/%s.err" % (d, table)).read()[-3000:]))
            found += [row for path in glob.glob("%s/%s" % (d, table)) for row in dumps(path)]
        return found


def judge(rows):
    sizes, passed, failed = {}, 0, 0
    for name, n, count in rows:
        sizes.setdefault(name, []).append((int(n), int(count)))
    for name, counts in sizes.items():
        counts = [c for _, c in sorted(counts)]
        growth = [b / max(a, 1) for a, b in zip(counts, counts[1:])]
        steady = max(growth) < 1.05  # cut off by a limit
        good = len(counts) == 3 and (counts[0] >= LEAST or steady) and max(growth) <= MOST
        passed, failed = passed + good, failed + (not good)
        print("%s %-62s %s  %s" % ("    " if good else "FAIL", name, " ".join("%11d" % c for c in counts), " ".join("%.2f" % g for g in growth)))
    return passed, failed


def main():
    words = [w for w in sys.argv[1:] if w != "--large"]
    times = LARGE if "--large" in sys.argv else 1
    made = subprocess.run(["make", "-s", "-C", TOP, "-j%d" % (os.cpu_count() or 2), "build/cost"])
    if made.returncode:
        sys.exit("0 passed, 1 failed")
    how = subprocess.run([COST], stdout=subprocess.PIPE, text=True).stdout.strip()
    if how == "perf":
        rows = by_kernel(times, words)
    elif shutil.which("valgrind"):
        print("the kernel counts no instructions here (%s): valgrind does" % how)
        rows = by_callgrind(times, words)
    else:
        skip("the kernel counts no instructions here (%s), and valgrind is not installed" % how)
    passed, failed = judge(rows)
    print("%d passed, %d failed" % (passed, failed))
    sys.exit(1 if failed or not passed else 0)


main()
