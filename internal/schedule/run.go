package schedule

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"mailhaul/mail"
)

// patience is how long a tool of the system may take.
const patience = 30 * time.Second

// toolError keeps what a tool said.
type toolError struct {
	err  error
	said string
}

func (e *toolError) Error() string {
	if e.said == "" {
		return e.err.Error()
	}
	return e.err.Error() + ": " + e.said
}

func (e *toolError) Unwrap() error { return e.err }

// run runs a tool of the system and returns its output. Its environment holds no
// password that is meant for us.
func run(ctx context.Context, input, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdin = strings.NewReader(input)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	cmd.Env = slices.DeleteFunc(os.Environ(), func(kv string) bool {
		return strings.HasPrefix(kv, "MAILHAUL_PASSWORD=") || strings.HasPrefix(kv, "MAILHAUL_DEST_PASSWORD=")
	})
	cmd.Env = append(cmd.Env, "LC_ALL=C")
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("it did not end in time")
		}
		said := strings.Join(strings.Fields(errs.String()), " ")
		return "", &mail.Error{Op: "run " + name + " " + strings.Join(args, " "), Err: &toolError{err: err, said: said}}
	}
	return out.String(), nil
}
