#!/usr/bin/env bash
# Everything that must hold before a change goes in: format, vet, staticcheck,
# builds for other systems, the package, short fuzzing, all tests under the race detector.
# As root on Debian or Ubuntu it installs the programs the tests drive, without
# starting any service; elsewhere a missing program skips its tests.
#
#   ./test.sh           all of it
#   ./test.sh quick     no fuzzing, no package, no builds for other systems
set -euo pipefail
cd "$(dirname "$0")"

step() { printf '\n== %s\n' "$*"; }

# program:package pairs that the tests need.
needs="dovecot:dovecot-imapd /usr/lib/dovecot/pop3:dovecot-pop3d mutt:mutt python3:python3 gcc:gcc /usr/include/stdlib.h:libc6-dev strace:strace script:bsdutils awk:mawk systemd-analyze:systemd mkfs.xfs:xfsprogs mkfs.ext4:e2fsprogs mkfs.exfat:exfatprogs mount.exfat-fuse:exfat-fuse gnome-keyring-daemon:gnome-keyring dbus-run-session:dbus-daemon dbus-send:dbus-bin"

missing() {
	local pair
	for pair in $needs; do
		command -v "${pair%%:*}" >/dev/null || [ -e "${pair%%:*}" ] || printf '%s ' "${pair##*:}"
	done
}

install_missing() {
	local packages own_policy=
	packages=$(PATH="$PATH:/usr/sbin:/sbin" missing)
	[ -n "$packages" ] || return 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		echo "not installed: $packages(their tests are skipped unless MAILHAUL_TEST_REQUIRE=1)"
		return 0
	fi
	step "install $packages"
	if [ ! -e /usr/sbin/policy-rc.d ]; then # no package may start its service
		printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
		chmod 755 /usr/sbin/policy-rc.d
		own_policy=1
	fi
	export DEBIAN_FRONTEND=noninteractive
	local ok=0
	# shellcheck disable=SC2086 # a list of packages
	{ apt-get update -qq && apt-get install -y -qq --no-install-recommends $packages >/dev/null; } || ok=$?
	[ -z "$own_policy" ] || rm -f /usr/sbin/policy-rc.d
	return "$ok"
}

check_format() {
	local files
	files=$(gofmt -l .)
	[ -z "$files" ] || { printf 'not formatted by gofmt:\n%s\n' "$files"; return 1; }
}

mode=${1:-all}
export PATH="$PATH:/usr/sbin:/sbin"
install_missing

step gofmt
check_format
step go vet
go vet ./...
step staticcheck
go tool staticcheck ./...
step build
go build ./...
if [ "$mode" = all ]; then
	for target in darwin/arm64 windows/amd64 linux/386; do
		step "build and vet for $target"
		CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go build ./...
		CGO_ENABLED=0 GOOS=${target%/*} GOARCH=${target#*/} go vet ./...
	done
	step package
	packaging/check
	step fuzz
	test/fuzz.sh "${MAILHAUL_FUZZTIME:-10s}"
fi
step go test
go test -race -shuffle=on -timeout 15m ./...
