#!/bin/bash
# Guest: a session is ended and begun again and again under I/O; another one never feels it.
. /lab/lib.sh
LOOPS=${LOOPS:-50}
job="--name=t --size=16m --bs=4k --ioengine=libaio --iodepth=8 --direct=1 --rw=randwrite --verify=crc32c --verify_fatal=1 --randrepeat=1"
dmesg -C
must "login of the steady volume" attach steady
steady=$D
sid=$(iscsiadm -m session | awk -v t="$TARGET" '$4==t{gsub(/[][]/,"",$2); print $2}')
must "record of the other" record loop
# Held back, so that an emulated processor has time for the loops too.
fio $job --rate_iops=100 --filename="$steady" --time_based --runtime=36000 --verify_backlog=256 >/tmp/steady 2>&1 & fio=$!

# turn N: in, write what can be told apart, out while more is being written
turn() {
  login loop || return
  printf 'turn %06d.' "$1" | dd of="$D" bs=512 count=1 conv=sync,fsync seek="$1" 2>/tmp/dd || { cat /tmp/dd; return 1; }
  dd if=/dev/zero of="$D" bs=64k seek=64 count=256 oflag=direct >/dev/null 2>&1 & local dd=$!
  dd if=/dev/zero of="$D" bs=64k seek=320 count=128 >/dev/null 2>&1 & local dd2=$!
  logout loop || return
  wait $dd $dd2 # they end with an error, or came to their end before
  kill -0 $fio || { echo "fio has ended"; return 1; }
}
began=$(date +%s)
n=0
while [ $n -lt "$LOOPS" ] && turn $n >/tmp/turn 2>&1; do n=$((n + 1)); done
[ $n = "$LOOPS" ] && ok "$LOOPS times in and out under I/O, in $(($(date +%s) - began)) s" || { bad "turn $n of $LOOPS"; cat /tmp/turn; }
check "fio was there all the time" kill -INT $fio
wait $fio
check "fio on the steady volume saw no error" grep -q 'err= 0' /tmp/steady || cat /tmp/steady
must "one more login" login loop
all_turns() {
  local i
  for i in $(seq 0 $((LOOPS - 1))); do
    [ "$(dd if="$D" bs=512 count=1 skip="$i" 2>/dev/null | tr -d '\0')" = "$(printf 'turn %06d.' "$i")" ] || { echo "turn $i is lost"; return 1; }
  done
}
check "what was flushed in each turn is there" all_turns
check "logout" logout loop
steady_errors() { dmesg | grep -E "connection$sid:0: detected|I/O error, dev ${steady##*/},"; }
check "the steady session $sid was never cut" not steady_errors
check "logout of the steady volume" logout steady
the_end
