"""Measuring whole processes: wall time, CPU (user + system, children waited for included) and peak memory (of the largest process), from wait4."""
import mmap, os, signal, statistics, subprocess, time

TIME = "/usr/bin/time"
WARM_MIB = 3072      # more memory than any contestant touches, but for what it maps
MAP_POPULATE = 0x8000
FIRST = []           # before each command: realtime() sets it


class Sample:
    def __init__(self, wall, cpu, rss, status, log):
        self.wall, self.cpu, self.rss, self.status, self.log = wall, cpu, rss, status, log
        self.right = ""          # what the check said of the outcome: "20000/20000"


def realtime():
    """From now on contestants run before whatever else runs on this machine (as root)."""
    FIRST[:] = ["chrt", "-f", "5"]


def warm():
    """Touches memory and gives it back. The host of a virtual machine takes what nobody uses, and who touches it again waits for it: 1 GiB took
    0.4 s or 2.7 s of CPU, whoever asked. So each contestant finds memory that has just been used."""
    with open("/proc/meminfo") as f:
        free = next(int(line.split()[1]) for line in f if line.startswith("MemFree:")) >> 10
    mmap.mmap(-1, max(1, min(WARM_MIB, free // 2)) << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_POPULATE).close()


def once(cmd, log, env=None, timeout=600):
    """Runs cmd to its end, output into the file log. rss in MiB; status "timeout" when it had to be stopped."""
    # time(1) stands between: a child's peak memory starts at its parent's, and this Python is large
    peak = log + ".rss"
    full = FIRST + [TIME, "-q", "-o", peak, "-f", "%M"] + cmd
    late = []
    with open(log, "wb") as f:
        start = time.monotonic()
        p = subprocess.Popen(full, stdin=subprocess.DEVNULL, stdout=f, stderr=f, env=dict(os.environ, **(env or {})), start_new_session=True)

        def stop(*_):
            late.append(True)
            os.killpg(p.pid, signal.SIGKILL)

        # a blocking wait4 with an alarm: polling would add to the wall time
        old = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, timeout)
        try:
            _, st, use = os.wait4(p.pid, 0)
            wall = time.monotonic() - start
        except BaseException:
            stop()
            p.wait()
            raise
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, old)
        p.returncode = os.waitstatus_to_exitcode(st)
    try:
        with open(peak) as f:
            rss = int(f.read().split()[-1]) / 1024
    except (OSError, ValueError, IndexError):
        rss = 0.0
    return Sample(wall, use.ru_utime + use.ru_stime, rss, "timeout" if late else p.returncode, log)


class Runner:
    """One contestant: name; prepare() makes its place ready and answers (command, environment); check(log) says what came out right.
    slow: it runs in the first rounds only."""
    def __init__(self, name, prepare, check=None, slow=False):
        self.name, self.prepare, self.check, self.slow = name, prepare, check, slow


def compete(runners, rounds, log_dir, slow=20.0, timeout=600, say=print, slow_rounds=1):
    """Every runner once a round, in turn, the order reversed each round; -> {name: [Sample]}.
    Rounds end early when one of them has cost more than slow * len(runners) seconds: long runs are steady."""
    runners = [r for r in runners if slow_rounds or not r.slow]
    samples = {r.name: [] for r in runners}
    for k in range(rounds):
        now = [r for r in runners if not r.slow or k < slow_rounds]
        for r in (now if k % 2 == 0 else now[::-1]):
            cmd, env = r.prepare()
            os.sync()
            warm()
            s = once(cmd, os.path.join(log_dir, r.name.replace(" ", "-") + ".log"), env, timeout)
            s.right = r.check(s.log) if r.check else ""
            samples[r.name].append(s)
            say("  %-24s %8.2f s wall %8.2f s CPU %8.1f MiB  exit %s  %s" % (r.name, s.wall, s.cpu, s.rss, s.status, s.right))
        if sum(samples[r.name][-1].wall for r in now if not r.slow) > slow * len(now):
            break
    return samples


def median(samples, what):
    return statistics.median(getattr(s, what) for s in samples)


def ratio(ours, theirs, what):
    """The median of the ratios of each round, and the smallest and the largest; None where a side failed."""
    if any(s.status != 0 for s in ours + theirs):
        return None
    r = [getattr(a, what) / max(getattr(b, what), 1e-6) for a, b in zip(ours, theirs)]
    return statistics.median(r), min(r), max(r)
