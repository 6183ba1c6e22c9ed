#!/usr/bin/env python3
"""Writes core/nfc_table.h and core/fold_table.h from the Unicode data of this Python. Run it at the top of the tree."""
import sys
import unicodedata

ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]


def rows(items, width=118):
    line, out = "       ", []
    for item in items:
        if len(line) + len(item) + 2 > width:
            out.append(line)
            line = "       "
        line += " " + item + ","
    return "\n".join(out + [line]) + "\n"


def decomposition(cp):
    d = unicodedata.decomposition(chr(cp))
    if not d or d.startswith("<"):
        return None
    return [int(x, 16) for x in d.split()]


def nfc():
    pairs, index = [], []
    for cp in ALL:
        d = decomposition(cp)
        if d and not 0xAC00 <= cp < 0xD7A4:
            pairs.append((cp, d[0], d[1] if len(d) > 1 else 0))
    for i, (cp, a, b) in enumerate(pairs):
        if b and unicodedata.normalize("NFC", chr(a) + chr(b)) == chr(cp):
            index.append(i)
    index.sort(key=lambda i: pairs[i][1:])
    classes, last = [], None
    for cp in ALL:
        c = unicodedata.combining(chr(cp))
        if c and last and last[1] == cp - 1 and last[2] == c:
            last[1] = cp
        elif c:
            last = [cp, cp, c]
            classes.append(last)
    with open("core/nfc_table.h", "w") as f:
        f.write(f"""/* Canonical decompositions, compositions and combining classes of Unicode {unicodedata.unidata_version}; Hangul is computed.
 * Made by tests/tools/unicode_tables.py; do not edit. */
#ifndef CORE_NFC_TABLE_H
#define CORE_NFC_TABLE_H

#include <stdint.h>

/* A character and the one or two (b is 0) it decomposes to, by character. */
static const struct nfc_pair {{
        uint32_t cp, a, b;
}} nfc_pairs[] = {{
{rows('{%#x,%#x,%#x}' % p for p in pairs)}}};

/* The rows of nfc_pairs that compose again, by (a, b). */
static const uint16_t nfc_composed[] = {{
{rows(str(i) for i in index)}}};

/* Ranges of characters whose combining class is not 0. */
static const struct nfc_class {{
        uint32_t first, last;
        uint8_t value;
}} nfc_classes[] = {{
{rows('{%#x,%#x,%d}' % tuple(c) for c in classes)}}};

#endif
""")


def folded(cp):
    c = chr(cp)
    for f in (c.casefold(), c.lower()):
        if len(f) == 1:
            return ord(f)
    return cp


def fold():
    ranges = []
    for cp in ALL:
        to = folded(cp)
        if to == cp:
            continue
        r = ranges[-1] if ranges else None
        if r and to - cp == r[2] and cp - r[1] in (1, 2) and (r[3] == 0 or cp - r[1] == r[3]):
            r[3] = cp - r[1]
            r[1] = cp
        else:
            ranges.append([cp, cp, to - cp, 0])
    whole = [(cp, [ord(c) for c in chr(cp).casefold()]) for cp in ALL if len(chr(cp).casefold()) > 1]
    with open("core/fold_table.h", "w") as f:
        f.write(f"""/* Case folding of Unicode {unicodedata.unidata_version}. Made by tests/tools/unicode_tables.py; do not edit. */
#ifndef CORE_FOLD_TABLE_H
#define CORE_FOLD_TABLE_H

#include <stdint.h>

/* Every step-th character from first to last folds to itself plus delta. */
static const struct fold_range {{
        uint32_t first, last;
        int32_t delta;
        uint8_t step;
}} fold_ranges[] = {{
{rows('{%#x,%#x,%d,%d}' % (a, b, d, s or 1) for a, b, d, s in ranges)}}};

/* Those that fold to more than one, where one wants that. */
static const struct fold_full {{
        uint32_t from, to[3];
}} fold_fulls[] = {{
{rows('{%#x,{%s}}' % (cp, ','.join('%#x' % c for c in to)) for cp, to in whole)}}};

#endif
""")


if __name__ == "__main__":
    nfc()
    fold()
    sys.exit(0)
