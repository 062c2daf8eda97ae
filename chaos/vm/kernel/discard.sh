#!/bin/bash
# Guest: what is discarded takes up no room on the unit's medium any more.
. /lab/lib.sh
mib=$((1 << 20)) MIB=${MIB:-64}
dmesg -C
must "login" attach parts
used=$(host used)

# pattern TO: MIB of bytes that are not zero
pattern() { tr '\0' '\252' </dev/zero | dd of="$1" bs=1M count=$MIB iflag=fullblock conv=fsync "${@:2}"; }
allocated() { host allocated || echo 0; }
# grew, shrank FROM: the medium's file, by nearly what was written, since it had FROM bytes
grew() { now=$(allocated); echo "$1 -> $now"; [ "$now" -ge $(($1 + (MIB - 8) * mib)) ]; }
shrank() { now=$(allocated); echo "$1 -> $now"; [ "$now" -le $(($1 - (MIB - 8) * mib)) ]; }

must "blkdiscard of the whole disk" blkdiscard "$D"
before=$(allocated)
must "$MIB MiB are written" pattern "$D" oflag=direct seek=16
check "they take up room in the medium" wait_for 60 grew "$before"
full=$(allocated)
must "blkdiscard of just these" blkdiscard -o $((16 * mib)) -l $((MIB * mib)) "$D"
check "blkdiscard gives the room back" wait_for 60 shrank "$full"
check "what was discarded reads as zeros" zeros "$D" $((16 * mib)) $((MIB * mib))
check "the volume has the extents that it had" test "$(host used)" = "$used"
check "blkdiscard --zeroout" blkdiscard --zeroout -o $((16 * mib)) -l $((4 * mib)) "$D"

mkdir -p /mnt/t
for fs in ext4 xfs; do
  case $fs in ext4) must "ext4: mkfs" mkfs.ext4 -q -F "$D";; xfs) must "xfs: mkfs" mkfs.xfs -q -f "$D";; esac
  must "$fs: mount" mount "$D" /mnt/t
  check "$fs: first fstrim" fstrim -v /mnt/t
  before=$(allocated)
  must "$fs: a file of $MIB MiB" pattern /mnt/t/file
  check "$fs: it takes up room in the medium" wait_for 60 grew "$before"
  full=$(allocated)
  must "$fs: the file is removed" rm /mnt/t/file
  sync
  check "$fs: fstrim" fstrim -v /mnt/t
  check "$fs: fstrim gives the room back" wait_for 60 shrank "$full"
  must "$fs: unmount" umount /mnt/t
done
check "the kernel saw no errors" no_errors
check "logout" logout parts
the_end
