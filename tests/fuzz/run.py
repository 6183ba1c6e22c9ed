#!/usr/bin/env python3
"""Replays every fuzz target over its seeds (built with sanitizers into build-asan) and ends with a count.
usage: run.py [NAME ...]                  replay
       run.py --fuzz SECONDS [NAME ...]   drive them with libFuzzer, one after the other (`make fuzz` builds them into build-fuzz);
                                          what it learns is kept in build-fuzz/corpus/NAME, what it finds in build-fuzz/found"""
import glob, os, re, subprocess, sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FUZZ = "tests/fuzz"
ASAN = ["BUILD=build-asan", "SANITIZE=address,undefined", "OPT=-O1 -g"]
MAIL = {"message", "mime", "mbox", "header", "html", "codec"}  # these read whole messages
LONGEST = {"message": 16384, "mime": 16384, "mbox": 16384, "pop3": 8192, "html": 8192, "tnef": 16384, "unpack": 8192}
os.chdir(TOP)


def targets(wanted):
    all_ = sorted(os.path.basename(p)[5:-2] for p in glob.glob(FUZZ + "/fuzz_*.c"))
    for name in wanted:
        if name not in all_:
            sys.exit("there is no target " + name)
    return wanted or all_


def seeds(name):
    found = [p for p in ("%s/seeds/%s" % (FUZZ, name), "tests/regress/" + name) if os.path.isdir(p)]
    if name in MAIL:
        found += sorted(p for p in glob.glob("tests/mail/*") if os.path.isdir(p))
    return found


def environment():
    return dict(os.environ, ASAN_OPTIONS="detect_leaks=1", UBSAN_OPTIONS="print_stacktrace=1", LC_ALL="C.UTF-8")


def replay(wanted):
    make = subprocess.run(["make", "-s", "-j%d" % (os.cpu_count() or 2), *ASAN, "fuzz-programs"])
    passed = failed = 0
    for name in targets(wanted) if make.returncode == 0 else []:
        p = subprocess.run(["build-asan/fuzz/" + name, *seeds(name)], env=environment(), stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out = p.stdout.decode("utf-8", "replace")
        count = re.search(r"^(\d+) passed, 0 failed$", out, re.M)
        ran = int(count.group(1)) if count else len(re.findall(r"^tests/\S+$", out, re.M)) - 1
        passed += max(ran, 0)
        if p.returncode:
            failed += 1
            print("FAIL %s\n%s" % (name, out[-6000:]))
    failed += make.returncode != 0
    print("%d passed, %d failed" % (passed, failed))
    return failed


def fuzz(seconds, wanted):
    failed = []
    os.makedirs("build-fuzz/found", exist_ok=True)
    for name in targets(wanted):
        corpus, words = "build-fuzz/corpus/" + name, "%s/seeds/%s.dict" % (FUZZ, name)
        os.makedirs(corpus, exist_ok=True)
        cmd = ["nice", "-n", "19", "build-fuzz/fuzz/" + name, "-max_total_time=%d" % seconds, "-timeout=20", "-rss_limit_mb=2048",
               "-malloc_limit_mb=8192",  # a dictionary of 4 GiB is asked for and hardly touched: what is used counts
               "-max_len=%d" % LONGEST.get(name, 4096), "-print_final_stats=1", "-verbosity=0", "-reload=0",
               "-artifact_prefix=build-fuzz/found/%s-" % name, corpus, *seeds(name)]
        if os.path.exists(words):
            cmd.insert(4, "-dict=" + words)
        p = subprocess.run(cmd, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out = p.stdout.decode("utf-8", "replace")
        runs = re.search(r"number_of_executed_units: (\d+)", out)
        print("%-10s %9s runs in %d s%s" % (name, runs.group(1) if runs else "?", seconds, ", FOUND:" if p.returncode else ""), flush=True)
        if p.returncode:
            failed.append(name)
            print(out[-6000:], flush=True)
    return len(failed)


if sys.argv[1:2] == ["--fuzz"]:
    sys.exit(1 if fuzz(int(sys.argv[2]), sys.argv[3:]) else 0)
sys.exit(1 if replay(sys.argv[1:]) else 0)
