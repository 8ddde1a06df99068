package main

import (
	"bufio"
	"context"
	"io"
	"strings"
	"sync"
)

// lineReader reads the terminal for all questions of a run: what was typed ahead
// is not lost between them.
type lineReader struct {
	once sync.Once
	r    *bufio.Reader
}

// answer asks a person and returns what is typed, without white space around it.
// The end of the input is an empty answer.
func (a *app) answer(ctx context.Context, question string) (string, error) {
	a.typed.once.Do(func() { a.typed.r = bufio.NewReader(a.stdin) })
	a.ui.Prompt(question)
	type reply struct {
		line string
		err  error
	}
	got := make(chan reply, 1)
	go func() {
		line, err := a.typed.r.ReadString('\n')
		if err == io.EOF {
			err = nil
		}
		got <- reply{strings.TrimSpace(line), err}
	}()
	select {
	case r := <-got:
		return r.line, r.err
	case <-ctx.Done():
		a.ui.Break()
		return "", context.Cause(ctx)
	}
}

// isYes reads the answer to a question that has a default.
func isYes(answer string, otherwise bool) bool {
	switch strings.ToLower(answer) {
	case "y", "yes":
		return true
	case "":
		return otherwise
	}
	return false
}
