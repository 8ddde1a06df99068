package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"mailhaul/internal/dial"
	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Trusted are the certificates a person said to trust, by server: a file beside the
// configuration, one line for each, "HOST:PORT SHA256 DATE".
type Trusted struct{ Path string }

// TrustedBeside returns those that belong to a configuration file; "" stands for
// DefaultPath.
func TrustedBeside(configuration string) Trusted {
	if configuration == "" {
		if configuration = DefaultPath(); configuration == "" {
			return Trusted{}
		}
	}
	return Trusted{Path: filepath.Join(filepath.Dir(configuration), "trusted")}
}

const maxTrusted = 1 << 20

// lines reads the file, which may be missing. One that others can write to is refused.
func (t Trusted) lines() ([]string, error) {
	if t.Path == "" {
		return nil, nil
	}
	st, err := os.Stat(t.Path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && !foreignModes && st.Mode().Perm()&0o022 != 0 {
		return nil, &mail.Error{Kind: mail.KindConfig, Op: t.Path, Err: fmt.Errorf("the file can be changed by others (mode %04o)", st.Mode().Perm()), Hint: "run chmod 600 " + t.Path}
	}
	if err == nil && st.Size() > maxTrusted {
		err = errors.New("the file is too long")
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(t.Path)
	}
	if err != nil {
		return nil, &mail.Error{Kind: mail.KindConfig, Op: t.Path, Err: err}
	}
	return strings.Split(strings.TrimRight(string(b), "\n"), "\n"), nil
}

// Fingerprint returns what is trusted at a server; "" if nothing was said of it.
func (t Trusted) Fingerprint(addr string) (string, error) {
	lines, err := t.lines()
	for i, line := range lines {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != addr {
			continue
		}
		if _, err := dial.ParseFingerprint(words[1]); err != nil {
			return "", &mail.Error{Kind: mail.KindConfig, Op: fmt.Sprintf("%s line %d", t.Path, i+1), Err: errors.New("this is no SHA-256"), Hint: "run mailhaul trust " + addr}
		}
		return words[1], nil
	}
	return "", err
}

// Set trusts a certificate at a server instead of another; "" trusts none. Errors
// are *mail.Error.
func (t Trusted) Set(ctx context.Context, addr, fingerprint string) error {
	if t.Path == "" {
		return &mail.Error{Kind: mail.KindConfig, Op: "trust " + addr, Err: errors.New("there is no home directory")}
	}
	fsys, err := durable.MakeRoot(filepath.Dir(t.Path))
	if err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "make " + filepath.Dir(t.Path), Err: err}
	}
	defer fsys.Close()
	lock, err := durable.LockFile(ctx, filepath.Join(filepath.Dir(t.Path), ".lock"), editWait)
	if err != nil {
		return &mail.Error{Kind: mail.KindTemporary, Op: "lock " + t.Path, Err: err, Hint: "another mailhaul is changing it; try again"}
	}
	defer lock.Close()
	lines, err := t.lines()
	if err != nil {
		return err
	}
	var text strings.Builder
	for _, line := range lines {
		if words := strings.Fields(line); len(words) > 0 && words[0] != addr {
			text.WriteString(line + "\n")
		}
	}
	if fingerprint != "" {
		fmt.Fprintf(&text, "%s %s %s\n", addr, fingerprint, time.Now().UTC().Format(time.DateOnly))
	}
	if err := durable.WriteFileAtomic(fsys, filepath.Base(t.Path), []byte(text.String())); err != nil {
		return &mail.Error{Kind: mail.KindDisk, Op: "write " + t.Path, Err: err}
	}
	return nil
}
