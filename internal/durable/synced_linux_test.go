package durable

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const syncedEnv = "MAILHAUL_DURABLE_SYNCED"

// TestMain does what the child of TestDirectoriesAreSynced is to do.
func TestMain(m *testing.M) {
	dir := os.Getenv(syncedEnv)
	if dir == "" {
		os.Exit(m.Run())
	}
	fsys, err := MakeRoot(filepath.Join(dir, "made", "inner"))
	if err == nil {
		err = fsys.Mkdir("sub")
	}
	if err == nil {
		err = fsys.SyncDir("sub")
	}
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	os.Exit(0)
}

// No error and no state shows whether a directory was synced: the system is watched.
func TestDirectoriesAreSynced(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("MAILHAUL_TEST_REQUIRE") == "1" {
			t.Fatal("strace is not installed")
		}
		t.Skip("strace is not installed")
	}
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(strace, "-f", "-y", "-qq", "-o", log, "-e", "trace=fsync,fdatasync", os.Args[0])
	cmd.Env = append(os.Environ(), syncedEnv+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "ptrace") {
			t.Skipf("no tracing here: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".", "made", "made/inner/sub"} {
		if !strings.Contains(string(calls), "<"+filepath.Join(dir, name)+">") {
			t.Errorf("%s was not synced: %s", name, calls)
		}
	}
}
