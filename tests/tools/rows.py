#!/usr/bin/env python3
"""Which hostile inputs have a named test. usage: rows.py; lint.py asks it too.

A row (M04: an ambiguous boundary; W12: a window of the commit protocol; tests/README.md says where they come from) is covered when the name
of a test begins with its id: TEST(M04_…) in C, a case called "M04 …" or a function M04_… in Lua and Python; F06_F07_… counts for both.
A row without one is printed, and is a failure in the families that are complete."""
import os, re, sys

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FAMILIES = {  # letter: how many rows
    "P": 35, "T": 12, "M": 23, "H": 15, "F": 26, "S": 12, "B": 8, "D": 12, "L": 10, "C": 8, "W": 20,
}
COMPLETE = "MFHSBLPTWDC"   # letters of the families of which no row may lack its test
LATER = {"C04": "comes with OAuth"}

IDS = r"((?:[A-Z]\d{1,2}[a-z]?[_ ])+)"
NAMES = {
    ".c": [r"^TEST\(" + IDS],
    ".lua": [r"""["']""" + IDS, r"function \w*\.?" + IDS],
    ".py": [r"""["']""" + IDS, r"def " + IDS],
}


def ids(family):
    return ["%s%0*d" % (family, 1 if family == "W" else 2, n) for n in range(1, FAMILIES[family] + 1)]


def covered():
    """id -> files that have a test named by it."""
    found = {}
    for folder, _, files in os.walk(TESTS):
        for name in files:
            path = os.path.join(folder, name)
            patterns = NAMES.get(os.path.splitext(name)[1], [])
            if not patterns or os.path.dirname(path) == TESTS + "/tools":
                continue
            text = open(path, errors="replace").read()
            for pattern in patterns:
                for run in re.findall(pattern, text, re.M):
                    for row in re.split("[_ ]", run.strip("_ ")):
                        found.setdefault(row, set()).add(os.path.relpath(path, TESTS))
    return found


def missing(found):
    """family -> ids without a test."""
    return {f: [i for i in ids(f) if i not in found and i not in LATER] for f in FAMILIES}


def main():
    bad = 0
    for family, rows in missing(covered()).items():
        bad += len(rows) if family in COMPLETE else 0
        if rows:
            print("%s%s: no test is named by %s" % ("FAIL " if family in COMPLETE else "", family, " ".join(rows)))
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
