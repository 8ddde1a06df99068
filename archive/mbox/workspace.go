package mbox

import (
	"sync"
)

// workspace is the memory of one Append.
type workspace struct {
	encoder
	stage []byte // of the message, in front of the file
	box   *box
	total int64 // octets of the message on disk so far
	begun bool  // a part of it is in the file
}

var workspaces = sync.Pool{New: func() any { return new(workspace) }}

func (w *workspace) start(b *box) {
	w.box, w.out = b, w
	w.stage, w.total, w.begun = w.stage[:0], 0, false
}

func (w *workspace) release() {
	w.box, w.lib = nil, nil
	workspaces.Put(w)
}

// Write takes the octets of the message at work, as go-mbox gives them.
func (w *workspace) Write(p []byte) (int, error) {
	w.total += int64(len(p))
	if len(w.stage)+len(p) <= bufferSize {
		w.stage = append(w.stage, p...)
		return len(p), nil
	}
	if err := w.box.spill(w, w.stage); err != nil {
		return 0, err
	}
	w.stage = w.stage[:0]
	if len(p) >= bufferSize {
		return len(p), w.box.spill(w, p)
	}
	w.stage = append(w.stage, p...)
	return len(p), nil
}
