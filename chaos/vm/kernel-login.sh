#!/bin/bash
# Guest script: the kernel's initiator uses one logical unit as a host would.
# Discover (SendTargets), log in with CHAP, mkfs, mount, fio with crc32c verify,
# remount and verify again, fsck, log out; and a wrong CHAP secret must be refused.
#   HOST (10.0.2.2), PORT (3260): the portal
#   TARGET: IQN; unset: the first that SendTargets shows
#   CHAP_USER, CHAP_SECRET: one-way CHAP for discovery and login; unset: none
#   EXPECT_TARGETS: how many targets SendTargets must show (any)
#   SIZE_BYTES: the size that the disk must have (any)
#   FS (ext4 or xfs), RUNTIME (10) seconds, SIZE (32m) of fio's file, BS (4k), DEPTH (8)
#   SETTINGS: more "node.x=y ..." for the node record
. /lab/lib.sh
HOST=${HOST:-10.0.2.2} PORT=${PORT:-3260} FS=${FS:-ext4} RUNTIME=${RUNTIME:-10} SIZE=${SIZE:-32m} BS=${BS:-4k} DEPTH=${DEPTH:-8}
portal=$HOST:$PORT

# chap KIND SECRET: the settings of open-iscsi for KIND (node.session or discovery.sendtargets)
chap() {
  [ -n "${CHAP_USER:-}" ] || return 0
  echo "$1.auth.authmethod=CHAP" "$1.auth.username=$CHAP_USER" "$1.auth.password=$2"
}

discover() {
  local kv
  iscsiadm -m discoverydb -t sendtargets -p "$portal" -o new >/dev/null || return
  for kv in $(chap discovery.sendtargets "${CHAP_SECRET:-}"); do
    iscsiadm -m discoverydb -t sendtargets -p "$portal" -o update -n "${kv%%=*}" -v "${kv#*=}" || return
  done
  iscsiadm -m discoverydb -t sendtargets -p "$portal" --discover
}

say "SendTargets at $portal"
discover >/tmp/targets || fail "discovery: $?"
cat /tmp/targets
TARGET=${TARGET:-$(awk 'NR==1{print $2}' /tmp/targets)}
[ -n "$TARGET" ] || fail "no target in the answer"
awk -v t="$TARGET" '$2==t{f=1} END{exit !f}' /tmp/targets || fail "$TARGET is not in the answer"
seen=$(awk '{print $2}' /tmp/targets | sort -u | wc -l)
[ -z "${EXPECT_TARGETS:-}" ] || [ "$seen" = "$EXPECT_TARGETS" ] || fail "$seen targets shown, not $EXPECT_TARGETS"
# Discovery recorded the portal by the address that the target gave itself, which
# need not lead anywhere from here: static records take its place.
iscsiadm -m node -o delete >/dev/null 2>&1
ok "SendTargets, $seen targets"

if [ -n "${CHAP_USER:-}" ]; then
  say "login with a wrong secret: must be refused"
  node_new "$TARGET" "$portal" $(chap node.session "not-the-secret-00") node.session.initial_login_retry_max=1 || fail "node record"
  iscsiadm -m node -T "$TARGET" -p "$portal" --login >/tmp/wrong 2>&1; r=$?
  grep -i -E 'authoriz|authent|error' /tmp/wrong
  [ $r = 24 ] || fail "a wrong secret gave iscsiadm's code $r, not 24 (authorization failure)"
  iscsiadm -m node -T "$TARGET" -p "$portal" -o delete
  ok "a wrong secret is refused"
fi

say "login $TARGET at $portal"
dmesg -C                            # what follows must be free of errors; a refused login was not
node_new "$TARGET" "$portal" $(chap node.session "${CHAP_SECRET:-}") ${SETTINGS:-} || fail "node record"
iscsiadm -m node -T "$TARGET" -p "$portal" --login || fail "login: $?"
disk() { iscsi_disks | awk -v t="$TARGET" '$2==t{print $1; exit}'; }
have_disk() { local d; d=$(disk); [ -n "$d" ] && [ -b "/dev/$d" ] && [ "$(cat "/sys/block/$d/size")" != 0 ]; }
wait_for 30 have_disk || { dmesg | tail -20; fail "no disk after login"; }
udevadm settle -t 20
d=/dev/$(disk)
size=$(blockdev --getsize64 "$d")
[ -z "${SIZE_BYTES:-}" ] || [ "$size" = "$SIZE_BYTES" ] || fail "$d has $size bytes, not $SIZE_BYTES"
say "disk $d, $size bytes"; lsscsi -s | grep -v virtio
iscsiadm -m session -P 2 | grep -E 'Digest|Burst|R2T|Segment|Immediate'
ok "login, $size bytes"
sg_inq "$d" | grep -E 'Vendor|Product|revision|version|TPGS|serial'; sg_vpd -p di_lu "$d"

say "mkfs.$FS"
case $FS in
  ext4) mkfs.ext4 -q -F "$d";;
  xfs) mkfs.xfs -q -f "$d";;
  *) fail "FS is ext4 or xfs";;
esac || fail "mkfs"
mkdir -p /mnt/t; mount "$d" /mnt/t || fail "mount"
ok "mkfs.$FS and mount"
job="--name=t --directory=/mnt/t --size=$SIZE --bs=$BS --ioengine=libaio --iodepth=$DEPTH --direct=1
 --rw=randwrite --verify=crc32c --verify_fatal=1 --randrepeat=1 --group_reporting"
say "fio: $RUNTIME s of random writes, each verified soon after"
fio $job --time_based --runtime="$RUNTIME" --verify_backlog=256 >/tmp/fio1 2>&1; r=$?
grep -E 'err=|IOPS|verify|fio:' /tmp/fio1; [ $r = 0 ] || { dmesg | tail -20; fail "fio: $r"; }
ok "fio writes and verifies"
say "fio: write the whole file, unmount, mount, verify all of it"
fio $job --do_verify=0 >/tmp/fio2 2>&1 || { cat /tmp/fio2; fail "fio write"; }
umount /mnt/t && sync && echo 3 >/proc/sys/vm/drop_caches && mount "$d" /mnt/t || fail "remount"
fio $job --verify_only >/tmp/fio3 2>&1 || { cat /tmp/fio3; fail "fio verify"; }
grep -hE 'err=|IOPS' /tmp/fio2 /tmp/fio3
umount /mnt/t || fail "umount"
ok "fio verifies after a remount"
say "fsck"
case $FS in ext4) fsck.ext4 -fn "$d";; xfs) xfs_repair -n "$d";; esac || fail "fsck"
ok "fsck"
say "logout"
iscsiadm -m node -T "$TARGET" -p "$portal" --logout || fail "logout: $?"
errors=$(dmesg | grep -E 'I/O error|EXT4-fs (error|warning)|XFS.*(error|Corrupt)|connection[0-9]+:0: detected conn error')
[ -z "$errors" ] || { echo "$errors"; fail "the kernel saw errors"; }
ok "logout, and the kernel saw no errors"
