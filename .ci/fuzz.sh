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

# A worker that the machine keeps from running for ten seconds counts as hung. Its input then passes by itself, and
# the target deserves another run.
only_starved() {
  local input
  grep -q 'fuzzing process hung or terminated unexpectedly' "$1" || return 1
  input=$(sed -n 's|.*Failing input written to ||p' "$1" | tail -1)
  go test -tags "$TAGS" -run "^$3\$/^${input##*/}\$" -count 3 -timeout 60s "./$2" >> "$1" 2>&1 && rm "$2/$input"
}

fuzz_one() {
  go test -tags "$TAGS" -run '^$' -fuzz "^$2\$" -fuzztime "$FUZZTIME" -parallel 1 -timeout 0 "./$1" > "$3" 2>&1 || only_the_time_ran_out "$3"
}

run() {
  local pkg=$1 name=$2 log=$LOGS/${1//\//.}.$2.log verdict=ok
  fuzz_one "$pkg" "$name" "$log" || { only_starved "$log" "$pkg" "$name" && fuzz_one "$pkg" "$name" "$log"; } || verdict=FAIL
  # The last line of progress tells how much was tried.
  printf '%-4s %-22s %-20s %s\n' "$verdict" "$pkg" "$name" \
    "$(grep -oE 'execs: [0-9]+|new interesting: [0-9]+ \(total: [0-9]+\)' "$log" | tail -2 | paste -sd' ')" | tee -a "$LOGS/summary"
  [ $verdict = ok ] || cat "$log"
}
export -f run fuzz_one only_starved only_the_time_ran_out

git ls-files -co --exclude-standard '*_test.go' | xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]*\(' |
  sed -E 's|/[^/]*:func (Fuzz[A-Za-z0-9_]*)\(| \1|' | sort -u | grep -E "${FUZZ:-.}" |
  xargs -r -P "$jobs" -n 2 bash -c 'run "$0" "$1"'
[ -s "$LOGS/summary" ] || { echo "fuzz: no fuzz target found" >&2; exit 1; }
n=$(wc -l < "$LOGS/summary") failed=$(grep -c '^FAIL' "$LOGS/summary" || true)
echo "fuzz: $n targets of $FUZZTIME each, $failed failed"
[ "$failed" = 0 ]
