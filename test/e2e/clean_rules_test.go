package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"mailhaul/internal/dovecot"
)

// subjects are the numbers in the subjects of what a mailbox still has.
func subjects(t *testing.T, s *dovecot.Server, user, mailbox string) (list []int) {
	t.Helper()
	msgs, err := s.Messages(user, mailbox)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range msgs {
		_, rest, _ := strings.Cut(string(m.Octets), "Subject: message ")
		n := -1
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatalf("%q: %v", m.Octets, err)
		}
		list = append(list, n)
	}
	return list
}

func TestCleanRules(t *testing.T) {
	s := server(t)
	for i, c := range []struct {
		args string
		left []int // of INBOX, whose messages are aged 1 to 10 days
		list int   // of Lists
	}{
		{"--older-than 5d", []int{0, 1, 2, 3, 6}, 1},
		{"--older-than 5d --include-flagged", []int{0, 1, 2, 3}, 1},
		{"--flagged", []int{0, 1, 2, 3, 4, 5, 7, 8, 9}, 3},
		{"--older-than 5d --no-flagged --seen", []int{0, 1, 2, 3, 4, 5, 6, 8, 9}, 3},
		{"--mailbox Lists --older-than 0d", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 0},
		{"--exclude Lists --newer-than 3d", []int{2, 3, 4, 5, 6, 7, 8, 9}, 3},
		{"--larger 1K", []int{0, 1, 3, 4, 5, 6, 7, 8, 9}, 3},
		{"--free 1K", []int{0, 1, 2, 3, 6}, 2},
		{"--until-quota 50%", []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, 3},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			h := newHost(t, s)
			user := fmt.Sprint("rules", i)
			archive := filepath.Join(h.home, "archive")
			msgs := aged(10, 0)
			msgs[2].Octets = append(msgs[2].Octets, strings.Repeat("large\r\n", 300)...)
			msgs[6].Flags, msgs[7].Flags = []string{`\Flagged`}, []string{`\Seen`}
			load(t, s, user, "INBOX", msgs...)
			load(t, s, user, "Lists", aged(3, 3)...)
			source := place("imaps", s, user)
			h.complete(source, archive)
			code := 0
			if strings.Contains(c.args, "quota") {
				code = 69 // this server has none
			}
			h.must(code, append([]string{"clean", source, archive, "--yes"}, strings.Fields(c.args)...)...)
			if got := subjects(t, s, user, "INBOX"); !slices.Equal(got, c.left) {
				t.Errorf("left: %v, want %v", got, c.left)
			}
			count(t, s, user, "Lists", c.list)
		})
	}
}

// More than half of a larger mailbox goes only if somebody says how much.
func TestCleanCeiling(t *testing.T) {
	forAll(t, "ceiling", func(t *testing.T, s *dovecot.Server, h *host, scheme, user, archive string) {
		load(t, s, user, "INBOX", aged(110, 0)...)
		source := place(scheme, s, user)
		h.complete(source, archive)
		if r := h.must(1, "clean", source, archive, "--older-than", "40d", "--yes"); !strings.Contains(r.stderr, "more than half of INBOX") || !strings.Contains(r.stderr, "--max-delete") {
			t.Errorf("%v", r)
		}
		for _, limit := range []string{"70", "60%"} {
			if r := h.must(1, "clean", source, archive, "--older-than", "40d", "--yes", "--max-delete", limit); !strings.Contains(r.stderr, "--max-delete") {
				t.Errorf("%v", r)
			}
		}
		count(t, s, user, "INBOX", 110)
		h.clean(0, source, archive, "--older-than", "40d", "--yes", "--max-delete", "65%")
		count(t, s, user, "INBOX", 39)
		// A small mailbox needs no ceiling.
		h.clean(0, source, archive, "--older-than", "0d", "--yes")
		count(t, s, user, "INBOX", 0)
	})
}

// What others marked stays, and stays marked; what is flagged meanwhile stays; what
// never came into the archive stays.
func TestCleanLeavesOthersAlone(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	const user = "others"
	archive := filepath.Join(h.home, "archive")
	load(t, s, user, "INBOX", aged(8, 10)...)
	source := place("imaps", s, user)
	h.complete(source, archive)
	load(t, s, user, "INBOX", aged(1, 5000)...) // UID 9: not archived, and longer than the others
	for uids, flag := range map[string]string{"2,9": `\Deleted`, "4": `\Flagged`, "6": `\Seen`} {
		if err := s.Store(user, "INBOX", uids, "+FLAGS", flag); err != nil {
			t.Fatal(err)
		}
	}
	c := h.clean(0, source, archive, "--older-than", "5d", "--yes")
	if c.Deleted != 6 || c.Stayed["not in the archive"] != 1 || c.Stayed["flagged"] != 1 || c.Stayed[`marked \Deleted by another program`] != 1 {
		t.Errorf("%+v", c)
	}
	msgs, err := s.Messages(user, "INBOX")
	if err != nil || len(msgs) != 3 {
		t.Fatalf("%d left, %v", len(msgs), err)
	}
	for _, m := range msgs {
		if slices.Contains(m.Flags, `\Deleted`) != (m.UID != 4) {
			t.Errorf("UID %d has %v", m.UID, m.Flags)
		}
	}
}

// A new UIDVALIDITY frees nothing until the messages were seen again; then they are
// fetched once more before they go.
func TestCleanAfterNewUIDValidity(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	load(t, s, "validity", "INBOX", aged(6, 10)...)
	source := place("imaps", s, "validity")
	h.complete(source, archive)
	if err := s.SetUIDValidity("validity", "INBOX", 4711); err != nil {
		t.Fatal(err)
	}
	if c := h.clean(0, source, archive, "--older-than", "5d", "--yes"); c.Deleted != 0 || c.Stayed["not in the archive"] != 6 {
		t.Errorf("%+v", c)
	}
	count(t, s, "validity", "INBOX", 6)
	if sum := h.complete(source, archive); sum.Adopted != 6 {
		t.Errorf("%+v", sum)
	}
	if c := h.clean(0, source, archive, "--older-than", "5d", "--yes"); c.Deleted != 6 {
		t.Errorf("%+v", c)
	}
}

// A damaged archive: what it can prove goes, the rest stays, and the code is 65.
func TestCleanWithDamagedArchive(t *testing.T) {
	s := server(t)
	for _, scheme := range schemes {
		t.Run(scheme, func(t *testing.T) {
			h := newHost(t, s)
			archive := filepath.Join(h.home, "archive")
			user := "damaged-" + scheme
			load(t, s, user, "INBOX", aged(6, 10)...)
			source := place(scheme, s, user)
			h.complete(source, archive)
			files := maildir(t, archive, "INBOX")
			st, err := os.Stat(files[1].path)
			if err != nil {
				t.Fatal(err)
			}
			octets := []byte(read(t, files[1].path))
			octets[len(octets)-5] ^= 1
			if err := os.WriteFile(files[1].path, octets, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chtimes(files[1].path, st.ModTime(), st.ModTime()); err != nil {
				t.Fatal(err)
			}
			if err := os.Remove(files[3].path); err != nil {
				t.Fatal(err)
			}
			c := h.clean(65, source, archive, "--older-than", "5d", "--yes")
			if c.Deleted != 4 || c.Failed+c.Skipped != 2 {
				t.Errorf("%+v", c)
			}
			count(t, s, user, "INBOX", 2)
		})
	}
}

// Down to a share of the quota, oldest first, and no further.
func TestCleanUntilQuota(t *testing.T) {
	s := dovecot.Start(t, dovecot.Options{Quota: "1M"})
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	msgs := aged(8, 0)
	for i := range msgs {
		msgs[i].Octets = append(msgs[i].Octets, strings.Repeat("0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n", 1600)...)
	}
	load(t, s, "quota", "INBOX", msgs...) // 8 times 100 K
	source := place("imaps", s, "quota")
	h.complete(source, archive)
	if c := h.clean(0, source, archive, "--until-quota", "90%", "--yes"); c.Deleted != 0 {
		t.Errorf("under it already: %+v", c)
	}
	h.clean(0, source, archive, "--until-quota", "50%", "--yes")
	if got := subjects(t, s, "quota", "INBOX"); !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
		t.Errorf("left %v", got)
	}
}

// Two runs wait for one another.
func TestCleanTwiceAtOnce(t *testing.T) {
	s := server(t)
	h := newHost(t, s)
	archive := filepath.Join(h.home, "archive")
	load(t, s, "twice", "INBOX", aged(50, 10)...)
	source := place("imaps", s, "twice")
	h.complete(source, archive)
	first := h.start("clean", source, archive, "--older-than", "30d", "--yes", "--lock-wait", "30s")
	second := h.start("clean", source, archive, "--older-than", "30d", "--yes", "--lock-wait", "30s")
	for _, r := range []result{first.result(), second.result()} {
		if r.code != 0 {
			t.Errorf("%v", r)
		}
	}
	count(t, s, "twice", "INBOX", 19)
}
