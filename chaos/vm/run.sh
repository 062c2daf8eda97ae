#!/bin/bash
# Boots the lab VM, runs SCRIPT in it as root, streams its output, returns its exit code.
#
#   run.sh [options] SCRIPT [ARG...]
#     -t SECONDS   timeout for the whole run (default 180); then qemu is killed, exit code 124
#     -e NAME=VAL  environment for the script (repeatable; -e NAME takes it from this environment)
#     -f FILE      copy FILE next to the script (repeatable)
#     -s DIR       share DIR with the guest, read-write, at /lab/share (9p)
#     -n NET       user (default): guest 10.0.2.2 is this machine's 127.0.0.1
#                  tap: join the switch made by 'netns.sh up' (targets at 10.99.0.1..9)
#     -a ADDR      guest address (default 10.0.2.15/24, tap: 10.99.0.100/24)
#     -i IQN       initiator name (default iqn.2025-01.lab.vm:init)
#     -m MIB -c N  memory (1024), vCPUs (2)
#     -l FILE      keep the kernel console (iSCSI and SCSI messages) in FILE
#     -q           no 'labvm: up' line
#   LABVM_DIR (default .tools/vm of the tree), LABVM_ACCEL (kvm, tcg or auto: the default), LABVM_NET (netns prefix)
#   Exit codes of its own: 124 timeout, 125 the guest died or no VM. Several VMs may run at once.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dir=${LABVM_DIR:-$here/../../.tools/vm}
tmo=180 net=user addr= iqn=iqn.2025-01.lab.vm:init mem=1024 cpus=2 share= quiet= klog= envs=() files=()
die() { echo "run.sh: $*" >&2; exit 125; }
while getopts t:e:f:s:n:a:i:m:c:l:q o; do case $o in
  t) tmo=$OPTARG;; e) envs+=("$OPTARG");; f) files+=("$OPTARG");; s) share=$OPTARG;; n) net=$OPTARG;;
  a) addr=$OPTARG;; i) iqn=$OPTARG;; m) mem=$OPTARG;; c) cpus=$OPTARG;; l) klog=$OPTARG;; q) quiet=1;; *) exit 125;;
esac; done
shift $((OPTIND - 1))
[ $# -ge 1 ] && [ -f "$1" ] || die "usage: run.sh [options] SCRIPT [ARG...]"
script=$1; shift
[ -f "$dir/stamp" ] || die "no VM in $dir: run build.sh first"

# ---- the job: a second cpio, appended to the initramfs ----------------------
for d in "$dir"/run.*; do            # left by a run.sh that was killed
  i=${d##*/run.}; [ -d "$d" ] && ! kill -0 "${i%.*}" 2>/dev/null && rm -rf "$d"
done
w=$(mktemp -d "$dir/run.$$.XXXX") || die "no run directory"
qpid= tap= ns=
cleanup() {
  [ -n "$qpid" ] && kill -KILL "$qpid" 2>/dev/null && wait "$qpid" 2>/dev/null
  [ -n "$tap" ] && ip -n "$ns" link del "$tap" 2>/dev/null
  [ -n "$klog" ] && cp "$w/console.log" "$klog" 2>/dev/null
  rm -rf "$w"
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP
j=$w/cpio/job; mkdir -p "$j/files"
install -m 755 "$here/guest/labinit" "$j/labinit"; install -m 644 "$here/guest/lib.sh" "$j/lib.sh"
name=$(basename "$script"); cp "$script" "$j/files/$name"; chmod 755 "$j/files/$name"
for f in "${files[@]}"; do cp -a "$f" "$j/files/" || die "cannot copy $f"; done
for e in "${envs[@]}"; do
  case $e in *=*) printf '%s=%q\n' "${e%%=*}" "${e#*=}";; *) [ -n "${!e+x}" ] && printf '%s=%q\n' "$e" "${!e}";; esac
done >"$j/env"
{ printf 'set --'; [ $# -gt 0 ] && printf ' %q' "$@"; echo; } >"$j/argv"
if [ $net = user ]; then addr=${addr:-10.0.2.15/24}; else addr=${addr:-10.99.0.100/24}; fi
[ -n "$share" ] && share=$(cd "$share" && pwd)
{ printf 'LAB_SCRIPT=%q\nLAB_ADDR=%q\nLAB_INITIATOR=%q\nLAB_QUIET=%q\n' "$name" "$addr" "$iqn" "$quiet"
  printf 'LAB_SHARE=%q\nLAB_MODULES=%q\n' "${share:+1}" "${LABVM_MODULES:-}"; } >"$j/env.sys"
( cd "$w/cpio" && find . | cpio --quiet -o -H newc -R 0:0 ) | gzip -n1 >"$w/job.gz"
cat "$dir/initrd.gz" "$w/job.gz" >"$w/initrd"

# ---- network ----------------------------------------------------------------
pre=()
mac=$(printf '52:54:00:%02x:%02x:%02x' $((RANDOM%256)) $((RANDOM%256)) $((RANDOM%256)))
case $net in
  user) nd=(-netdev user,id=n0,ipv6=off,net=10.0.2.0/24,host=10.0.2.2);;
  tap)
    ns=${LABVM_NET:-labvm}-sw
    [ -e "/run/netns/$ns" ] || die "no switch $ns: run netns.sh up first"
    tap=t$$
    ip -n "$ns" tuntap add dev "$tap" mode tap && ip -n "$ns" link set "$tap" master br0 up || die "no tap"
    pre=(ip netns exec "$ns")
    nd=(-netdev tap,id=n0,ifname=$tap,script=no,downscript=no);;
  *) die "-n user or -n tap";;
esac

# ---- qemu -------------------------------------------------------------------
accel=${LABVM_ACCEL:-auto}
[ "$accel" != auto ] || accel=$(cat "$dir/accel" 2>/dev/null || echo tcg)
case $accel in
  kvm) acc=(-accel kvm -cpu host);;
  *) acc=(-accel tcg,thread=multi,tb-size=256 -cpu max,la57=off);;
esac
kern=$dir/vmlinux; [ -f "$kern" ] || kern=$dir/vmlinuz
fs=(); [ -n "$share" ] && fs=(-virtfs "local,path=$share,mount_tag=labshare,security_model=none")
export TMPDIR=$w                          # the root image's throw-away writes
"${pre[@]}" setpriv --pdeathsig KILL qemu-system-x86_64 -nodefaults -no-user-config -no-reboot -display none -M pc,usb=off "${acc[@]}" -smp "$cpus" -m "$mem" \
  -kernel "$kern" -initrd "$w/initrd" \
  -append "console=ttyS1 panic=-1 quiet loglevel=4 net.ifnames=0 mitigations=off random.trust_cpu=on no_timer_check ${LABVM_APPEND:-}" \
  -drive "file=$dir/root.ext4,format=raw,if=virtio,snapshot=on,file.locking=off" \
  "${nd[@]}" -device virtio-net-pci,netdev=n0,mac=$mac,romfile= \
  -chardev stdio,id=s0,signal=off -serial chardev:s0 -serial "file:$w/console.log" -serial "file:$w/rc" \
  "${fs[@]}" </dev/null 2>"$w/qemu.err" &
qpid=$!
end=$((SECONDS + tmo))
while kill -0 $qpid 2>/dev/null; do
  if [ $SECONDS -ge $end ]; then
    kill -KILL $qpid; wait $qpid 2>/dev/null; qpid=
    echo "run.sh: timeout after $tmo s; last console lines:" >&2; tail -n 5 "$w/console.log" >&2
    exit 124
  fi
  sleep 0.1
done
wait $qpid; qrc=$?; qpid=
rc=$(tr -dc 0-9 <"$w/rc" 2>/dev/null)
if [ -z "$rc" ]; then
  echo "run.sh: the guest died without an exit code (qemu exit $qrc)" >&2
  cat "$w/qemu.err" >&2; tail -n 30 "$w/console.log" >&2
  exit 125
fi
exit "$rc"
