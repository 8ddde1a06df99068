#!/bin/sh
# A real systemd of a user installs the timer of `mailhaul schedule`, fires it once
# because a run was missed, and removes it. It takes up to three minutes, since a timer
# has jitter, and wants root, systemd and cgroups; no other test runs it.
#
#	sudo test/timer.sh
set -eu
case ${1:-} in
'') # in namespaces of its own, where /run says that systemd was booted
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	chmod 755 "$dir"
	go build -o "$dir/mailhaul" ./cmd/mailhaul
	mkdir -p "$dir/home/.config/mailhaul" "$dir/run"
	cat >"$dir/home/.config/mailhaul/config.toml" <<-END
		[account.home]
		server = "imap+insecure://ada@127.0.0.1:1" # nobody listens: exit 75
		password-command = "echo x"
		archive = "~/Mail"
	END
	chmod 600 "$dir/home/.config/mailhaul/config.toml"
	chown -R nobody "$dir/home" "$dir/run"
	chmod 700 "$dir/run"
	unshare --mount sh "$0" namespace "$dir"
	;;
namespace)
	mount -t tmpfs tmpfs /run
	mkdir -p /run/systemd/system
	groups=
	for tree in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
		[ -e $tree/cgroup.procs ] || continue
		mkdir $tree/mailhaul.$$ && echo $$ >$tree/mailhaul.$$/cgroup.procs
		chown -R nobody $tree/mailhaul.$$
		groups="$groups $tree"
	done
	rc=0
	setpriv --reuid=nobody --clear-groups env -i PATH="$PATH" HOME="$2/home" XDG_RUNTIME_DIR="$2/run" sh "$0" user "$2/mailhaul" || rc=$?
	for tree in $groups; do
		echo $$ >"$tree/cgroup.procs"
		find "$tree/mailhaul.$$" -depth -type d -exec rmdir {} \;
	done
	exit $rc
	;;
user)
	/lib/systemd/systemd --user >"$XDG_RUNTIME_DIR/log" 2>&1 &
	manager=$!
	trap 'kill $manager; wait $manager || true' EXIT
	tries=0
	until systemctl --user is-system-running >/dev/null; do
		tries=$((tries + 1))
		[ $tries -lt 50 ] || { cat "$XDG_RUNTIME_DIR/log"; echo 'no systemd --user here'; exit 1; }
		sleep 0.2
	done
	"$2" schedule home --every 5m
	systemctl --user list-timers | grep mailhaul-home.timer
	systemctl --user stop mailhaul-home.timer
	mkdir -p ~/.local/share/systemd/timers
	touch -d '2 days ago' ~/.local/share/systemd/timers/stamp-mailhaul-home.timer
	systemctl --user start mailhaul-home.timer
	tries=0
	until "$2" account show home | grep 'last backup .*exit code 75'; do
		tries=$((tries + 1))
		[ $tries -lt 170 ] || { echo 'the timer did not fire'; exit 1; }
		sleep 1
	done
	"$2" schedule home --remove
	! systemctl --user list-timers --all | grep mailhaul || { echo 'the timer is still there'; exit 1; }
	echo 'the timer fired, and is gone'
	;;
esac
