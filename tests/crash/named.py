"""The windows in which a kill can fall, and what a bad disk can do, one test each; the names are those of the design (tests/README.md)."""
import glob, os, re, shutil, subprocess, time, traceback

import run
import world
from world import MAIL, World

passed = failed = 0


def check(ok, what):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    if not ok:
        print("FAIL " + what, flush=True)
    return ok


def fresh(name=""):
    return World(run.servers, "%s/mailmill-crash-%d" % (run.SCRATCH, os.getpid()))


def sweep(words, window, least=1):
    """Each of these kills ends well, and so many of them fall into the window."""
    fell = 0
    for word in words:
        r = run.point([word])
        if r["trouble"]:
            check(False, "%s: %s; again: %s" % (word, "; ".join(r["trouble"]), run.again_command(r)))
        fell += window in r["windows"]
    check(fell >= least, "%d of %d kills fell into %s, not %d" % (fell, len(words), window, least))


def kills(call, numbers, when="before", victim="both"):
    return ["worker:%s:%d:%s:%s" % (call, k, when, victim) for k in numbers]


def W4_fetched_and_not_yet_written():
    """Messages have been RETRieved, nothing is staged: fetched again."""
    sweep(kills("close", range(12, 18)) + kills("fcntl", (3, 4, 5)) + kills("memfd", [1]), "W4")


def W5_staged_and_not_committed():
    """Outputs lie under hidden names: removed, and fetched again."""
    sweep(kills("write", range(10, 70, 10)) + kills("fdatasync", range(10, 13)) + kills("syncfs", [2, 3], "after"), "W5", 3)


def W6_committed_and_not_yet_named():
    """The transaction stands, the names do not: rolled forward."""
    sweep(kills("rename", range(1, 41, 4)) + kills("rename", range(2, 41, 9), "after"), "W6", 5)


def W7_settled_and_no_DELE_sent():
    """Everything has its name, the server has it all still: not fetched again, deleted."""
    sweep(kills("fsync", range(35, 38), "after") + kills("send", (6, 7, 8)), "W7")


def W8_DELE_sent_and_no_QUIT():
    """The server forgets a DELE without QUIT."""
    sweep(kills("send", (6, 7), "after") + kills("send", (7, 8, 9)), "W8")


def W9_answer_to_DELE_lost():
    """As W8, and the answers were on their way when the client died."""
    sweep(kills("poll", (9, 10, 11)) + kills("read", range(28, 36)) + kills("send", (7, 8), "after"), "W8")


def W10_QUIT_sent_answer_lost():
    """The server has deleted, and we never heard of it: the next list says so."""
    sweep(kills("send", (7, 8, 9), "after") + kills("read", range(31, 40)) + kills("poll", (10, 11, 12)), "W10")


def supervisor_dies_while_a_command_is_asked_for():
    """Its socket closes before the kernel kills the worker: the worker must not take that for a failure of the command, and put it off."""
    for word in ["supervisor:%s:before:self" % at for at in ("recvmsg:2", "stat:2", "access:2", "pipe:1", "fork:2", "poll:3", "send:1")]:
        r = run.point([word])
        check(not r["trouble"], "%s: %s; again: %s" % (word, "; ".join(r["trouble"]), run.again_command(r)))


def at_most_once_and_the_run_dies():
    """A mail that may be sent only once, and the one try died: a dead letter, of which the next run tells, once."""
    told = 0
    for word in kills("send", range(9, 18), "after"):
        r = run.point([word])
        check(not r["trouble"], "%s: %s; again: %s" % (word, "; ".join(r["trouble"]), run.again_command(r)))
        times = sum("a run died while it sent this" in said for said in r["said"])
        check(times <= 1, "%s: told %d times" % (word, times))
        told += times
    check(told >= 2, "%d of the kills fell into the only try" % told)


def lock_of_an_mbox_that_stays():
    """The removal of box.lock fails: the run says so, its own later appends go on, and it is gone at the end."""
    for k in range(1, 21):
        r = run.point(["worker:unlink:%d:fail:EIO" % k], True)
        slow = any("another program holds the lock" in said for said in r["said"])
        check(not r["trouble"] and not slow, "unlink %d: %s; waited for its own lock: %s; again: %s" % (k, r["trouble"], slow, run.again_command(r)))


def archive_that_cannot_be_read_stops_there():
    """EIO while the script looks at message 7, which lies in the archive: --resume goes on with it, not behind it."""
    for k in range(6, 18):
        r = run.point(["worker:pread:%d:fail:EIO" % k], True, True)
        check(r["fired"] and not r["trouble"], "pread %d: %s; again: %s" % (k, "; ".join(r["trouble"]), run.again_command(r)))


GATHERED = """mail.on_message(function(m) log.warn("asked " .. m.subject) m:deliver "All" end)
"""


def worker_dies_while_it_gathers():
    """A large message is parsed while it is read out of an archive, before any script hears of it. A worker that dies there is started again, reads it
    without parsing, and holds it; the others are delivered, each once, and it as well when it is asked for."""
    d = "%s/mailmill-gather-%d" % (run.SCRATCH, os.getpid())
    os.makedirs(d)
    try:
        with open(d + "/s.lua", "w") as f:
            f.write(GATHERED)
        with open(d + "/in.mbox", "w") as f:
            for subject, lines in (("one", 1), ("two", 50000), ("three", 1)):
                f.write("From a@x Mon Nov 23 05:41:00 2026\nFrom: a@x\nSubject: %s\n\n%s\n" % (subject, "sixty bytes of text, so that some of them make a large message\n" * lines))
        shim = world.Shim(d + "/shim")
        env = dict(os.environ, LD_PRELOAD=world.shim_path(), MAILMILL_SHIM=shim.path)

        def go(name, word, *args):
            shim.arm(world.Plan(word))
            r = subprocess.run([world.BINARY, *args, d + "/s.lua", d + "/in.mbox", "--state", d + "/state" + name, "--root", d + "/root" + name],
                               env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
            shim.read()
            return r.returncode, r.stdout.decode()

        go("-count", world.COUNT)
        fell = 0
        for k in range(2, shim.counts["worker", "pread"] + 1, 2):
            code, out = go(str(k), "worker:pread:%d:before" % k)
            if not shim.fired or "starting again" not in out:
                continue
            fell += "message 2: the worker died of signal 9 (Killed) while reading it: held" in out
            check(code == (75 if "held" in out else 0) and "asked two" not in out.partition("afresh")[2], "pread %d: exit code %d: %s" % (k, code, out))
            if code:
                code, out = go(str(k), world.COUNT, "--failed")
            got = sorted(re.search(rb"Subject: (.*)", open(f, "rb").read()).group(1).decode() for f in glob.glob("%s/root%d/All/*/*" % (d, k)))
            check(code == 0 and got == ["one", "three", "two"], "pread %d: exit code %d, delivered %s: %s" % (k, code, got, out))
        check(fell > 0, "no kill fell while the message was gathered")
    finally:
        shutil.rmtree(d, ignore_errors=True)


TWINS = """mail.on_message(function(m) m:deliver("box", { format = "mbox" }) end)
"""


def W6_twins_in_one_mbox():
    """An archive holds the same message many times, all of them go into one mbox, and the run is killed between two appends: as many come out."""
    d, count = "%s/mailmill-twins-%d" % (run.SCRATCH, os.getpid()), 12
    twin = b"From a@x Mon Nov 23 05:41:00 2026\nFrom: a@x\nSubject: again\n\ntext\n\n"
    os.makedirs(d)
    try:
        with open(d + "/s.lua", "w") as f:
            f.write(TWINS)
        with open(d + "/in.mbox", "wb") as f:
            f.write(twin * count)
        shim = world.Shim(d + "/shim")
        env = dict(os.environ, LD_PRELOAD=world.shim_path(), MAILMILL_SHIM=shim.path)

        def go(name, word, *args):
            shim.arm(world.Plan(word))
            r = subprocess.run([world.BINARY, "run", *args, d + "/s.lua", d + "/in.mbox", "--state", d + "/state" + name, "--root", d + "/root" + name],
                               env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
            shim.read()
            return r.returncode, r.stdout.decode()

        def box(name):
            with open(d + "/root" + name + "/box", "rb") as f:
                return f.read()

        code, out = go("-count", world.COUNT)
        check(code == 0 and box("-count") == twin * count, "undisturbed: exit code %d: %s" % (code, out))
        calls, between = shim.counts, 0
        for call, when in (("rename", "before"), ("fsync", "before"), ("fsync", "after"), ("unlink", "before")):
            for k in range(1, calls["worker", call] + 1, 2):
                name = "-%s-%s-%d" % (call, when, k)
                go(name, "worker:%s:%d:%s:both" % (call, k, when))
                if not shim.fired or not os.path.exists(d + "/root" + name + "/box"):
                    continue
                before = box(name).count(b"From a@x")
                between += 0 < before < count
                if before == count:     # perhaps the run had reached its end
                    continue
                code, out = go(name, world.COUNT, "--resume")
                got = box(name)
                check(code == 0 and got == twin * count, "%s: exit code %d, %d copies, not %d, of which %d stood there: %s" %
                      (name[1:], code, got.count(b"From a@x"), count, before, out))
        check(between >= 5, "%d kills fell between two appends" % between)
    finally:
        shutil.rmtree(d, ignore_errors=True)


def lock_that_SQLite_does_not_get_back():
    """SQLite tries for 10 s to get a lock that stays: once in a run, not at each further question to the state."""
    w = fresh()
    w.broken = False
    began = time.monotonic()
    code = w.run("worker:unlock:81:fail:EIO")
    check(code != 0 or not w.done(), "exit code 0, and yet: " + w.done())
    check(time.monotonic() - began < 25, "the run took %.0f s" % (time.monotonic() - began))
    if not w.trouble:
        run.settle(w, "unlock")
    check(not w.trouble, str(w.trouble))


def W17_disk_full():
    """A disk that is full from the n-th write on, or whose fsync fails: fetching stops, nothing is deleted of what is not whole here."""
    for word in ["worker:%s:%d:fail:%s:all" % (run.DISK, k, e) for k in (20, 40, 60, 100, 160) for e in ("ENOSPC", "EDQUOT")] + \
            ["worker:fsync+fdatasync+syncfs:%d:fail:EIO:all" % k for k in (4, 6, 8, 12, 24)]:
        w = fresh()
        w.broken = False
        code = w.run(word)
        check(w.shim.fired and code != 0, "%s: fired %d, exit code %d" % (word, w.shim.fired, code))
        check(len(w.drop.left) + len(set(w.delivered(w.found))) >= len(MAIL), word + ": neither here nor on the server")
        if not w.trouble:
            run.settle(w, word)
        check(not w.trouble, "%s: %s" % (word, w.trouble))


def rows(words):
    """Each of these failures, with and without a message that is held, ends well."""
    for word in words:
        for fixed in (True, False):
            r = run.point([word], fixed)
            check(r["fired"] and not r["trouble"], "%s: fired %d: %s; again: %s" % (word, r["fired"], "; ".join(r["trouble"]), run.again_command(r)))


def B08_archive_cut_off_and_resumed():
    """A run over an archive is killed half-way, and while it sends: --resume goes on, and nothing is done twice."""
    resumed = 0
    for word in kills("rename", range(2, 45, 6)) + kills("fdatasync", (12, 14, 16)) + kills("send", (1, 4, 7), "after") + kills("sendmsg", [1]):
        r = run.point([word], True, True)
        check(r["fired"] and not r["trouble"], "%s: fired %d: %s; again: %s" % (word, r["fired"], "; ".join(r["trouble"]), run.again_command(r)))
        resumed += any("--resume" in said for said in r["said"])
    check(resumed >= 5, "%d of the runs were to be resumed" % resumed)


def D01_no_room():
    """ENOSPC and EDQUOT at a write, a sync, a link, a rename, a write of the journal: held, nothing deleted, taken up when there is room."""
    rows(["worker:%s:fail:%s" % (at, e) for e in ("ENOSPC", "EDQUOT") for at in
          ("write:12", "write:40", "fsync:8", "fdatasync:2", "syncfs:1", "rename:9", "fallocate:2", "pwrite:60", "pwrite:100", "mkdir:12")])
    rows(["worker:rename:3:fail:EINVAL:all"])     # a file system without RENAME_NOREPLACE: link and unlink


def D02_failed_sync_is_not_repeated():
    """EIO from a sync of outputs once, then success: the batch is discarded and fetched again, the same file never synced again."""
    failed = 0
    for call in ("syncfs", "fdatasync", "fsync"):
        for k in range(1, 40):
            w = fresh()
            w.broken = False
            code = w.run("worker:%s:%d:fail:EIO" % (call, k))
            if not w.shim.fired:
                break
            events, place = w.shim.events(), w.shim.where()
            if "staging_sync" not in place.split(" < "):
                continue
            failed += 1
            at = next(i for i, e in enumerate(events) if e[2])
            fd, closed = events[at][4], False
            again = named = 0
            for role, c, error, tid, n in events[at + 1:]:
                closed |= c == "close" and n == fd
                again += c == call and n == fd and not closed
                named += c == "rename"
            check(not again and not named, "%s %d: after EIO the file was synced %d times, %d names given, in %s" % (call, k, again, named, place))
            check(code != 0 and not w.now["marks"] and len(w.drop.left) == len(MAIL), "%s %d: exit code %d, marks %s" % (call, k, code, w.now["marks"]))
            if not w.trouble:
                run.settle(w, "EIO")
            check(not w.trouble, "%s %d: %s" % (call, k, w.trouble))
    check(failed >= 2, "%d syncs of outputs failed" % failed)


def D03_short_writes_and_interruptions():
    """One byte a call, every other call interrupted, EAGAIN where a file should not say so: the right bytes everywhere."""
    for word in run.STORMS[:5]:
        w = fresh()
        w.broken = False
        w.run(word)
        check(w.shim.fired > 20, "%s: fired %d times" % (word, w.shim.fired))
        if not w.trouble:
            run.settle(w, word)
        check(not w.trouble, "%s: %s" % (word, w.trouble))


def D04_done_and_reported_as_failed():
    """A rename, or a link, that was done though the answer says no (NFS): the inode tells, and the run ends well at once."""
    for word in ("worker:rename:1:lie:ENOENT:all", "worker:rename:1:lie:EEXIST:all", "worker:rename:1:lie:EIO:all"):
        w = fresh()
        w.broken = False
        code = w.run(word)
        check(w.shim.fired >= 30, "%s: fired %d times" % (word, w.shim.fired))
        check(code == 0 and not w.done() and not w.trouble, "%s: exit code %d; %s; %s" % (word, code, w.done(), w.trouble))


def L08_script_changed_after_a_crash():
    """What was committed is carried out though the script would now decide otherwise; what was held is decided by the new script."""
    new = 0
    for k in (2, 12, 25):
        w = fresh()
        w.run("worker:rename:%d:before:both" % k)
        committed = {n for n, s in w.now["marks"].items() if s == 1}
        check(w.window() == "W6" and committed, "rename %d: not between commitment and names" % k)
        w.broken, w.folder = False, "Other"
        code = w.run()
        folders = {}
        for path, data in w.found.items():
            if path.startswith(("All/", "Other/")):
                folders[world.KEPT.get(world.sha(data))] = path.split("/")[0]
        check(code == 0 and not w.trouble and not w.done(), "rename %d: exit code %d; %s; %s" % (k, code, w.trouble, w.done()))
        check(folders == {n: "All" if n in committed else "Other" for n in MAIL}, "rename %d: committed %s, folders %s" % (k, sorted(committed), folders))
        new += sum(f == "Other" for f in folders.values())
    check(new >= 3, "the held message went to the folder of the new script %d times" % new)


TESTS = [W4_fetched_and_not_yet_written, W5_staged_and_not_committed, W6_committed_and_not_yet_named, W7_settled_and_no_DELE_sent, W8_DELE_sent_and_no_QUIT,
         W9_answer_to_DELE_lost, W10_QUIT_sent_answer_lost, supervisor_dies_while_a_command_is_asked_for,
         at_most_once_and_the_run_dies,
         lock_of_an_mbox_that_stays, archive_that_cannot_be_read_stops_there, worker_dies_while_it_gathers, W6_twins_in_one_mbox, lock_that_SQLite_does_not_get_back,
         W17_disk_full, B08_archive_cut_off_and_resumed, D01_no_room, D02_failed_sync_is_not_repeated, D03_short_writes_and_interruptions,
         D04_done_and_reported_as_failed, L08_script_changed_after_a_crash]


def one(name):
    """-> (passed, failed)"""
    began, before = time.monotonic(), (passed, failed)
    try:
        next(t for t in TESTS if t.__name__ == name)()
    except Exception:
        check(False, "%s raised: %s" % (name, traceback.format_exc()))
    print("# %s %.1f s" % (name, time.monotonic() - began), flush=True)
    return passed - before[0], failed - before[1]
