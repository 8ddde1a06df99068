#!/usr/bin/env bash
# Runs every fuzz target of the tree for a time, two at once (MAILHAUL_FUZZ_PARALLEL) with one worker each,
# and fails with the whole output of those that found something.
#
#   test/fuzz.sh [TIME] [PACKAGE...]     TIME as in 10s or 10m, a package as in ./mail
#
# A target that ends with nothing but "context deadline exceeded" found nothing: go
# test reports so when its own time runs out while a worker is busy. What is found
# is written to testdata/fuzz, and there is output of another kind.
set -euo pipefail
cd "$(dirname "$0")/.."

one() { # TIME PACKAGE TARGET
	local log found
	log=$(go test -run '^$' -fuzz "^$3\$" -fuzztime "$1" -fuzzminimizetime 50x -parallel 1 "$2" </dev/null 2>&1) && {
		printf '%s %s: %s\n' "$2" "$3" "$(grep execs <<<"$log" | tail -n 1)"
		return 0
	}
	found=$(grep -vE '^(fuzz: |waiting for fuzzing process to terminate|--- FAIL: Fuzz|FAIL|exit status 1$|    context deadline exceeded$|$)' <<<"$log" || true)
	if [ -z "$found" ] && grep -q '^    context deadline exceeded$' <<<"$log"; then
		printf '%s %s: %s (its end came late)\n' "$2" "$3" "$(grep execs <<<"$log" | tail -n 1)"
		return 0
	fi
	printf '%s %s FAILED\n%s\n' "$2" "$3" "$log"
	return 1
}

if [ "${1:-}" = one ]; then
	shift
	one "$@"
	exit
fi

time=${1:-10s}
shift || true
[ $# -gt 0 ] || mapfile -t < <(grep -rlE '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u) && set -- "${MAPFILE[@]}" "$@"
for package in "$@"; do
	go test -list '^Fuzz' "$package" | { grep '^Fuzz' || true; } | sed "s|^|$package |"
done | xargs -P "${MAILHAUL_FUZZ_PARALLEL:-2}" -L 1 "$PWD/test/fuzz.sh" one "$time"
