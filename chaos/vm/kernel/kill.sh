#!/bin/bash
# Guest: the unit is killed (SIGKILL) and started again under fio's verify; I/O goes on, nothing is lost.
. /lab/lib.sh
KILLS=${KILLS:-3} SIZE=${SIZE:-24m}
job="--name=t --size=$SIZE --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --verify=crc32c --verify_fatal=1 --randrepeat=1"
dmesg -C
must "login with a large replacement_timeout" attach steady default node.session.timeo.replacement_timeout=3600
must "mkfs" mkfs.ext4 -q -F "$D"
mkdir -p /mnt/t
must "mount" mount "$D" /mnt/t
fio $job --directory=/mnt/t --filename=f --time_based --runtime=36000 --verify_backlog=256 >/tmp/fio 2>&1 & fio=$!
written() { awk '{print $7}' "/sys/block/${D##*/}/stat"; }
# more_than N: sectors written in all
more_than() { [ "$(written)" -gt "$1" ]; }
for k in $(seq "$KILLS"); do
  must "kill $k: fio writes" wait_for 300 more_than $(($(written) + 2048))
  must "kill $k: the unit is killed" host kill-unit
  check "kill $k: the kernel notices" wait_for 120 in_state "$TARGET" FAILED
  at=$(written)
  must "kill $k: the unit is started" host start-unit
  must "kill $k: the session is back" wait_for 300 in_state "$TARGET" LOGGED_IN
  check "kill $k: I/O goes on" wait_for 300 more_than $((at + 2048))
done
check "fio was there all the time" kill -INT $fio
wait $fio
check "fio saw no error" grep -q 'err= 0' /tmp/fio || cat /tmp/fio
# A file written over a kill: all that fio was told is stable is compared afterwards.
fio $job --directory=/mnt/t --filename=g --do_verify=0 --fsync=32 >/tmp/fio2 2>&1 & fio=$!
must "the last kill: fio writes" wait_for 300 more_than $(($(written) + 4096))
must "the last kill" host kill-unit
must "the last start" host start-unit
check "fio ends without an error" wait $fio || cat /tmp/fio2
must "unmount and mount" eval 'umount /mnt/t && echo 3 >/proc/sys/vm/drop_caches && mount "$D" /mnt/t'
check "the file verifies" fio $job --directory=/mnt/t --filename=g --verify_only
must "unmount" umount /mnt/t
check "fsck" fsck.ext4 -fn "$D"
io_errors() { dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|Buffer I/O'; }
check "the kernel gave up no command" not io_errors
check "logout" logout steady
the_end
