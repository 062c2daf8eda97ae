#!/bin/bash
# The Linux kernel's own initiator against a lab: starts stations and units on
# this machine, gives a volume to an agentless host, and lets the VM use it
# through kernel-login.sh. Minutes under emulation. Needs root; `make test-kernel`.
#   SANDBAR (bin/sandbar), VOLUME_SIZE (256MiB), RUNTIME (20) seconds of fio,
#   KEEP=1: leave the lab running
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${SANDBAR:-$here/../../bin/sandbar}
iqn=iqn.2025-01.lab.vm:init
say() { echo "test-kernel: $*" >&2; }
die() { say "$*"; exit 1; }
command -v jq >/dev/null || die "jq is missing: apt-get install jq"
[ -x "$bin" ] || die "no $bin: run make build"

"$here/build.sh"

dir=$(mktemp -d)
stop() {
  [ -z "${KEEP:-}" ] || { say "the lab stays in $dir: $bin demo --stop --dir $dir"; return 0; }
  "$bin" demo --stop --dir "$dir" || say "demo --stop failed; the lab's folder is $dir"
  rm -rf "$dir"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP
"$bin" demo --keep --story=none --dir "$dir" --hosts 1

args=(--token-file "$(jq -r .cli.tokenFile "$dir/lab.json")" --ca-file "$(jq -r .cli.caFile "$dir/lab.json")")
while read -r e; do args+=(--endpoint "$e"); done < <(jq -r '.cli.endpoints[]' "$dir/lab.json")
sandbar() { "$bin" "${args[@]}" "$@"; }

say "a volume for the VM, and one that it must not see"
sandbar host add kernel --initiator "$iqn"
sandbar host add stranger --initiator iqn.2025-01.lab.vm:stranger
sandbar volume create kernel-vol --size "${VOLUME_SIZE:-256MiB}" --host kernel --wait
sandbar volume create stranger-vol --size 16MiB --host stranger --wait
show=$(sandbar volume show kernel-vol -o json)
cred=$(sandbar volume credentials kernel-vol --host kernel -o json)
path=$(jq -c '.assignments[0].paths[0]' <<<"$show")
portal=$(jq -r .portal <<<"$path")
[ "${portal%:*}" = 127.0.0.1 ] || die "the portal is $portal; the guest reaches 127.0.0.1 only"

CHAP_USER=$(jq -r .chapUser <<<"$cred") CHAP_SECRET=$(jq -r .chapSecret <<<"$cred")
export CHAP_USER CHAP_SECRET         # by environment, so that they are in nobody's argv
"$here/run.sh" -t 600 -i "$iqn" -e PORT="${portal##*:}" -e TARGET="$(jq -r .targetIqn <<<"$path")" \
  -e CHAP_USER -e CHAP_SECRET -e EXPECT_TARGETS=1 -e SIZE_BYTES="$(jq -r .sizeBytes <<<"$show")" \
  -e RUNTIME="${RUNTIME:-20}" "$here/kernel-login.sh"
say "PASS"
