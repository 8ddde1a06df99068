package main

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"mailhaul/internal/corpus"
	"mailhaul/internal/dovecot"
	"mailhaul/internal/relay"
)

// uploading is what the measurements of upload have in common: one archive, and a
// new account for each run.
type uploading struct {
	s     *dovecot.Server
	work  string
	tools tools
	runs  int
	count int
	n     int // accounts so far
}

// uploader is one program; command prepares a run and returns what is measured.
type uploader struct {
	name    string
	command func(u *uploading, port int, user, dir string) (*exec.Cmd, error)
}

const (
	bareGroups = "bare MULTIAPPEND of 100"
	bareSingle = "bare LITERAL+ APPENDs"
)

var uploaders = []uploader{
	{bareGroups, bareUpload(100)},
	{bareSingle, bareUpload(1)},
	{"mailhaul", mailhaulUpload},
	{"mbsync", mbsyncUpload},
}

// uploadMain measures sending an archive to an empty account:
//
//	go run ./bench upload
//	go run ./bench upload -runs 3 -only slow
func uploadMain(args []string) (err error) {
	f := flag.NewFlagSet("upload", flag.ContinueOnError)
	runs := f.Int("runs", 5, "runs of each program; the median counts")
	delay := f.Duration("delay", 20*time.Millisecond, "delay each way of the slow line")
	only := f.String("only", "", "only 0 or slow")
	count := f.Int("n", 2000, "messages of 2-8 KB")
	dir := f.String("dir", "", "where to write; default the temporary directory")
	binary := f.String("mailhaul", "", "binary to measure instead of a build of this checkout")
	if err := f.Parse(args); err != nil {
		return err
	}
	u := &uploading{runs: *runs, count: *count}
	if u.work, err = workDir(*dir); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(u.work)) }()
	if u.tools, err = build(u.work, *binary); err != nil {
		return err
	}
	// A destination that syncs what it takes, as real ones do.
	if u.s, err = dovecot.Run(*dir, dovecot.Options{MailLocation: dovecot.MDBox, Extra: "mail_fsync = optimized\n"}); err != nil {
		return err
	}
	defer func() { u.s.Stop(); err = errors.Join(err, os.RemoveAll(u.s.Dir)) }()
	r, err := relay.Start(u.s.Addr(u.s.IMAPS), relay.Options{Delay: *delay})
	if err != nil {
		return err
	}
	defer r.Close()
	if err := u.fill(); err != nil {
		return err
	}
	for _, sec := range []struct {
		name string
		port int
		rtt  time.Duration
	}{{"0", u.s.IMAPS, 0}, {"slow", r.Port(), 2 * *delay}} {
		if strings.HasPrefix(sec.name, *only) {
			u.section(sec.name, sec.port, sec.rtt)
		}
	}
	return nil
}

// fill makes the archive, the Maildir and the octets of the bare programs.
func (u *uploading) fill() error {
	c, err := u.s.Dial("source")
	if err != nil {
		return err
	}
	defer c.Close()
	var all []dovecot.Message
	for i := range u.count {
		g := corpus.Generate(corpus.Small, i)
		all = append(all, dovecot.Message{Octets: g.Octets, Date: g.Date})
	}
	if err := c.Append("INBOX", all...); err != nil {
		return err
	}
	for _, group := range []int{1, 100} {
		var b bytes.Buffer
		for part := range slices.Chunk(all, group) {
			b.WriteString("a APPEND INBOX")
			for _, m := range part {
				fmt.Fprintf(&b, " () \"%s\" {%d+}\r\n", m.Date.Format("_2-Jan-2006 15:04:05 -0700"), len(m.Octets))
				b.Write(m.Octets)
			}
			b.WriteString("\r\n")
		}
		if err := os.WriteFile(filepath.Join(u.work, fmt.Sprint("octets", group)), b.Bytes(), 0o600); err != nil {
			return err
		}
	}
	maildir := filepath.Join(u.work, "maildir")
	if err := mkMaildir(maildir); err != nil {
		return err
	}
	for i, m := range all {
		path := filepath.Join(maildir, "cur", fmt.Sprintf("%d.%d.bench:2,", m.Date.Unix(), i))
		if err := os.WriteFile(path, bytes.ReplaceAll(m.Octets, []byte("\r\n"), []byte("\n")), 0o600); err != nil {
			return err
		}
		if err := os.Chtimes(path, m.Date, m.Date); err != nil {
			return err
		}
	}
	cmd := u.mailhaul("backup", u.s.IMAPS, "source", filepath.Join(u.work, "archive"))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

func (u *uploading) section(name string, port int, rtt time.Duration) {
	results := make([][]measured, len(uploaders))
	for run := range u.runs {
		for i, p := range uploaders {
			m, err := u.once(p, port)
			if err != nil {
				fmt.Fprintf(os.Stderr, "upload-%s, %s: %v\n", name, p.name, err)
				m.wrong = "failed"
			}
			results[i] = append(results[i], m)
			fmt.Fprintf(os.Stderr, "\r\x1b[Kupload-%s: run %d, %s: %.2f s", name, run+1, p.name, m.seconds)
		}
	}
	fmt.Fprint(os.Stderr, "\r\x1b[K")
	fmt.Printf("\nupload-%s: %d messages of 2-8 KB to one mailbox over TLS, %d ms round trip\n", name, u.count, rtt.Milliseconds())
	fmt.Printf("  %-26s %9s %15s %8s %9s\n", "", "seconds", "least-most", "CPU s", "peak MiB")
	for i, p := range uploaders {
		by := func(a, b measured) int { return cmp.Compare(a.seconds, b.seconds) }
		fmt.Printf("  %-26s %9.3f %15s %8.2f %9.1f", p.name, median(results[i], seconds),
			fmt.Sprintf("%.3f-%.3f", slices.MinFunc(results[i], by).seconds, slices.MaxFunc(results[i], by).seconds),
			median(results[i], func(m measured) float64 { return m.cpu }), median(results[i], peakMiB))
		for _, m := range results[i] {
			if m.wrong != "" {
				fmt.Printf("  WRONG: %s", m.wrong)
				break
			}
		}
		fmt.Println()
	}
	s := section{name: "upload-" + name, targets: []target{within("mailhaul", bareGroups, 1.4), slower("mbsync", "mailhaul", 2), modest("mailhaul")}}
	for _, p := range uploaders {
		s.entrants = append(s.entrants, entrant{name: p.name})
	}
	s.judge(results)
}

// once runs a program against a new account and counts what arrived.
func (u *uploading) once(p uploader, port int) (m measured, err error) {
	u.n++
	user := fmt.Sprint("new", u.n)
	dir := filepath.Join(u.work, user)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return m, err
	}
	cmd, err := p.command(u, port, user, dir)
	if err != nil {
		return m, err
	}
	settle()
	if m, err = watched(u.tools.self, cmd); err != nil {
		return m, err
	}
	n, err := u.s.Count(user, "INBOX")
	if err == nil && n != u.count {
		m.wrong = fmt.Sprintf("%d messages, want %d", n, u.count)
	}
	return m, err
}

func (u *uploading) mailhaul(verb string, port int, user, archive string) *exec.Cmd {
	place := "imaps://" + user + "@" + u.s.Host + ":" + strconv.Itoa(port)
	args := []string{verb, "-q", "--ca-file", u.s.CAFile, archive, place}
	if verb == "backup" {
		args[4], args[5] = place, archive
	}
	cmd := exec.Command(u.tools.mailhaul, args...)
	cmd.Env = movingEnv(u.work, "MAILHAUL_PASSWORD="+dovecot.Password, "XDG_STATE_HOME="+filepath.Join(u.work, "state"))
	return cmd
}

func mailhaulUpload(u *uploading, port int, user, _ string) (*exec.Cmd, error) {
	return u.mailhaul("upload", port, user, filepath.Join(u.work, "archive")), nil
}

func mbsyncUpload(u *uploading, port int, user, dir string) (*exec.Cmd, error) {
	if err := os.CopyFS(filepath.Join(dir, "mail"), os.DirFS(filepath.Join(u.work, "maildir"))); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "mbsyncrc")
	text := fmt.Sprintf("IMAPStore far\nHost localhost\nPort %d\nUser %s\nPass %s\nSSLType IMAPS\nCertificateFile %s\n\n"+
		"MaildirStore near\nPath %s/\nInbox %s/mail\n\nChannel all\nFar :far:\nNear :near:\nPatterns INBOX\nSync Push\nCopyArrivalDate yes\nSyncState *\n",
		port, user, dovecot.Password, u.s.CAFile, dir, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("mbsync", "-q", "-c", conf, "all")
	cmd.Env = movingEnv(dir)
	return cmd, nil
}

func bareUpload(group int) func(*uploading, int, string, string) (*exec.Cmd, error) {
	return func(u *uploading, port int, user, _ string) (*exec.Cmd, error) {
		return exec.Command(u.tools.self, "append", u.s.Host+":"+strconv.Itoa(port), u.s.CAFile, user,
			filepath.Join(u.work, fmt.Sprint("octets", group)), strconv.Itoa((u.count+group-1)/group), strconv.FormatBool(group == 1)), nil
	}
}

// appendMain is the bare minimum of an uploader: octets made before, no state, no
// way to go on after a cut. Groups are sent one after the other's answer, single
// messages without waiting.
func appendMain(args []string) error {
	if len(args) != 6 {
		return errors.New("usage: append ADDRESS CAFILE USER FILE COMMANDS AHEAD")
	}
	commands, err := strconv.Atoi(args[4])
	if err != nil {
		return err
	}
	conn, err := dialTLS(args[0], args[1])
	if err != nil {
		return err
	}
	defer conn.Close()
	octets, err := os.ReadFile(args[3])
	if err != nil {
		return err
	}
	r := bufio.NewReaderSize(conn, 64<<10)
	answer := func(tag string) error { return untilTag(r, tag, discard{}) }
	if _, err := r.ReadSlice('\n'); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "l LOGIN "+dovecot.Quote(args[2])+" "+dovecot.Quote(dovecot.Password)+"\r\n"); err != nil {
		return err
	}
	if err := answer("l"); err != nil {
		return err
	}
	sent := make(chan error, 1)
	if args[5] == "true" {
		go func() {
			_, err := conn.Write(octets)
			sent <- err
		}()
	} else {
		sent <- nil
	}
	for range commands {
		if args[5] != "true" {
			end := bytes.Index(octets[1:], []byte("\r\na APPEND INBOX"))
			if end < 0 {
				end = len(octets) - 3
			}
			if _, err := conn.Write(octets[:end+3]); err != nil {
				return err
			}
			octets = octets[end+3:]
		}
		if err := answer("a"); err != nil {
			return err
		}
	}
	return <-sent
}
