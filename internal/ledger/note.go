package ledger

import "context"

// noteKey keeps notes apart from what the ledger itself keeps in its meta table.
func noteKey(key string) string { return "note " + key }

// Note returns what was noted under a key, "" if nothing was. Notes are for facts
// about a whole account or mailbox that are no more than a saving if they are lost.
func (l *Ledger) Note(ctx context.Context, key string) (value string, err error) {
	err = l.read(ctx, "read note", func() (err error) {
		value, err = l.meta(noteKey(key))
		return err
	})
	return value, err
}

// SetNotes notes values under their keys. If all are noted already, nothing is
// written.
func (l *Ledger) SetNotes(ctx context.Context, notes map[string]string) error {
	same := true
	for key, value := range notes {
		old, err := l.Note(ctx, key)
		if err != nil {
			return err
		}
		same = same && old == value
	}
	if same {
		return nil
	}
	return l.write(ctx, "note", func() error {
		for key, value := range notes {
			if err := l.setMeta(noteKey(key), value); err != nil {
				return err
			}
		}
		return nil
	})
}
