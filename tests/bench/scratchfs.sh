#!/bin/sh
# A fresh file system for what the contestants write: scratchfs.sh ext4|tmpfs|umount DIR
#
# ext4: journaled, on a loop file beside DIR. Why not the disk as it is: an ext4 without a journal (some virtual machines have one as
# root) refuses to reuse inodes deleted in the last minutes and then spends some 400 us of CPU in recently_deleted() for each file created
# after a delete, which would swamp every figure here. tmpfs: no disk at all, so that only the work of the program is left, and syncs cost nothing.
set -eu
dir=$2 img=$2.img
case "$1" in
ext4)
    mkdir -p "$dir"
    dd if=/dev/zero of="$img" bs=1M count="${SCRATCH_MIB:-6144}" conv=fsync status=none
    mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0,nodiscard -N 500000 "$img"
    dev=$(losetup --find --show --direct-io=on "$img")
    mount -o noatime "$dev" "$dir" ;;
tmpfs)
    mkdir -p "$dir"
    mount -t tmpfs -o "size=${SCRATCH_MIB:-6144}m" mailmill-bench "$dir" ;;
umount)
    dev=$(findmnt -n -o SOURCE "$dir")
    umount "$dir"
    case "$dev" in /dev/loop*) losetup -d "$dev"; rm -f "$img" ;; esac ;;
*) echo "usage: $0 ext4|tmpfs|umount DIR" >&2; exit 2 ;;
esac
