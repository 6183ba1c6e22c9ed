#!/usr/bin/env python3
"""Kills mailmill at every system call, fails every system call and every allocation, and looks what became of the mail.

usage: run.py                       a sample of t1, t1b, t3 and t4, and the named tests (what `make test` runs)
       run.py all                   all of them, whole (what `make crash` runs)
       run.py t1|t1b|t3|t4|archive [--points N] [--seed S] [--jobs J]
       run.py named [NAME ...]      the windows and rows of the design, one by one
       run.py point WORD [WORD]     one point again, with all that it said: a word for each run, as a violation prints it
"""
import argparse, collections, json, multiprocessing, os, random, re, shutil, subprocess, sys, time

import world
from world import CALLS, Plan, World

TOP = world.TOP
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/tmp"   # durability is not in question here: the machine stays up
EFFECTS = ["open", "write", "pwrite", "fsync", "fdatasync", "syncfs", "rename", "link", "unlink", "mkdir", "ftruncate", "send", "connect", "lock", "unlock", "sendmsg",
           "fork"]
ERRORS = {
    "open": "EIO ENOSPC EDQUOT EINTR EMFILE ENOMEM EACCES EROFS", "read": "EIO EINTR EAGAIN", "pread": "EIO EINTR", "write": "EIO ENOSPC EDQUOT EINTR EAGAIN",
    "pwrite": "EIO ENOSPC EDQUOT EINTR", "fsync": "EIO ENOSPC EDQUOT EINTR", "fdatasync": "EIO ENOSPC EDQUOT EINTR", "syncfs": "EIO ENOSPC EDQUOT EINTR",
    "rename": "EIO ENOSPC EDQUOT EINTR EACCES EROFS", "link": "EIO ENOSPC EDQUOT EMLINK EACCES", "unlink": "EIO EINTR EACCES EROFS",
    "mkdir": "EIO ENOSPC EDQUOT EACCES EROFS", "rmdir": "EIO EACCES", "ftruncate": "EIO EINTR", "fallocate": "EIO ENOSPC EDQUOT EINTR",
    "lock": "EIO EINTR ENOLCK", "unlock": "EIO", "fcntl": "EMFILE", "stat": "EIO EACCES ENOMEM", "mmap": "ENOMEM", "socket": "EMFILE ENOMEM EACCES",
    "connect": "EINTR ENOMEM EACCES ECONNREFUSED", "send": "EIO EINTR EAGAIN ENOMEM", "recv": "EIO EINTR ENOMEM", "sendmsg": "EINTR ENOMEM EAGAIN",
    "recvmsg": "EINTR ENOMEM", "poll": "EINTR ENOMEM", "socketpair": "EMFILE", "pipe": "EMFILE", "fork": "EAGAIN ENOMEM", "wait": "EINTR",
    "sockopt": "ENOMEM", "chmod": "EIO", "access": "EACCES EIO", "memfd": "EMFILE", "statfs": "EIO", "getrandom": "EINTR", "thread": "EAGAIN",
}
SHORTS = ["read", "pread", "write", "pwrite", "send", "recv"]
LIES = {"rename": "ENOENT", "link": "EEXIST", "unlink": "ENOENT", "mkdir": "EEXIST", "close": "EIO"}
DISK = "write+pwrite+ftruncate+fallocate+mkdir+rename+link"
STORMS = ["any:read+pread+recv:1:short:0:all", "any:write+pwrite+send:1:short:0:all", "any:read+pread+recv+write+pwrite+send:1:short:0:all",
          "any:read+pread+write+pwrite+send+recv+poll+open+fsync+fdatasync+syncfs+wait:1:fail:EINTR:half",
          "any:read+write+send+recv:1:fail:EAGAIN:half", "any:rename:1:lie:ENOENT:all", "any:link:1:lie:EEXIST:all",
          "any:rename:1:fail:EINVAL:all", "any:unlink:1:lie:ENOENT:all"]


# ---- one point ----

servers = None


def begin_process():
    global servers
    world.adopt_orphans()
    servers = world.Servers()


def settle(w, trouble_after):
    """Runs until everything is in place, at most three times. A kill is no failure: nothing may be put off because of it."""
    kills = "before" in trouble_after or "after" in trouble_after
    for attempt in range(3):
        if w.archive and not kills and deferred(w):
            code = w.run(args=("outbox", "flush"))
        elif w.archive and w.now["held"]:           # the run over the archive was finished: another would read it all again
            code = w.run(args=("--failed",))
        else:
            code = w.run()
        if w.archive and code == os.EX_USAGE and "--resume" in w.output:   # a run over an archive that was cut off is never begun again unasked
            code = w.run(args=("--resume",))
        wrong = w.done([world.HELD] if w.broken else [])
        if not wrong or w.trouble:
            break
        if not kills and any(v[2] > 0 for v in w.now["outbox"].values()):  # a forward that failed waits for its time; we do not
            w.run(args=("outbox", "flush"))
    if wrong:
        w.bad("after %s and %d further runs: %s" % (trouble_after, attempt + 1, wrong))
    if (code == 0) != (not w.broken) and not (w.now["dead"] and "dead letter" in w.output):
        w.bad("exit code %d at the end" % code)
    return attempt


def point(words, fixed=False, archive=False):
    """One world; a run under each word, then undisturbed ones. -> what was seen."""
    w = World(servers, "%s/mailmill-crash-%d" % (SCRATCH, os.getpid()), archive, any(":alloc:" in word for word in words))
    w.broken = not fixed
    fired, windows, where, codes = 0, [], "", []
    for word in words:
        code = w.run(word)
        codes.append(code)
        if w.shim.fired:
            fired += 1
            windows.append(w.window())
            w.fired_where = (list(w.shim.frames), w.shim.base)
        if code == 0 and w.done(tidy=False) and not deferred(w):
            w.bad("exit code 0, and yet: " + w.done(tidy=False))
    if not w.trouble and not (archive and not w.done(tidy=False)):   # a second run over an archive that was finished would read it all again
        settle(w, "+".join(words))
    if w.broken and not w.trouble:
        w.broken = False
        settle(w, "+".join(words) + " and mending the script")
    if w.trouble and getattr(w, "fired_where", None):
        w.shim.frames, w.shim.base = w.fired_where
        where = w.shim.where()
    return {"words": words, "fixed": fixed, "archive": archive, "fired": fired, "windows": windows, "trouble": w.trouble, "where": where, "codes": codes, "said": w.said,
            "runs": w.runs}


def deferred(w):
    """All that is missing is a forward or a command that failed, is kept, and will be tried again: the message itself is settled. A smarthost
    that could not be reached at all is no try of any mail, but the run says so."""
    return bool(w.now["outbox"]) and (all(v[2] > 0 for v in w.now["outbox"].values()) or "stays in the outbox" in w.output)


def guarded(task):
    try:
        return point(*task)
    except Exception as e:                         # the harness itself failed: that is a failure too
        import traceback
        return {"words": task[0], "fixed": task[1], "archive": task[-1] is True and len(task) > 2, "fired": 0, "windows": [], "trouble": ["the harness: " + traceback.format_exc()], "where": "", "codes": [],
                "said": [], "runs": 0}


# ---- what there is to do ----

def counted(runs=3):
    """How often each call is made in an undisturbed run (the most of a few: threads change it), and in the run after a kill."""
    begin_process()
    most, again = collections.Counter(), collections.Counter()
    for i in range(runs):
        w = World(servers, "%s/mailmill-crash-%d" % (SCRATCH, os.getpid()))
        w.run()
        if w.trouble or w.done([world.HELD]):
            sys.exit("FAIL an undisturbed run: %s %s\n%s" % (w.trouble, w.done([world.HELD]), w.output))
        for k, n in w.shim.counts.items():
            most[k] = max(most[k], n)
        w = World(servers, w.d)
        w.run("worker:rename:%d:before:both" % (5 + 10 * i))
        w.run()
        for k, n in w.shim.counts.items():
            again[k] = max(again[k], n)
        shutil.rmtree(w.d, ignore_errors=True)
    return most, again


def in_child(f, *args):
    """The counting needs servers, thus threads; the pool is forked from a process that has none."""
    with multiprocessing.get_context("fork").Pool(1) as p:
        return p.apply(f, args)


def t1_tasks(most, again, rng, n):
    out = []
    for (role, call), count in sorted(most.items()):
        for k in range(1, count + 1):
            for when in ("before", "after") if call in EFFECTS else ("before",):
                for victim in ("self", "both") if role == "worker" else ("self",):
                    out.append((["%s:%s:%d:%s:%s" % (role, call, k, when, victim)], False))
    return rng.sample(out, n) if n and n < len(out) else out


def archive_tasks(most, again, rng, n):
    """The kills of t1, over an mbox."""
    out = [(words, True, True) for words, _ in t1_tasks(most, again, rng, 0) if words[0].endswith(":both") or words[0].startswith("supervisor")]
    return rng.sample(out, n) if n and n < len(out) else out


def draw(counts, rng):
    (role, call), = rng.choices(list(counts), [c ** 0.6 for c in counts.values()])
    return "%s:%s:%d:%s:%s" % (role, call, rng.randint(1, counts[role, call]), rng.choice(("before", "after")) if call in EFFECTS else "before",
                               rng.choice(("self", "both")) if role == "worker" else "self")


def t1b_tasks(most, again, rng, n):
    return [([draw(most, rng), draw(again, rng)], False) for _ in range(n or 3400)]


def t3_tasks(most, again, rng, n):
    out, names = [], {}
    for (role, call), count in sorted(most.items()):
        names.setdefault(call, 0)
        for k in range(1, count + 1):
            word = "%s:%s:%d:" % (role, call, k)
            if call != "unlock" or k % 16 == 1:                # each makes SQLite try for half a minute
                out += [word + "fail:" + e for e in ERRORS.get(call, "").split()]
            if call in SHORTS:
                out.append(word + "short")
            if call in LIES:
                out.append(word + "lie:" + LIES[call])
    writes = sum(most["worker", c] for c in DISK.split("+"))
    syncs = sum(most["worker", c] for c in ("fsync", "fdatasync", "syncfs"))
    for e in ("ENOSPC", "EDQUOT", "EIO", "EROFS"):
        out += ["worker:%s:%d:fail:%s:all" % (DISK, k, e) for k in range(1, writes + 1, 2)]
    out += ["worker:fsync+fdatasync+syncfs:%d:fail:EIO:all" % k for k in range(1, syncs + 1)]
    out += ["any:open+socket+pipe+memfd:%d:fail:EMFILE:all" % k for k in range(1, most["worker", "open"], 2)]
    tasks = [([o], i % 4 != 0, i % 4 == 3) for i, o in enumerate(out)]     # of four, one with a message that is held, one over an archive
    if n and n < len(tasks):
        tasks = rng.sample(tasks, n)
    return tasks + [([o], fixed, archive) for o in STORMS for fixed, archive in ((True, False), (False, False), (True, True))]


def allocations(archive):
    """role -> for each place that asks for memory in an undisturbed run, the numbers of its allocations."""
    begin_process()
    w = World(servers, "%s/mailmill-crash-%d" % (SCRATCH, os.getpid()), archive, True)
    w.broken = False
    w.run("any:alloc:1:count")
    if w.trouble or w.done():
        sys.exit("FAIL an undisturbed run: %s %s\n%s" % (w.trouble, w.done(), w.output))
    places = {}
    for role, sites in w.shim.sites().items():
        for k, site in enumerate(sites, 1):
            places.setdefault((role, site), []).append(k)
    shutil.rmtree(w.d, ignore_errors=True)
    return places


def t4_tasks(most, again, rng, n):
    """Of each place that asks for memory one allocation, any: it alone fails, or it and all after it; over the account, by TLS, or over an mbox.
    Half of a sample lies behind the start, in which two of three places are."""
    out, late = [], []
    for archive in (False, True):
        places = sorted(in_child(allocations, archive).items(), key=lambda kv: kv[1])
        middle = max(n for _, numbers in places for n in numbers) / 2
        for (role, site), numbers in places:
            for more in ("", ":all"):
                number = rng.choice(numbers)
                out.append((["%s:alloc:%d:fail:ENOMEM%s" % (role, number, more)], archive or rng.random() < 0.7, archive))
                late += out[-1:] if number > middle else []
    return rng.sample(out, n // 2) + rng.sample(late, min(n - n // 2, len(late))) if n and n < len(out) else out


TASKS = {"t1": t1_tasks, "t1b": t1b_tasks, "t3": t3_tasks, "t4": t4_tasks, "archive": archive_tasks}


# ---- running and reporting ----

def again_command(r):
    return "python3 tests/crash/run.py point%s%s %s" % (" --fixed" * r["fixed"], " --archive" * r["archive"], " ".join(r["words"]))


def short_form(r):
    """Violations that are alike but for their numbers are told once."""
    return re.sub(r"\d+", "N", " ".join(r["trouble"]))[:120] + "|" + r["where"][:200]


def run_all(name, tasks, jobs):
    """-> (fired as often as asked, violations)"""
    began, told, windows = time.monotonic(), collections.Counter(), collections.Counter()
    good = bad = missed = 0
    log = open(os.path.join(os.path.dirname(world.shim_path()), name + ".jsonl"), "w")
    with multiprocessing.get_context("fork").Pool(jobs, begin_process) as pool:
        for r in pool.imap_unordered(guarded, tasks, chunksize=4):
            log.write(json.dumps({k: r[k] for k in ("words", "fixed", "fired", "windows", "codes", "runs", "trouble", "where")}) + "\n")
            if r["trouble"]:
                bad += 1
                form = short_form(r)
                told[form] += 1
                if told[form] == 1:
                    print("FAIL %s %s\n  %s\n  at %s\n  again: %s" % (name, " ".join(r["words"]), "\n  ".join(r["trouble"])[:1500], r["where"], again_command(r)),
                          flush=True)
            elif r["fired"] < len(r["words"]):
                missed += 1
            else:
                good += 1
            windows.update(r["windows"][:1])
    for form, n in told.most_common():
        if n > 1:
            print("# %d times: %s" % (n, form), flush=True)
    print("# %s: %d points reached, %d not reached (threads take turns), %d violations, %.0f s; ends fell into %s" %
          (name, good + bad, missed, bad, time.monotonic() - began, " ".join("%s:%d" % kv for kv in sorted(windows.items()))), flush=True)
    return good, bad


def one_named(name):
    import named
    return named.one(name)


def all_named(jobs, names=()):
    import named
    names = names or [t.__name__ for t in named.TESTS]
    with multiprocessing.get_context("fork").Pool(jobs, begin_process) as pool:
        results = pool.map(one_named, names, chunksize=1)
    return sum(g for g, _ in results), sum(b for _, b in results)


def finish(good, bad):
    for d in os.listdir(SCRATCH):
        pid = re.fullmatch(r"mailmill-crash-(\d+)", d)
        if pid and (int(pid.group(1)) == os.getpid() or not os.path.exists("/proc/" + pid.group(1))):
            shutil.rmtree(os.path.join(SCRATCH, d), ignore_errors=True)
    print("%d passed, %d failed" % (good, bad))
    sys.exit(bool(bad or not good))


def build_shim():
    so = world.shim_path()
    source = TOP + "/tests/crash/shim.c"
    if not os.path.exists(so) or os.path.getmtime(so) < os.path.getmtime(source):
        os.makedirs(os.path.dirname(so), exist_ok=True)
        part = "%s.%d" % (so, os.getpid())
        subprocess.run([os.environ.get("CC", "gcc"), "-O2", "-g", "-Wall", "-Wextra", "-Wno-unused-parameter", "-D_GNU_SOURCE", "-shared", "-fPIC", "-ftls-model=initial-exec", "-o", part,
                        source, "-ldl"], check=True)
        os.rename(part, so)


def show_point(words, fixed, archive):
    begin_process()
    r = point(words, fixed, archive)
    for i, s in enumerate(r["said"], 1):
        print("-- run %d%s\n%s" % (i, ", exit code %s" % r["codes"][i - 1] if i <= len(r["codes"]) else "", s))
    print("fired %d of %d; windows %s\n%s\n%s" % (r["fired"], len(words), r["windows"], r["where"], "\n".join(r["trouble"]) or "all is well"))
    sys.exit(bool(r["trouble"]))


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("what", nargs="?", default="sample")
    p.add_argument("words", nargs="*")
    p.add_argument("--points", type=int, default=0)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    p.add_argument("--fixed", action="store_true")
    p.add_argument("--archive", action="store_true")
    o = p.parse_intermixed_args()
    build_shim()
    if o.what == "point":
        show_point(o.words, o.fixed, o.archive)
    if o.what == "named":
        finish(*all_named(o.jobs, o.words))
    seed = o.seed or random.randrange(1, 10**6)
    sizes = {"sample": {"t1": 60, "t1b": 40, "t3": 120, "t4": 80, "archive": 20}, "all": dict.fromkeys(TASKS, 0)}.get(o.what, {o.what: o.points})
    most, again = in_child(counted)
    print("# seed %d; an undisturbed run makes %d calls: %s" % (seed, sum(most.values()), " ".join("%s %d" % (c, sum(n for (r, d), n in most.items() if d == c))
          for c in CALLS if any(d == c for r, d in most))), flush=True)
    good = bad = 0
    for name in sizes:
        g, b = run_all(name, TASKS[name](most, again, random.Random(seed), sizes[name]), o.jobs)
        good, bad = good + g, bad + b
    if len(sizes) > 1:
        g, b = all_named(o.jobs)
        good, bad = good + g, bad + b
    finish(good, bad)


if __name__ == "__main__":
    sys.modules["run"] = sys.modules["__main__"]      # named.py asks for it
    main()
