package upload

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
)

// mox is a mail server of another make, built from the module in test/mox.
type mox struct {
	dir  string // of configuration and data
	port string // of imaps
}

var moxPort = regexp.MustCompile(`Port: (\d+)`)

// startMox builds and starts one on free ports.
func startMox(t *testing.T) *mox {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "mox")
	build := exec.Command("go", "build", "-o", bin, "github.com/mjl-/mox")
	build.Dir = filepath.Join("..", "mox")
	if out, err := build.CombinedOutput(); err != nil {
		if os.Getenv(dovecot.RequireEnv) == "1" {
			t.Fatalf("build mox: %v\n%s", err, out)
		}
		t.Skipf("mox cannot be built: %v\n%s", err, out)
	}
	m := &mox{dir: filepath.Join(t.TempDir(), "mox")}
	if out, err := exec.Command(bin, "localserve", "-dir", m.dir, "-ip", "127.0.0.1", "-initonly").CombinedOutput(); err != nil {
		t.Fatalf("configure mox: %v\n%s", err, out)
	}
	conf, err := os.ReadFile(filepath.Join(m.dir, "mox.conf"))
	must(t, err)
	free := make(map[string]string)
	conf = moxPort.ReplaceAllFunc(conf, func(line []byte) []byte {
		port := string(moxPort.FindSubmatch(line)[1])
		if free[port] == "" {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			_, free[port], _ = net.SplitHostPort(l.Addr().String())
		}
		return []byte("Port: " + free[port])
	})
	must(t, os.WriteFile(filepath.Join(m.dir, "mox.conf"), conf, 0o600))
	m.port = free["1993"]

	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, bin, "localserve", "-dir", m.dir)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &log, &log, 5*time.Second
	must(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("mox:\n%s", log.String()[max(0, log.Len()-4000):])
		}
	})
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", "127.0.0.1:"+m.port)
		if err == nil {
			_ = c.Close()
			return m
		}
		select {
		case <-ended:
			t.Fatal("mox has ended")
		default:
		}
		if time.Now().After(until) {
			t.Fatal(err)
		}
	}
}

// A server of another make takes what it takes, each message once, gives it back
// octet for octet, and what it refuses is named.
func TestMox(t *testing.T) {
	t.Parallel()
	server := startMox(t)
	s := dovecot.Start(t, dovecot.Options{})
	for i, box := range []string{"INBOX", "Archive/2023", "Gesendet", "Odd [name] & more"} {
		var list []dovecot.Message
		for k := range 60 {
			g := corpus.Generate(corpus.Small, 100*i+k)
			list = append(list, dovecot.Message{Octets: g.Octets, Date: g.Date, Flags: []string{`\Seen`, "$Forwarded"}[:k%3%2+k%2]})
		}
		must(t, s.Append("ada", box, list...))
	}
	h := newHost(t, s.CAFile)
	dest := fmt.Sprintf("imaps://mox@localhost@localhost:%s", server.port)
	h.write("password", "moxmoxmox\n")
	to := []string{dest, "--dest-ca-file", filepath.Join(server.dir, "localhost.crt"), "--dest-password-file", h.path("password")}
	h.run(0, "backup", imaps(s, "ada"), h.path("mail"))
	for pass := range 2 {
		sum := h.json(0, append([]string{"upload", h.path("mail")}, to...)...)
		if sum.Uploaded != int64(240-240*pass) || sum.Skipped != int64(240*pass) {
			t.Errorf("pass %d: %+v", pass, sum)
		}
	}
	if out := h.run(0, append([]string{"verify", h.path("mail")}, to...)...); strings.Contains(out, "missing at") {
		t.Error(out)
	}
	if sum := h.json(0, append([]string{"migrate", imaps(s, "ada")}, to...)...); sum.Adopted != 240 {
		t.Errorf("%+v", sum)
	}
	h.run(0, append([]string{"verify", imaps(s, "ada")}, to...)...)
}

func (h *host) write(name, text string) {
	h.Helper()
	must(h, os.WriteFile(h.path(name), []byte(text), 0o600))
}
