package vault

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// markName is the file in Dir that says which archive this is:
//
//	mailhaul archive 1
//	id RANDOM
//	format maildir
const markName = "archive"

const (
	markFirst = "mailhaul archive "
	markV1    = markFirst + "1"
	markLimit = 4096
)

// mark is what is known of an archive without its ledger.
type mark struct {
	ID     string
	Format string
}

func (m mark) encode(more ...string) []byte {
	lines := append([]string{markV1, "id " + m.ID, "format " + m.Format}, more...)
	return []byte(strings.Join(lines, "\n") + "\n")
}

var errMark = errors.New("not a mark of an archive")

// parseMark reads a mark; newer says that it is one of a newer version.
func parseMark(data []byte) (m mark, newer bool, err error) {
	lines := strings.Split(string(data), "\n")
	if lines[0] != markV1 {
		return mark{}, strings.HasPrefix(lines[0], markFirst), errMark
	}
	for _, line := range lines[1:] {
		switch key, value, _ := strings.Cut(line, " "); key {
		case "id":
			m.ID = value
		case "format":
			m.Format = value
		}
	}
	if m.ID == "" || m.Format == "" {
		return mark{}, false, errMark
	}
	return m, false, nil
}

// readMark returns the archive's mark; the zero mark if it is missing or damaged,
// since all it holds can be found out otherwise.
func readMark(fsys durable.FS) (mark, error) {
	data, err := durable.ReadFile(fsys, path.Join(Dir, markName), markLimit)
	if errors.Is(err, fs.ErrNotExist) {
		return mark{}, nil
	}
	if err != nil {
		return mark{}, diskError("open archive", err)
	}
	m, newer, _ := parseMark(data)
	if newer {
		return mark{}, &mail.Error{Kind: mail.KindConfig, Op: "open archive",
			Err:  errors.New("it is of a version this program does not know"),
			Hint: "use the newer mailhaul that wrote this archive"}
	}
	return m, nil
}

// keepMark writes the mark if there is none, and remembers the file.
func (v *Vault) keepMark() error {
	name := path.Join(Dir, markName)
	have, err := readMark(v.fsys)
	if err != nil {
		return err
	}
	if have.ID == "" && !v.readOnly {
		if v.mark.ID == "" {
			v.mark.ID = rand.Text()
		}
		if err := durable.WriteFileAtomic(v.fsys, name, v.mark.encode()); err != nil {
			return diskError("mark archive", err)
		}
	} else if have.ID != "" {
		v.mark.ID = have.ID
	}
	v.markInfo, err = os.Stat(filepath.Join(v.path, name))
	if err != nil && !v.readOnly {
		return diskError("mark archive", err)
	}
	return nil
}

// memory is the user's state directory, where a note lies for each path that
// held an archive. It is a courtesy: whatever fails in it is passed over.
type memory struct{ dir string }

func openMemory(dir string) memory {
	if dir == "" {
		dir = StateDir()
	}
	if dir == "" {
		return memory{}
	}
	return memory{dir: filepath.Join(dir, "archives")}
}

// StateDir returns $XDG_STATE_HOME/mailhaul or ~/.local/state/mailhaul; "" if the
// user has no home.
func StateDir() string {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "mailhaul")
	}
	home, err := os.UserHomeDir()
	if err != nil || !filepath.IsAbs(home) {
		return ""
	}
	return filepath.Join(home, ".local", "state", "mailhaul")
}

func noteName(archive string) string {
	sum := sha256.Sum256([]byte(archive))
	return hex.EncodeToString(sum[:16])
}

// recall returns what was noted for a path; the zero mark if nothing was.
func (m memory) recall(archive string) mark {
	if m.dir == "" {
		return mark{}
	}
	fsys, err := durable.OpenRoot(m.dir)
	if err != nil {
		return mark{}
	}
	defer fsys.Close()
	data, err := durable.ReadFile(fsys, noteName(archive), markLimit)
	if err != nil {
		return mark{}
	}
	k, _, _ := parseMark(data)
	return k
}

// note notes which archive is at a path, unless that stands there already.
func (m memory) note(archive string, k mark) {
	if m.dir == "" || k.ID == "" || m.recall(archive) == k {
		return
	}
	fsys, err := durable.MakeRoot(m.dir)
	if err != nil {
		return
	}
	defer fsys.Close()
	_ = durable.WriteFileAtomic(fsys, noteName(archive), k.encode(fmt.Sprintf("path %q", archive)))
}
