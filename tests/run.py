#!/usr/bin/env python3
"""Runs every test and ends with a line that counts them. usage: run.py [STEP ...] (names as printed; default all)
       run.py --thread | --address [STEP ...]   every test under that sanitizer (--address: with the undefined behaviour one)

Each step is a command that ends with "N passed, N failed[, N skipped]"; one that does not, or that exits with a failure and counts none, is
one failed test. Everything a step prints is kept in build/test-STEP.log and shown when it fails. A command that takes longer than LIMIT is
killed with all it started, and what each of its threads waited for is shown: no test may keep the others from being run."""
import glob, os, re, signal, subprocess, sys, tempfile, time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COUNT = re.compile(r"^(?:\w+: )?(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$", re.M)
LIMIT = 600  # seconds for a command; the longest takes two minutes on two cores
JOBS = "-j%d" % (os.cpu_count() or 2)
ASAN = ["BUILD=build-asan", "SANITIZE=address,undefined", "OPT=-O1 -g"]
TSAN = ["BUILD=build-tsan", "SANITIZE=thread", "OPT=-O1 -g"]
TSAN_UNITS = ["pool", "map", "run", "commit", "supervise", "staging", "pop3_source", "secret", "outbox", "smtp", "ledger", "lines", "spawn", "tls",
              "confine", "server"]  # where threads meet, or processes
RUNNERS = ("scripts", "archives", "lessons", "mail", "opened", "differ", "bounds", "secrets", "tls", "machine", "e2e")
# They take MAILMILL; crash does, too, but its shim fails the calls of a sanitizer's runtime as well, which then gives up.


def make(*args):
    return ["make", "-s", JOBS, *args]


def programs(build, sub="unit", only=None):
    d = os.path.join(TOP, build, sub)
    names = sorted(f for f in (os.listdir(d) if os.path.isdir(d) else []) if re.fullmatch(r"test_\w+", f))
    return [os.path.join(d, n) for n in names if only is None or n[5:] in only]


def steps():
    """(name, [commands]); a command may be a function that gives a list of them, asked when its turn has come."""
    yield "build", [make("all", "units")]
    yield "build-clang", [make("BUILD=build-clang", "CC=clang", "all")]
    yield "lint", [make("lint")]
    yield "build-asan", [make(*ASAN, "all", "units", "lua-tests", "build-asan/wire/cuts")]
    yield "unit", [lambda: [[p] for p in programs("build-asan")]]
    yield "lua", [lambda: [[p] for p in programs("build-asan", "lua")]]
    yield "build-tsan", [make(*TSAN, "all", "lua-tests", *["build-tsan/unit/test_" + u for u in TSAN_UNITS
                                                              if os.path.exists(TOP + "/tests/unit/test_%s.c" % u)])]
    yield "threads", [lambda: [[p] for p in programs("build-tsan", "unit", TSAN_UNITS) + programs("build-tsan", "lua")],
                      runner("lessons", "build-tsan"), runner("mail", "build-tsan")]
    yield "wire", [[TOP + "/build-asan/wire/cuts", "--sample", "400"]]
    for name in ("lua", "scripts", "archives", "lessons", "mail", "opened", "fuzz", "cost", "differ", "bounds", "secrets", "tls", "machine", "crash", "e2e", "memcheck"):
        path = os.path.join(TOP, "tests", name, "run.py")
        if os.path.exists(path):
            yield name + "-run", [["python3", path]]
    yield "power", [["python3", os.path.join(TOP, "tests", "crash", "power.py"), "--images", "4", "--fs", "ext4"]]
    yield "hostile", [["python3", os.path.join(TOP, "tests", "mail", "hostile.py")]]


def runner(name, build):
    """The tests of a folder with the program of another build. A race that the worker sees ends it with a status that no test expects."""
    return ["env", "MAILMILL=%s/%s/mailmill" % (TOP, build), "python3", os.path.join(TOP, "tests", name, "run.py")]


def whole(build, flags):
    """Every test that runs our code, under a sanitizer."""
    yield "build", [make(*flags, "all", "units", "lua-tests", build + "/wire/cuts")]
    yield "unit", [lambda: [[p] for p in programs(build)]]
    yield "lua", [lambda: [[p] for p in programs(build, "lua")]]
    yield "wire", [[TOP + "/" + build + "/wire/cuts", "--sample", "400"]]
    for name in RUNNERS:
        if name == "bounds" and build == "build-tsan":
            print("skipped: bounds: the thread sanitizer keeps signals back until the next system call, a script's loop is not stopped then")
        else:
            yield name + "-run", [runner(name, build)]
    yield "hostile", [["env", "MAILMILL=%s/%s/mailmill" % (TOP, build), "python3", os.path.join(TOP, "tests", "mail", "hostile.py")]]


def read(path):
    try:
        with open(path, "rb") as f:
            return f.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        return ""


def session(sid):
    """The processes of a session: a command is the leader of its own."""
    for stat in glob.glob("/proc/[0-9]*/stat"):
        fields = read(stat).rpartition(")")[2].split()
        if len(fields) > 3 and fields[3] == str(sid):
            yield int(stat.split("/")[2])


def waiting(sid):
    """What every thread is doing: its state, the kernel's function, and the system call with its arguments."""
    lines = []
    for pid in session(sid):
        lines.append("%d %s" % (pid, read("/proc/%d/cmdline" % pid)[:200]))
        for t in sorted(glob.glob("/proc/%d/task/*" % pid)):
            lines.append("    %s %s %s" % (read(t + "/stat").rpartition(")")[2].split(" ", 2)[1:2], read(t + "/wchan"), read(t + "/syscall")))
    return "\n".join(lines)


def end(sid):
    for pid in session(sid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def limited(cmd, env):
    """(exit status, output). The output goes to a file: a pipe would be held open by whatever the command leaves behind."""
    with tempfile.TemporaryFile() as out:
        p = subprocess.Popen(cmd, cwd=TOP, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
        late = ""
        try:
            p.wait(LIMIT)
        except subprocess.TimeoutExpired:
            late = "\nnot finished after %d s, killed; its processes and threads (state, where, system call):\n%s\n" % (LIMIT, waiting(p.pid))
        end(p.pid)
        status = p.wait()
        out.seek(0)
        return status, out.read().decode("utf-8", "replace") + late


def run(name, cmd, log):
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:abort_on_error=0", UBSAN_OPTIONS="print_stacktrace=1",
               TSAN_OPTIONS="handle_segv=0", LC_ALL="C.UTF-8")
    status, out = limited(cmd, env)
    log.write("$ %s\n%s\n" % (" ".join(cmd), out))
    found = COUNT.findall(out)
    if found and not (status and found[-1][1] == "0"):
        passed, failed, skipped = (int(x or 0) for x in found[-1])
    else:
        passed, failed, skipped = int(status == 0), int(status != 0), 0
    if failed:
        print("---- %s: %s" % (name, " ".join(cmd)))
        print(out if len(out) <= 9000 else out[:3000] + "\n[...]\n" + out[-6000:])
    for line in re.findall(r"^skipped: .*$", out, re.M):
        print(line)
    return passed, failed, skipped


def main():
    global LIMIT
    wanted, total, plan = sys.argv[1:], [0, 0, 0], steps()
    if wanted and wanted[0] in ("--thread", "--address"):
        plan = whole("build-tsan", TSAN) if wanted.pop(0) == "--thread" else whole("build-asan", ASAN)
        LIMIT *= 4
    for name, commands in plan:
        if wanted and name not in wanted:
            continue
        began, count = time.monotonic(), [0, 0, 0]
        os.makedirs(os.path.join(TOP, "build"), exist_ok=True)
        with open(os.path.join(TOP, "build", "test-%s.log" % name), "w") as log:
            for c in commands:
                for cmd in c() if callable(c) else [c]:
                    count = [a + b for a, b in zip(count, run(name, cmd, log))]
        print("%-12s %5d passed %3d failed %3d skipped  %6.1f s" % (name, *count, time.monotonic() - began), flush=True)
        total = [a + b for a, b in zip(total, count)]
        if name.startswith("build") and count[1]:
            break
    print("%d passed, %d failed, %d skipped" % tuple(total))
    sys.exit(1 if total[1] or not total[0] else 0)


main()
