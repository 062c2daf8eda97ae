#!/bin/bash
# Guest: the vital product data pages, and what the kernel makes of them.
. /lab/lib.sh
dmesg -C
must "login" attach reserved
b=${D##*/} serial=${ID//-/}

# page NUMBER PATTERN...: sg_vpd's rendering of the page has lines with each pattern
page() {
  local p n=$1; shift
  sg_vpd -p "$n" "$D" >/tmp/page || return
  cat /tmp/page
  for p; do grep -qE -- "$p" /tmp/page || { echo "no /$p/"; return 1; }; done
}
check "vpd 0x00 lists the pages" page 0x00 '\[sn\]' '\[di\]' '\[bl\]' '\[bdc\]' '\[lbpv\]'
check "vpd 0x80: the serial number is the volume's id" page 0x80 "Unit serial number: $serial"
check "vpd 0x83: NAA, T10 vendor id, relative port, port group, target name" page 0x83 \
  'designator type: NAA' '0x6025342' 'designator type: T10 vendor identification' 'vendor id: SANDBAR' "$ID" \
  'Relative target port: 0x1' 'Target port group: 0x1' "$TARGET"
check "vpd 0xb0: block limits" page 0xb0 'Optimal transfer length granularity: 8 ' 'Maximum unmap LBA count: 1048576' 'Maximum unmap block descriptor count: 256' \
  'Optimal unmap granularity: 8 ' 'Maximum compare and write length: 255 '
check "vpd 0xb1: no rotating medium" page 0xb1 'Non-rotating medium'
check "vpd 0xb2: thin, UNMAP and WRITE SAME, reads zeros" page 0xb2 'Unmap command supported \(LBPU\): 1' 'Write same \(16\) with unmap bit supported \(LBPWS\): 1' \
  'Write same \(10\) with unmap bit supported \(LBPWS10\): 1' '\(LBPRZ\): 1' 'Provisioning type: 2'
check "a page that is not there is refused" not sg_vpd -p 0xb3 "$D"

# is FILE VALUE, at_least FILE VALUE
is() { echo "$1: $(cat $1), want $2"; [ "$(cat $1)" = "$2" ]; }
at_least() { echo "$1: $(cat $1), want at least $2"; [ "$(cat $1)" -ge "$2" ]; }
q=/sys/block/$b/queue
check "the kernel takes it for thin" is "/sys/class/scsi_disk/$(basename /sys/block/$b/device/scsi_disk/*)/provisioning_mode" unmap
check "the kernel discards in blocks of 4 KiB" is $q/discard_granularity 4096
check "the kernel discards 512 MiB at once" at_least $q/discard_max_bytes 536870912
check "the kernel knows that nothing rotates" is $q/rotational 0
check "the kernel's wwid is the NAA designator" grep -q '^naa.6025342' /sys/block/$b/device/wwid
check "by-id link of the NAA designator" test -b "/dev/disk/by-id/wwn-0x$(sed 's/^naa.//' /sys/block/$b/device/wwid)"
check "REPORT SUPPORTED OPERATION CODES" sg_opcodes "$D"
check "the capacity is the volume's" is /sys/block/$b/size $((SIZE_BYTES / 512))
check "the kernel saw no errors" no_errors
check "logout" logout reserved
the_end
