#!/bin/bash
# Guest: ext4 and XFS with fio's crc32c verify, grown while they are mounted and written to.
. /lab/lib.sh
RUNTIME=${RUNTIME:-8} SIZE=${SIZE:-16m}
job="--name=t --size=$SIZE --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite
 --verify=crc32c --verify_fatal=1 --randrepeat=1 --group_reporting"

make_fs() { case $fs in ext4) mkfs.ext4 -q -F "$D";; xfs) mkfs.xfs -q -f "$D";; esac; }
check_fs() { case $fs in ext4) fsck.ext4 -fn "$D";; xfs) xfs_repair -n "$D";; esac; }
grow_fs() { case $fs in ext4) resize2fs "$D";; xfs) xfs_growfs /mnt/t;; esac; }
remount() { umount /mnt/t && sync && echo 3 >/proc/sys/vm/drop_caches && mount "$D" /mnt/t; }
has_bytes() { [ "$(blockdev --getsize64 "$D")" = "$1" ]; }
fs_bytes() { echo $(($(stat -f -c '%b * %S' /mnt/t))); }

# grow_under_load BYTES: the volume grows while fio writes and verifies; the file system follows
grow_under_load() {
  local before
  before=$(fs_bytes)
  fio $job --directory=/mnt/t --filename=load --time_based --runtime="$RUNTIME" --verify_backlog=256 >/tmp/load 2>&1 & local pid=$!
  check "$fs: the volume grows from $SIZE_BYTES to $1 bytes" host grow $fs "$1"
  check "$fs: the kernel still has the former size" has_bytes "$SIZE_BYTES"
  check "$fs: rescan of the sessions" iscsiadm -m session -R
  check "$fs: the kernel sees $1 bytes after the rescan" wait_for 60 has_bytes "$1"
  check "$fs: the kernel met CAPACITY DATA HAS CHANGED" wait_for 60 capacity_changed
  check "$fs: grown while mounted" grow_fs
  check "$fs: it has more room than before" test "$(fs_bytes)" -gt $((before + ($1 - SIZE_BYTES) / 2))
  check "$fs: fio verified through the growth" wait "$pid" || cat /tmp/load
}
capacity_changed() { dmesg | grep -qiE 'capacity data has changed|detected capacity change'; }

# new_room: a file that only fits with the new room, read back from the unit
new_room() {
  local mib=$1
  fio --name=r --filename=/mnt/t/room --size="${mib}m" --bs=1m --ioengine=libaio --iodepth=2 --direct=1 --rw=write --verify=crc32c --verify_fatal=1 --do_verify=0 &&
    remount && fio --name=r --filename=/mnt/t/room --size="${mib}m" --bs=1m --ioengine=libaio --iodepth=2 --direct=1 --rw=write --verify=crc32c --verify_fatal=1 --verify_only
}

mkdir -p /mnt/t
# Sizes on the way: an odd number of blocks, in the midst of an extent, then a round one; MiB of a file
# that fits only then. mkfs.xfs wants 300 MiB.
sizes() { case $fs in ext4) odd=120000512 round=$((192 << 20)) room=112;; xfs) odd=350000128 round=$((448 << 20)) room=300;; esac; }

for fs in ext4 xfs; do
  sizes
  dmesg -C
  must "$fs: login" attach $fs
  must "$fs: mkfs" make_fs
  must "$fs: mount" mount "$D" /mnt/t
  check "$fs: fio writes at random and verifies" fio $job --directory=/mnt/t --filename=f --time_based --runtime="$RUNTIME" --verify_backlog=256
  check "$fs: fio writes the whole file" fio $job --directory=/mnt/t --filename=f --do_verify=0
  must "$fs: unmount and mount" remount
  check "$fs: fio verifies the whole file" fio $job --directory=/mnt/t --filename=f --verify_only
  grow_under_load $odd
  SIZE_BYTES=$odd
  dmesg -C
  grow_under_load $round
  check "$fs: what was written before is still there" fio $job --directory=/mnt/t --filename=f --verify_only
  check "$fs: the new room holds data" new_room $room
  must "$fs: unmount" umount /mnt/t
  check "$fs: fsck" check_fs
  check "$fs: the kernel saw no errors" no_errors
  check "$fs: logout" logout $fs
  must "$fs: login again" login $fs
  check "$fs: the size is there at once" has_bytes $round
  must "$fs: logout again" logout $fs
done
the_end
