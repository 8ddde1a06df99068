package undo

import (
	"context"
	"sync"

	"mailhaul/mail"
	"mailhaul/upload"
)

// recorder is the ledger as upload sees it: what arrives is recorded together with
// the deletions that it takes back.
type recorder struct {
	upload.Ledger
	deleted *deleted
	mu      sync.Mutex
	message map[int64]int64 // by intent
}

func newRecorder(l upload.Ledger, d *deleted) *recorder {
	return &recorder{Ledger: l, deleted: d, message: make(map[int64]int64)}
}

// OpenUploads remembers whose the intents are that it returns.
func (r *recorder) OpenUploads(ctx context.Context, account, mailbox string) ([]mail.Upload, error) {
	list, err := r.Ledger.OpenUploads(ctx, account, mailbox)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range list {
		r.message[u.ID] = u.Message
	}
	return list, err
}

// IntendUploads remembers whose the new intents are.
func (r *recorder) IntendUploads(ctx context.Context, s mail.Sending) ([]int64, error) {
	ids, err := r.Ledger.IntendUploads(ctx, s)
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, id := range ids {
		r.message[id] = s.Messages[i].Message
	}
	return ids, err
}

// SettleUploads adds the deletions.
func (r *recorder) SettleUploads(ctx context.Context, results []mail.Uploaded) error {
	r.mu.Lock()
	for i := range results {
		if d := r.deleted.all[r.message[results[i].ID]]; d != nil && results[i].Arrived {
			results[i].Undoes = d.ids
		}
		delete(r.message, results[i].ID)
	}
	r.mu.Unlock()
	return r.Ledger.SettleUploads(ctx, results)
}
