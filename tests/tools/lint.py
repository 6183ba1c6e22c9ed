#!/usr/bin/env python3
"""The rules of the house that a machine can hold. usage: lint.py; ends with the count, exit 1 when a rule is broken.

  floors     a module of core/ includes only modules that stand before it in the floors of core/README.md, or of its own group
  lua-free   core/ never includes a Lua header
  raw        calls that belong to one module are made only there (malloc family, fsync, rename ...)
  docs       the API reference is what the bindings say (lua/doc.lua --check)
  rows       each row of a complete family of hostile inputs has a test named by it (rows.py)
  analysers  gcc -fanalyzer, clang-tidy and cppcheck find nothing that analyse.txt doesn't excuse (analyse.py)
  forbidden  nothing committed names a machine's paths or a package registry's hosts"""
import glob, os, re, subprocess, sys

import analyse, rows

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.chdir(TOP)
passed = failed = skipped = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL " + what)


def skip(why):
    global skipped
    skipped += 1
    print("skipped: " + why)


def floors():
    """name -> (place in the order, group); a line is `floor: a b c(c_x c_y) …`, a group may include itself freely."""
    order, place = {}, 0
    text = open("core/README.md").read()
    for line in re.search(r"```floors\n(.*?)```", text, re.S).group(1).splitlines():
        for word in re.findall(r"(\w+)(?:\(([\w ]*)\))?", line.split(":", 1)[1]):
            place += 1
            for name in [word[0]] + word[1].split():
                order[name] = (place, word[0])
    return order


def includes(path):
    return re.findall(r'^#include "([^"]+)"', open(path).read(), re.M)


def check_floors():
    order, seen = floors(), set()
    for path in sorted(glob.glob("core/*.[ch]")):
        name = os.path.basename(path)[:-2]
        if name not in order:
            check(False, "%s stands on no floor (core/README.md)" % path)
            continue
        seen.add(name)
        bad = []
        for inc in includes(path):
            other = os.path.basename(inc)[:-2]
            if not inc.startswith("core/"):
                bad.append(inc)
            elif order.get(other, (10**9, ""))[0] > order[name][0]:
                bad.append(other)
        check(not bad, "%s includes what stands above it: %s" % (path, ", ".join(bad)))
        check(not re.search(r"#include <(lua|lauxlib|lualib)", open(path).read()), path + " includes a Lua header")
    check(set(order) == seen, "core/README.md lists what does not exist: %s" % sorted(set(order) - seen))


RAW = {
    r"\b(malloc|calloc|realloc|strdup|strndup)\s*\(": {"mem", "sniff", "html"},
    r"\b(fsync|fdatasync|syncfs|renameat2|renameat|rename)\s*\(": {"sys", "sys_path"},
    r"\b(strcpy|strcat|sprintf|gets|system|popen)\s*\(": set(),
}


def strip(text):
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.S)
    return re.sub(r'"(\\.|[^"\\])*"', '""', text)


def check_raw():
    for path in sorted(glob.glob("core/*.c") + glob.glob("lua/*.c")):
        name, text = os.path.basename(path)[:-2], strip(open(path).read())
        for pattern, allowed in RAW.items():
            found = [] if name in allowed else [m.group(1) for m in re.finditer(r"(?<![\w.>])" + pattern, text)]
            check(not found, "%s calls %s itself" % (path, ", ".join(sorted(set(found)))))


def check_docs():
    if os.path.exists("lua/doc.lua"):
        p = subprocess.run(["lua5.4", "lua/doc.lua", "--check"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        check(p.returncode == 0, "lua/doc.lua --check: " + p.stdout.decode())


def check_rows():
    for family, lacking in rows.missing(rows.covered()).items():
        if lacking and family not in rows.COMPLETE:
            print("rows: no test yet is named by " + " ".join(lacking))
        for row in rows.ids(family) if family in rows.COMPLETE else []:
            check(row not in lacking, "no test is named by " + row)


FORBIDDEN = re.compile(r"deb\.debian\.org|registry\.npmjs|pypi\.org|/work/(main|shared|\.library)|/tmp/wt/|farm-(bench|studio)")


def check_forbidden():
    names = subprocess.run(["git", "ls-files"], stdout=subprocess.PIPE).stdout.decode().split("\n")
    for name in names:
        if name and not name.startswith("tests/mail/") and name != "tests/tools/lint.py" and os.path.isfile(name):
            found = FORBIDDEN.findall(open(name, errors="replace").read())
            check(not found, "%s names a machine's paths or tools" % name)
    allowed = {"core", "lua", "scripts", "tests", "examples", "Makefile", "README.md", "LICENSE"}
    extra = sorted({n.split("/")[0] for n in names if n and not n.startswith(".")} - allowed)
    check(not extra, "the top level holds " + ", ".join(extra))


check_floors()
check_raw()
check_docs()
check_rows()
check_forbidden()
analyse.run(analyse.sources(), check, skip)
print("%d passed, %d failed, %d skipped" % (passed, failed, skipped))
sys.exit(1 if failed else 0)
