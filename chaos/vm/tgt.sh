#!/bin/bash
# A stand-in target: Debian's tgtd with one logical unit and CHAP, to try the VM
# and its scripts without a unit.
#   tgt.sh start DIR [ADDR:PORT]    (default 127.0.0.1:3272)
#   tgt.sh stop DIR
# CTL (17): tgtd's control port. SIZE (256M): of the logical unit.
# CHAP_USER, CHAP_SECRET: if set, the target asks for them.
set -euo pipefail
act=${1:?start or stop} dir=${2:?DIR} portal=${3:-127.0.0.1:3272}
ctl=${CTL:-17} iqn=iqn.2025-01.lab.tgt:disk1
adm() { tgtadm -C "$ctl" --lld iscsi "$@"; }
case $act in
start)
  command -v tgtd >/dev/null || { echo "tgt.sh: no tgtd here: apt-get install tgt" >&2; exit 1; }
  mkdir -p "$dir"; truncate -s "${SIZE:-256M}" "$dir/lun1.img"
  tgtd -f -C "$ctl" --iscsi "portal=$portal" >"$dir/tgtd.log" 2>&1 </dev/null &
  echo $! >"$dir/tgtd.pid"
  for _ in $(seq 50); do adm --op show --mode system >/dev/null 2>&1 && break; sleep 0.1; done
  adm --op new --mode target --tid 1 -T "$iqn"
  adm --op new --mode logicalunit --tid 1 --lun 1 -b "$dir/lun1.img"
  if [ -n "${CHAP_USER:-}" ]; then
    adm --op new --mode account --user "$CHAP_USER" --password "${CHAP_SECRET:?}"
    adm --op bind --mode account --tid 1 --user "$CHAP_USER"
  fi
  adm --op bind --mode target --tid 1 -I ALL
  echo "tgtd pid $(cat "$dir/tgtd.pid"), $iqn at $portal";;
stop) kill -KILL "$(cat "$dir/tgtd.pid")"; rm -f "$dir/tgtd.pid";;
*) sed -n '2,8s/^# \?//p' "$0"; exit 1;;
esac
