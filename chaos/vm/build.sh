#!/bin/bash
# Builds the initiator lab VM: kernel + tiny initramfs + ext4 root image, all in
# $LABVM_DIR (default .tools/vm at the root of the tree). Takes the Debian mirror
# from this machine's own apt configuration at run time. Needs root. See README.md.
#
#   build.sh [-f]          -f: rebuild even if the image is up to date
#   LABVM_EXTRA_PKGS="a b" additional Debian packages for the guest
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${LABVM_DIR:-$here/../../.tools/vm}
force=0; [ "${1:-}" = -f ] && force=1
say() { echo "build.sh: $*" >&2; }
die() { say "$*"; exit 1; }
[ "$(id -u)" = 0 ] || die "must be root"
mkdir -p "$out"; out=$(cd "$out" && pwd)
exec 9>"$out/.build.lock"; flock 9          # one build at a time per directory

stamp=$(cat "$here/build.sh" "$here/guest/init" <(echo "${LABVM_EXTRA_PKGS:-}") | sha256sum | cut -c1-16)
if [ $force = 0 ] && [ "$(cat "$out/stamp" 2>/dev/null)" = "$stamp" ]; then
  say "$out is up to date ($stamp)"; exit 0
fi
rm -f "$out/stamp"
t0=$SECONDS

# ---- host tools -------------------------------------------------------------
aptget() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@"; }
need=()
for p in qemu-system-x86 mmdebstrap e2fsprogs cpio xz-utils iproute2 python3; do
  [ "$(dpkg-query -W -f '${db:Status-Status}' $p 2>/dev/null)" = installed ] || need+=($p)
done
if [ ${#need[@]} -gt 0 ]; then
  say "installing ${need[*]}"
  aptget install -y --no-install-recommends "${need[@]}" >"$out/apt.log" 2>&1 ||
    { aptget update >>"$out/apt.log" 2>&1
      aptget install -y --no-install-recommends "${need[@]}" >>"$out/apt.log" 2>&1; } ||
    { tail -20 "$out/apt.log" >&2; die "apt-get install failed"; }
fi

# ---- Debian sources and apt options, as this machine has them ---------------
suite=bookworm
sources() {
  apt-get indextargets --format '$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)' \
      'Created-By: Packages' 'Architecture: amd64' |
    awk -F'|' -v s=$suite '$4=="Debian" && ($2==s || index($2, s "-")==1) && $3=="main" {
      print "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] " $1 " " $2 " " $3 }' | sort -u
}
src=$(sources)
[ -n "$src" ] || { aptget update >/dev/null; src=$(sources); }
[ -n "$src" ] || die "this machine's apt configuration has no Debian $suite source"
apt-config dump | grep -E '^Acquire::(Check-|https?::|Retries|ForceIPv4)' >"$out/aptopts" || :

# ---- root file system -------------------------------------------------------
pkgs="open-iscsi multipath-tools kpartx sg3-utils fio e2fsprogs xfsprogs lvm2 kmod
 iproute2 udev procps util-linux mount nftables busybox-static gdisk lsscsi
 ${LABVM_EXTRA_PKGS:-}"
root=$out/root
[ ! -e "$root" ] || rm -rf --one-file-system "$root"
say "mmdebstrap $suite -> $root"
export SOURCE_DATE_EPOCH=1735689600 DEBIAN_FRONTEND=noninteractive
mmdebstrap --quiet --mode=root --variant=essential --architectures=amd64 \
  --include="$(echo $pkgs | tr ' ' ,)" \
  $([ -s "$out/aptopts" ] && echo --aptopt="$out/aptopts") \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --skip=cleanup/reproducible \
  $suite "$root" - <<<"$src" >"$out/mmdebstrap.log" 2>&1 ||
  { tail -30 "$out/mmdebstrap.log" >&2; die "mmdebstrap failed"; }

# ---- kernel: unpacked from its package, not installed (no initramfs-tools) --
kpkg=$(apt-cache depends --important linux-image-amd64 | awk '/Depends: linux-image-/{print $2; exit}')
[ -n "$kpkg" ] || die "cannot resolve linux-image-amd64"
kver=${kpkg#linux-image-}
say "kernel $kpkg"
mkdir -p "$out/debs"
( cd "$out/debs"
  ls "${kpkg}"_*.deb >/dev/null 2>&1 || aptget download "$kpkg" 2>&1 | grep -v 'unsandboxed' || : )
kdeb=$(ls "$out/debs/${kpkg}"_*.deb | tail -1)
d=./lib/modules/$kver/kernel
dpkg-deb --fsys-tarfile "$kdeb" | tar -x -C "$root" --wildcards \
  --exclude="$d/drivers/net/ethernet" --exclude="$d/drivers/net/wireless" \
  --exclude="$d/drivers/net/usb" --exclude="$d/drivers/net/can" \
  --exclude="$d/net/wireless" --exclude="$d/net/mac80211" --exclude="$d/net/bluetooth" \
  './boot/vmlinuz*' './boot/config*' "./lib/modules/$kver/modules.*" \
  "$d/arch" "$d/block" "$d/crypto" "$d/fs" "$d/lib" "$d/net" \
  "$d/drivers/block" "$d/drivers/char" "$d/drivers/dax" "$d/drivers/md" "$d/drivers/net" \
  "$d/drivers/scsi" "$d/drivers/target" "$d/drivers/virtio" "$d/drivers/nvme"
chroot "$root" depmod "$kver" 2>"$out/depmod.log"
for m in iscsi_tcp xfs dm_mod dm_multipath scsi_dh_alua dm_round_robin dm_service_time dm_queue_length \
         sd_mod virtio_net 9pnet_virtio iscsi_target_mod; do
  chroot "$root" modprobe -S "$kver" --show-depends $m >/dev/null || die "guest module $m is missing"
done

# ---- guest configuration ----------------------------------------------------
mkdir -p "$root/lab"               # labinit and lib.sh come with each job, from run.sh
echo labvm >"$root/etc/hostname"; echo "127.0.0.1 localhost labvm" >"$root/etc/hosts"
: >"$root/etc/resolv.conf"; : >"$root/etc/fstab"
# no systemd in the guest: labinit starts iscsid itself
sed -i 's/^iscsid.startup = .*/iscsid.startup = \/sbin\/iscsid/' "$root/etc/iscsi/iscsid.conf"
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/etc/apt "$root"/var/log/*

# ---- initramfs: busybox + the modules that mount the root -------------------
ird=$(mktemp -d "$out/ird.XXXX"); mkdir -p "$ird"/{bin,mod,proc,sys,dev,root}
cp "$root/bin/busybox" "$ird/bin/busybox"
install -m 755 "$here/guest/init" "$ird/init"
for m in virtio_pci virtio_blk ext4; do
  chroot "$root" modprobe -S "$kver" --show-depends $m | awk '$1=="insmod"{print $2}'
done | awk '!s[$0]++' | while read -r f; do
  cp "$root$f" "$ird/mod/"; basename "$f"
done >"$ird/mod/order"
find "$ird" -exec touch -h -d @$SOURCE_DATE_EPOCH {} +
( cd "$ird" && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible -R 0:0 ) | gzip -n1 >"$out/initrd.gz"
rm -rf "$ird"

# ---- kernel image: uncompressed (PVH entry) so that TCG need not unpack it --
vml=$(ls "$root"/boot/vmlinuz-*)
cp "$vml" "$out/vmlinuz"
rm -f "$out/vmlinux"
if python3 - "$out/vmlinuz" "$out/vmlinux" <<'PY'
import lzma, sys
b = open(sys.argv[1], 'rb').read()
i = b.find(b'\xfd7zXZ\x00')
v = lzma.LZMADecompressor().decompress(b[i:]) if i > 0 else b''
if v[:4] != b'\x7fELF': sys.exit(1)
open(sys.argv[2], 'wb').write(v)
PY
then say "vmlinux unpacked"; else say "vmlinux not unpacked; vmlinuz will be used"; fi

# ---- root image -------------------------------------------------------------
used=$(du -sm --apparent-size "$root" | cut -f1)
img=$out/root.ext4
rm -f "$img.new"
truncate -s $((used * 5 / 4 + 128))M "$img.new"
mke2fs -q -F -t ext4 -L labroot -U 11111111-2222-3333-4444-555555555555 \
  -E hash_seed=11111111-2222-3333-4444-555555555555,lazy_itable_init=1 \
  -O ^has_journal -m 0 -d "$root" "$img.new"
mv "$img.new" "$img"
rm -rf --one-file-system "$root"
echo "$kver" >"$out/kver"
echo "$stamp" >"$out/stamp"

# ---- KVM or TCG -------------------------------------------------------------
# Some hypervisors offer a /dev/kvm that runs only kernels made for it (kvm_pvm: nested
# without VMX or SVM). So KVM counts only if this very guest has booted on it.
accel=tcg
if [ -w /dev/kvm ] && { [ ! -d /sys/module/kvm_pvm ] || [ -n "${LABVM_PROBE_KVM:-}" ]; }; then
  echo 'exit 42' >"$out/probe.sh"
  LABVM_DIR=$out LABVM_ACCEL=kvm "$here/run.sh" -q -t 25 "$out/probe.sh" >/dev/null 2>&1 9>&- || [ $? != 42 ] || accel=kvm
fi
echo $accel >"$out/accel"
say "done in $((SECONDS - t0)) s: accel $accel, kernel $kver, root $(du -m "$img" | cut -f1) MiB on disk ($(stat -c %s "$img" | awk '{print int($1/1048576)}') MiB image), initrd $(du -k "$out/initrd.gz" | cut -f1) KiB"
