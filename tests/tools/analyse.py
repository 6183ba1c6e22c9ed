#!/usr/bin/env python3
"""gcc -fanalyzer, clang-tidy and cppcheck over core/ and lua/, as a part of lint.py. usage: analyse.py [FILE ...]: what they find there.

Whole checks are switched off in .clang-tidy and by GCC_OFF and CPPCHECK_OFF below, single findings in analyse.txt, each with its reason; a line there
that suppresses nothing fails. What was found in a file is kept in build/analysis until the file, a header that it includes, or the
configuration changes."""
import concurrent.futures, glob, hashlib, json, os, re, shutil, subprocess, sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
HERE = "tests/tools/"
KEPT = "build/analysis/"
TIMEOUT = 300  # seconds for one tool on one file; the longest takes two
FLAGS = ["-std=c11", "-I.", "-Ibuild", "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", '-DMAILMILL_VERSION="0"', '-DMAILMILL_SHARE="share"']
# takes what is kept in a struct for lost (13 findings, 13 wrong); leaks are the address sanitizer's, over every test
GCC_OFF = ["-Wno-analyzer-malloc-leak"]
CPPCHECK_OFF = {
    "variableScope": "variables are declared at the top of their function, where it is short",
    "unreadVariable": "an initial value that is always overwritten keeps the next edit from reading none",
    "redundantInitialization": "the same",
    "knownConditionTrueFalse": "takes the value of `a < b ? a : b` for a; 5 findings, 5 wrong",
    "shadowFunction": "a local variable may be called as a static function that it has nothing to do with",
    "readdirCalled": "readdir is safe where each thread has a DIR of its own (glibc), and readdir_r is deprecated",
    "constParameter": "a lua_State is never const",
}


def commands(path):
    """(tool, command) for each that is installed."""
    more = ["-include", HERE + "analyse.h"] if path != "core/mem.c" else []
    flags = [*FLAGS, *pkg_flags(), *more, *(["-DWITH_LUA"] if path.startswith("lua/") else [])]
    tools = {
        "gcc": ["gcc", "-O1", *flags, "-fanalyzer", *GCC_OFF, "-fdiagnostics-plain-output", "-c", "-o", "/dev/null", path],
        "clang-tidy": ["clang-tidy", "--quiet", path, "--", *flags],
        "cppcheck": ["cppcheck", "--quiet", "--enable=warning,performance,portability,style", "--library=posix,gnu,lua,openssl,sqlite3",
                     "--library=" + HERE + "cppcheck.cfg", *["--suppress=" + check for check in CPPCHECK_OFF],
                     "--template={file}:{line}:{column}: {severity}: {message} [{id}]", "--std=c11", *FLAGS[1:], path],
    }
    return [(name, cmd) for name, cmd in tools.items() if shutil.which(name)]


def pkg_flags(known=[]):
    if not known:
        known.append(subprocess.run(["pkg-config", "--cflags", "lua5.4"], stdout=subprocess.PIPE).stdout.decode().split())
    return known[0]


FINDING = re.compile(r"^([^\s:]+):(\d+):\d+: (?:warning|error|style|performance|portability): (.*) \[(?:-W)?([\w.,-]+)\]$", re.M)


def findings(cmd):
    """[file, line, check, message]; a tool that fails is a finding of its own."""
    try:
        p = subprocess.run(cmd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        return [[cmd[-1], 0, cmd[0], "not finished after %d s" % TIMEOUT]]
    out = p.stdout.decode("utf-8", "replace")
    found = [[os.path.relpath(f), int(line), check, text] for f, line, text, check in FINDING.findall(out)]
    return found if found or p.returncode == 0 else [["", 0, cmd[0], out[-2000:]]]


def headers(path, seen):
    """The file and all of the project's that it includes."""
    if path not in seen and os.path.exists(path):
        seen.add(path)
        for inc in re.findall(r'^#include "([^"]+)"', open(path).read(), re.M):
            headers(inc, seen)
    return seen


def analysed(job):
    """The findings of (file, tool, command), kept or new."""
    path, tool, cmd = job
    digest = hashlib.sha256(json.dumps([cmd, version(cmd[0])]).encode())
    for name in sorted(headers(path, set())) + [".clang-tidy", HERE + "cppcheck.cfg", HERE + "analyse.h"]:
        digest.update(open(name, "rb").read())
    kept = "%s%s.%s" % (KEPT, path.replace("/", "_"), tool)
    try:
        with open(kept) as f:
            old = json.load(f)
        if old["of"] == digest.hexdigest():
            return old["found"]
    except (OSError, ValueError, KeyError):
        pass
    found = findings(cmd)
    with open(kept + ".new", "w") as f:
        json.dump({"of": digest.hexdigest(), "found": found}, f)
    os.rename(kept + ".new", kept)
    return found


def version(tool, known={}):
    if tool not in known:
        known[tool] = subprocess.run([tool, "--version"], stdout=subprocess.PIPE).stdout.decode()
    return known[tool]


def suppressions():
    """[file, check, part of the line]; a line of analyse.txt is `file check | part of the line | reason`."""
    rules = []
    for line in open(HERE + "analyse.txt"):
        if line.strip() and not line.startswith("#"):
            what, part, reason = (x.strip() for x in line.split(" | "))
            rules.append((*what.split(), part))
            assert reason
    return rules


def unexcused(found, rules, used):
    """The findings that no rule suppresses, each once, as text."""
    left = {}
    for path, number, check, text in found:
        lines = open(path).read().split("\n") if os.path.isfile(path) else []
        line = lines[number - 1] if 0 < number <= len(lines) else ""
        mine = [r for r in rules if r[0] == path and r[1] in check.split(",") and (r[2] == "*" or r[2] in line)]
        used.update(mine)
        if not mine:
            left["%s:%d: %s [%s]\n    %s" % (path, number, text, check, line.strip())] = True
    return list(left)


def run(paths, check, skip):
    """check(ok, text) is called for each tool and file; skip(reason) for a tool that is not there."""
    os.makedirs(KEPT, exist_ok=True)
    absent = [tool for tool in ("gcc", "clang-tidy", "cppcheck") if not shutil.which(tool)]
    for tool in absent:
        skip(tool + " is not installed")
    rules, used = suppressions(), set()
    jobs = [(path, tool, cmd) for path in paths for tool, cmd in commands(path)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        for (path, tool, _), found in zip(jobs, pool.map(analysed, jobs)):
            left = unexcused(found, rules, used)
            check(not left, "%s on %s:\n  %s" % (tool, path, "\n  ".join(left)))
    for rule in rules:
        if rule[0] in paths and not absent:
            check(rule in used, "%sanalyse.txt: \"%s %s | %s\" suppresses nothing" % (HERE, *rule))


def sources():
    return sorted(glob.glob("core/*.c") + glob.glob("lua/*.c"))


if __name__ == "__main__":
    os.chdir(TOP)
    run(sys.argv[1:] or sources(), lambda ok, text: ok or print(text), lambda why: print("skipped: " + why))
