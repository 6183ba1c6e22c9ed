#!/usr/bin/env python3
"""T2: the power goes. The world of world.py lies on a file system in a file (ext4, xfs, btrfs, over a loop device); at every command that the POP3
server gets, before and after it takes a DELE's message out of the mailbox, and every few milliseconds between, that file is cloned in one
step. Each clone, which is what a disk would hold had the power gone then, is mounted in its place, with the server as it was at that
moment, and mailmill runs again: nothing that is gone from the server may be missing, nothing may be there twice or in part.

usage: power.py [--images N] [--fs ext4,xfs,btrfs] [--seed S]    (as root, with mkfs.ext4, mkfs.xfs, mkfs.btrfs; what is missing is skipped)"""
import argparse, fcntl, os, random, shutil, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import world
from run import build_shim, deferred, settle
from world import Maildrop, Servers, Shim, Sink, World

FICLONE = 0x40049409
MAKE = {"ext4": (["mkfs.ext4", "-q", "-F"], 96), "xfs": (["mkfs.xfs", "-q", "-f"], 320), "btrfs": (["mkfs.btrfs", "-q", "-f"], 160)}   # and MiB


def sh(*args):
    subprocess.run(args, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def clone(source, target):
    """One step: writes that come while it is made are in it whole or not at all."""
    with open(source, "rb") as f, open(target, "wb") as t:
        fcntl.ioctl(t, FICLONE, f.fileno())


class Disk:
    """An image of a file system below dir, which itself is on one that can clone, and where it is mounted."""
    def __init__(self, base, fs):
        self.fs, self.image, self.at = fs, "%s/%s.img" % (base.outer, fs), "%s/at" % base.dir
        os.makedirs(self.at, exist_ok=True)
        with open(self.image, "wb") as f:
            f.truncate(MAKE[fs][1] << 20)
        sh(*MAKE[fs][0], self.image)

    def mount(self, image=None):
        sh("mount", "-o", "loop" + (",nouuid" if self.fs == "xfs" else ""), image or self.image, self.at)

    def umount(self):
        for _ in range(100):
            if subprocess.run(["umount", self.at], stderr=subprocess.DEVNULL).returncode == 0:
                return
            time.sleep(0.05)
        sh("umount", "-l", self.at)


class Base:
    """A file system that can clone files, in memory."""
    def __enter__(self):
        self.dir = tempfile.mkdtemp(prefix="mailmill-power-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
        self.outer = self.dir + "/outer"
        os.mkdir(self.outer)
        with open(self.dir + "/outer.img", "wb") as f:
            f.truncate(6 << 30)
        sh("mkfs.xfs", "-q", "-f", "-m", "reflink=1", self.dir + "/outer.img")
        sh("mount", "-o", "loop", self.dir + "/outer.img", self.outer)
        return self

    def __exit__(self, *_):
        subprocess.run(["umount", "-l", self.dir + "/at"], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", self.outer], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.dir, ignore_errors=True)


class Watch:
    """Takes the pictures: of the disk, and of what the servers and the command had at that moment."""
    def __init__(self, base, disk):
        self.base, self.disk, self.lock, self.taken, self.w = base, disk, threading.RLock(), [], None

    def picture(self, why):
        with self.lock:
            if self.w is None:
                return
            image = "%s/%s-%d.img" % (self.base.outer, self.disk.fs, len(self.taken))
            ran = open(self.w.commands).read() if os.path.exists(self.w.commands) else ""
            left, mails = dict(self.w.drop.left), list(self.w.sink.mails)   # before the clone: the server has taken no more than this
            clone(self.disk.image, image)
            self.taken.append((why, image, left, mails, ran))

    def between(self):
        while self.w is not None:
            self.picture("between")
            time.sleep(0.004)


class Events(list):
    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def append(self, event):
        self.watch.picture("at %s %s" % event)
        super().append(event)


class Left(dict):
    watch = None

    def pop(self, n, *otherwise):
        out = super().pop(n, *otherwise)
        self.watch.picture("after the server took out %d" % n)
        return out


class Restored(World):
    """The world after the power came back."""
    def __init__(self, servers, live, left, mails):
        self.servers, self.d, self.archive, self.tls = servers, live.d, False, False
        self.root, self.state, self.script, self.commands = live.root, live.state, live.script, live.commands
        servers.quiet()
        self.drop, self.sink = servers.maildrop, servers.sink = Maildrop(), Sink()
        self.drop.left, self.sink.mails = dict(left), list(mails)
        os.makedirs(self.d, mode=0o700, exist_ok=True)
        self.write("pw", "secret\n")
        self.shim = Shim(self.d + "/shim")
        self.broken, self.folder, self.runs, self.trouble, self.said, self.held_seen = True, "All", 1, [], [], False


def life(base, servers, disk):
    """One undisturbed run on the disk. -> (the world, pictures)"""
    watch = Watch(base, disk)
    disk.mount()
    try:
        w = World(servers, disk.at + "/w")
        w.commands = base.dir + "/commands"         # the outer world does not lose power
        if os.path.exists(w.commands):
            os.unlink(w.commands)
        w.drop.events, w.drop.left = Events(watch), Left(w.drop.left)
        w.drop.left.watch = watch
        os.sync()
        watch.w = w
        thread = threading.Thread(target=watch.between)
        thread.start()
        w.run()
        watch.picture("at the end")
        watch.w = None
        thread.join()
        if w.trouble:
            raise RuntimeError("the undisturbed run: " + "; ".join(w.trouble))
    finally:
        watch.w = None
        disk.umount()
    return w, watch.taken


def after(base, servers, disk, live, picture):
    """What is wrong once the power is back."""
    why, image, left, mails, ran = picture
    disk.mount(image)
    try:
        with open(live.commands, "w") as f:
            f.write(ran)
        w = Restored(servers, live, left, mails)
        w.ran_before = len(w.ran())
        settle(w, "power lost " + why + " before")
        if w.broken and not w.trouble:
            w.broken = False
            settle(w, "power lost " + why + " before, and mending the script")
        return w.trouble
    finally:
        disk.umount()


def D12_power_cut(base, servers, fs, images, seed):
    disk, dice, good, bad = Disk(base, fs), random.Random(seed), 0, 0
    while good + bad < images:
        live, pictures = life(base, servers, disk)
        told, between = ([p for p in pictures if (p[0] == "between") == b] for b in (False, True))
        pictures = told + dice.sample(between, min(len(between), max(0, images - good - bad - len(told))))   # each once: what is tried on it stays
        for p in dice.sample(pictures, min(len(pictures), images - good - bad)):
            trouble = after(base, servers, disk, live, p)
            good, bad = good + (not trouble), bad + bool(trouble)
            if trouble:
                print("FAIL %s, %s: %s" % (fs, p[0], "; ".join(trouble)))
        for name in os.listdir(base.outer):
            os.unlink(base.outer + "/" + name)
        disk = Disk(base, fs)
    return good, bad


def skip(why):
    print("skipped: power loss: %s\n1 passed, 0 failed, 1 skipped" % why)
    sys.exit(0)


def main():
    p = argparse.ArgumentParser(usage=__doc__)
    p.add_argument("--images", type=int, default=200)
    p.add_argument("--fs", default="ext4,xfs,btrfs")
    p.add_argument("--seed", type=int, default=random.randrange(10**6))
    o = p.parse_args()
    if os.geteuid() != 0:
        skip("file systems are mounted as root only")
    if not shutil.which("mkfs.xfs"):
        skip("mkfs.xfs is not installed; its file systems clone files in one step")
    build_shim()
    total, skipped = [0, 0], 0
    servers = Servers()
    try:
        with Base() as base:
            for fs in o.fs.split(","):
                if not shutil.which("mkfs." + fs):
                    print("skipped: power loss on %s: mkfs.%s is not installed" % (fs, fs))
                    skipped += 1
                    continue
                good, bad = D12_power_cut(base, servers, fs, -(-o.images // len(o.fs.split(","))), o.seed)
                print("# %s: %d images, %d wrong (seed %d)" % (fs, good + bad, bad, o.seed))
                total = [total[0] + good, total[1] + bad]
    except subprocess.CalledProcessError as e:
        skip("%s: %s" % (" ".join(e.cmd), e.stderr.decode("utf-8", "replace").strip()))
    print("%d passed, %d failed, %d skipped" % (*total, skipped))
    sys.exit(bool(total[1]))


if __name__ == "__main__":
    main()
