#!/bin/bash
# Installs the Debian packages that a group of make targets needs, if missing.
#
#   .ci/deps.sh GROUP...      test, bench, kernel, generate
#
# As root it installs them. Otherwise it says what to install; that is an error
# with CI=true, and for every group but test (whose tests skip what they lack).
set -euo pipefail

# Real initiators and file systems that the tests hold the unit against.
test_pkgs="libiscsi-bin qemu-utils qemu-block-extra e2fsprogs tgt jq curl"
# The peers that benchmarks compare with.
bench_pkgs="etcd-server tgt libiscsi-bin"
# chaos/vm installs the rest by itself.
kernel_pkgs="jq"
generate_pkgs="npm"

say() { echo "deps: $*" >&2; }
installed() {
  # npm may have come with a node of somebody else's packaging.
  [ "$1" = npm ] && command -v npm >/dev/null && return
  [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=() needed=
for group; do
  case $group in
    test|bench|kernel|generate) list=${group}_pkgs;;
    *) say "no group $group; there are test, bench, kernel and generate"; exit 2;;
  esac
  [ "$group" = test ] || needed=1
  for p in ${!list}; do installed "$p" || missing+=("$p"); done
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  say "missing: ${missing[*]}"
  say "install them as root: apt-get install --no-install-recommends ${missing[*]}"
  if [ "${CI:-}" = true ] || [ -n "$needed" ]; then exit 1; fi
  say "going on without: the tests that need them are skipped"
  exit 0
fi

say "installing ${missing[*]}"
apt() { DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null; }
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# RUNLEVEL: what is installed here is a tool, its daemon must not start.
install() { RUNLEVEL=1 apt install -y --no-install-recommends "${missing[@]}"; }
{ install || { apt update && install; }; } >"$log" 2>&1 || { tail -n 30 "$log" >&2; say "apt-get failed"; exit 1; }
