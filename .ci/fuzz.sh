#!/bin/bash
# Runs every fuzz target of the tree for FUZZTIME (go test's syntax: 30s, 1000x), as many at a time as there
# are cores (or FUZZJOBS); with FUZZ only those of which "package name" matches that regular expression.
# Each target's whole output is in .tools/fuzz.
#   .ci/fuzz.sh [FUZZTIME]
set -euo pipefail
cd "$(dirname "$0")/.."
export FUZZTIME=${1:-30s} TAGS=${TAGS:-} LOGS=$PWD/.tools/fuzz
jobs=${FUZZJOBS:-$(nproc)}
rm -rf "$LOGS"; mkdir -p "$LOGS"

# Go before 1.27 may report the end of fuzztime itself as a failure (go.dev/issue/75804). It then says
# this one line and nothing else; what a target finds comes with its input or a stack.
only_the_time_ran_out() {
  [ "$(sed -n '/^--- FAIL/,/^FAIL$/p' "$1" | sed '1d;$d')" = "    context deadline exceeded" ]
}

run() {
  local pkg=$1 name=$2 log=$LOGS/${1//\//.}.$2.log verdict=ok
  go test -tags "$TAGS" -run '^$' -fuzz "^$name\$" -fuzztime "$FUZZTIME" -parallel 1 -timeout 0 "./$pkg" > "$log" 2>&1 ||
    only_the_time_ran_out "$log" || verdict=FAIL
  # The last line of progress tells how much was tried.
  printf '%-4s %-22s %-20s %s\n' "$verdict" "$pkg" "$name" \
    "$(grep -oE 'execs: [0-9]+|new interesting: [0-9]+ \(total: [0-9]+\)' "$log" | tail -2 | paste -sd' ')" | tee -a "$LOGS/summary"
  [ $verdict = ok ] || cat "$log"
}
export -f run only_the_time_ran_out

git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]*\(' |
  sed -E 's|/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(| \1|' | sort -u | grep -E "${FUZZ:-.}" |
  xargs -r -P "$jobs" -n 2 bash -c 'run "$0" "$1"'
[ -s "$LOGS/summary" ] || { echo "fuzz: no fuzz target found" >&2; exit 1; }
n=$(wc -l < "$LOGS/summary") failed=$(grep -c '^FAIL' "$LOGS/summary" || true)
echo "fuzz: $n targets of $FUZZTIME each, $failed failed"
[ "$failed" = 0 ]
