// Package notify delivers reports: as mail handed in to a submission server, or to
// a command.
package notify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"mailhaul/internal/history"
	"mailhaul/mail"
)

// patience is how long a delivery may take.
const patience = time.Minute

// Command runs a command, already split into words, with the report on its
// standard input. Its environment has MAILHAUL_SUBJECT, MAILHAUL_OCCASION and
// MAILHAUL_ACCOUNTS (words), and no secret.
func Command(ctx context.Context, argv []string, m history.Message, notices []history.Notice) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin = strings.NewReader(m.Body)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	cmd.WaitDelay = time.Second
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "MAILHAUL_")
	})
	var occasions, accounts []string
	for _, n := range notices {
		if !slices.Contains(occasions, n.Occasion) {
			occasions = append(occasions, n.Occasion)
		}
		if !slices.Contains(accounts, n.Run.Account) {
			accounts = append(accounts, n.Run.Account)
		}
	}
	cmd.Env = append(cmd.Env, "MAILHAUL_SUBJECT="+m.Subject, "MAILHAUL_OCCASION="+strings.Join(occasions, " "), "MAILHAUL_ACCOUNTS="+strings.Join(accounts, " "))
	err := cmd.Run()
	if err == nil {
		return nil
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = fmt.Errorf("it did not end within %s", patience)
	}
	const most = 500
	said := strings.Join(strings.Fields(errs.String()), " ")
	return &mail.Error{Op: fmt.Sprintf("tell by the command %q", argv[0]), Err: err, Server: said[:min(len(said), most)],
		Hint: "the report was not delivered; it is tried again with the next run"}
}
