package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/dovecot"
)

// desktop runs commands of a shell in a session bus of their own, with a keyring
// that the passphrase unlocks; "" leaves it locked.
func (h *host) desktop(passphrase, commands string) result {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	runtime := filepath.Join(h.home, "runtime")
	if err := os.MkdirAll(runtime, 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(h.home, "passphrase"), []byte(passphrase), 0o600); err != nil {
		h.t.Fatal(err)
	}
	unlock := ""
	if passphrase != "" {
		unlock = "--unlock"
	}
	script := `
gnome-keyring-daemon --foreground --components=secrets ` + unlock + ` <passphrase >daemon.log 2>&1 &
trap 'kill $!' EXIT
owned() { dbus-send --session --dest=org.freedesktop.DBus --print-reply / org.freedesktop.DBus.NameHasOwner string:org.freedesktop.secrets | grep -q true; }
tries=0
until owned || [ $tries -gt 300 ]; do tries=$((tries+1)); sleep 0.1; done
` + commands
	cmd := h.command(ctx)
	cmd.Path, _ = exec.LookPath("dbus-run-session") // was there
	cmd.Args = []string{cmd.Path, "--", "sh", "-c", script}
	cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+runtime, "XDG_DATA_HOME="+filepath.Join(h.home, "data"), "MAILHAUL="+h.bin, "CA="+h.caFile)
	return h.finish(cmd)
}

// setup keeps the password in the keyring of a desktop, and runs find it there. Where
// it is locked, or there is none, they say so.
func TestKeyring(t *testing.T) {
	for _, program := range []string{"gnome-keyring-daemon", "dbus-run-session", "dbus-send"} {
		if _, err := exec.LookPath(program); err != nil {
			missing(t, err.Error())
		}
	}
	s := server(t)
	load(t, s, "desktop", "INBOX", ordinary(3, 0)...)
	h := newHost(t, s)
	h.password = ""
	r := h.desktop("open sesame", `MAILHAUL_PASSWORD=`+dovecot.Password+` "$MAILHAUL" setup desktop@example.org --yes --name home --archive archive --ca-file "$CA" --server `+place("imaps", s, "desktop")+` &&
"$MAILHAUL" backup home && "$MAILHAUL" account show home`)
	if r.code != 0 || !strings.Contains(r.stdout, "The password is kept in the keyring.") || !strings.Contains(r.stdout, "home: 3 new messages") || !strings.Contains(r.stdout, "in the keyring\n") {
		t.Fatal(r)
	}
	config, err := os.ReadFile(filepath.Join(h.home, "config", "mailhaul", "config.toml"))
	if err != nil || !strings.Contains(string(config), "keyring = true\n") || strings.Contains(string(config), dovecot.Password) {
		t.Errorf("%s, %v", config, err)
	}
	if _, err := os.Stat(filepath.Join(h.home, "config", "mailhaul", "secrets")); !os.IsNotExist(err) {
		t.Errorf("a file for the password, too: %v", err)
	}
	if r := h.desktop("", `"$MAILHAUL" backup home`); r.code != 77 || !strings.Contains(r.stderr, "error: read from the keyring: ") || !strings.Contains(r.stderr, "hint: unlock it, or keep the secret in a file") {
		t.Errorf("locked: %v", r)
	}
	if r := h.run("backup", "home"); r.code != 77 || !strings.Contains(r.stderr, "there is no keyring in this session") {
		t.Errorf("no session: %v", r)
	}
	if r := h.desktop("open sesame", `"$MAILHAUL" backup home`); r.code != 0 || !strings.Contains(r.stdout, "home: 0 new messages") {
		t.Errorf("unlocked again: %v", r)
	}
}
