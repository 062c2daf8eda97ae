#!/bin/bash
# Guest: a partition table, LVM over its partitions, a file system on that.
. /lab/lib.sh
job="--name=t --size=${SIZE:-16m} --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --verify=crc32c --verify_fatal=1 --randrepeat=1"
modprobe dm_mod
dmesg -C
must "login" attach parts
must "the disk is empty" blkdiscard "$D"
must "a GPT with two partitions" sgdisk -n 1:0:+96M -t 1:8e00 -n 2:0:0 -t 2:8e00 "$D"
parts_there() { [ -b "${D}1" ] && [ -b "${D}2" ]; }
must "the kernel has both" wait_for 60 parts_there
aligned() { local p; for p in 1 2; do [ $(($(cat "/sys/block/${D##*/}/${D##*/}$p/start") * 512 % 4096)) = 0 ] || return 1; done; }
check "they begin on 4 KiB" aligned
must "pvcreate" pvcreate -y "${D}1" "${D}2"
must "vgcreate over both" vgcreate pool "${D}1" "${D}2"
must "lvcreate, striped over both" lvcreate -y -i 2 -L 128M -n disk pool
must "mkfs" mkfs.ext4 -q -F /dev/pool/disk
mkdir -p /mnt/t
must "mount" mount /dev/pool/disk /mnt/t
check "fio writes" fio $job --directory=/mnt/t --filename=f --do_verify=0
check "lvextend with resize2fs, mounted" lvextend -r -L +8M pool/disk
check "fstrim through device-mapper" fstrim -v /mnt/t
must "unmount" umount /mnt/t
check "fsck" fsck.ext4 -fn /dev/pool/disk
must "vgchange -an" vgchange -an pool
must "logout" logout parts
must "login again" login parts
must "the kernel finds the partitions" wait_for 60 parts_there
check "both copies of the partition table are whole" sgdisk -v "$D"
check "vgck" vgck pool
must "vgchange -ay" vgchange -ay pool
must "mount again" mount /dev/pool/disk /mnt/t
check "fio verifies" fio $job --directory=/mnt/t --filename=f --verify_only
must "unmount at the end" umount /mnt/t
check "vgremove" vgremove -y pool
check "the kernel saw no errors" no_errors
check "logout at the end" logout parts
the_end
