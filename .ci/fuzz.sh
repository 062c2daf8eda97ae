#!/bin/bash
# Runs every fuzz target of the tree for FUZZTIME (go test's syntax: 30s, 1000x).
#   .ci/fuzz.sh [FUZZTIME]
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-30s} failed=() n=0
out=$(mktemp)
trap 'rm -f "$out"' EXIT

# Go before 1.27 may report the end of fuzztime itself as a failure (go.dev/issue/75804). It then says
# this one line and nothing else; what a target finds comes with its input or a stack.
only_the_time_ran_out() {
  [ "$(sed -n '/^--- FAIL/,/^FAIL$/p' "$out" | sed '1d;$d')" = "    context deadline exceeded" ]
}

while IFS=: read -r file name; do
  pkg=./$(dirname "$file"); n=$((n + 1))
  echo "=== $pkg $name"
  go test -tags "${TAGS:-}" -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" "$pkg" 2>&1 | tee "$out" ||
    only_the_time_ran_out || failed+=("$pkg $name")
done < <(git ls-files -co --exclude-standard '*_test.go' |
  xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]*\(' | sed -E 's/:func (Fuzz[A-Za-z0-9_]*)\(/:\1/')
[ $n -gt 0 ] || { echo "fuzz: no fuzz target found" >&2; exit 1; }
echo "fuzz: $n targets, ${#failed[@]} failed"
[ ${#failed[@]} = 0 ] || { printf 'FAIL %s\n' "${failed[@]}"; exit 1; }
