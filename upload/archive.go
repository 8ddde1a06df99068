package upload

import (
	"context"
	"io"

	"mailhaul/mail"
)

// Catalog is what an archive's ledger tells of its messages.
type Catalog interface {
	Mailboxes(ctx context.Context) ([]string, error)
	Messages(ctx context.Context, mailbox string, yield func(mail.Held) error) error
	Message(ctx context.Context, id int64) (mail.Held, error)
}

// Vanished tells what the catalog knows of it.
func (a fromArchive) Vanished(ctx context.Context, yield func(id int64) error) error {
	if v, ok := a.Catalog.(Vanished); ok {
		return v.Vanished(ctx, yield)
	}
	return nil
}

// Opener gives the octets of archived messages.
type Opener interface {
	Open(ctx context.Context, rc mail.Receipt) (io.ReadCloser, error)
}

// FromArchive reads messages from an archive.
func FromArchive(catalog Catalog, archive Opener) Messages { return fromArchive{catalog, archive} }

type fromArchive struct {
	Catalog
	Opener
}

// Mailboxes lists the archive's mailboxes; it does not know their roles.
func (a fromArchive) Mailboxes(ctx context.Context) ([]mail.Mailbox, error) {
	names, err := a.Catalog.Mailboxes(ctx)
	var all []mail.Mailbox
	for _, name := range names {
		all = append(all, mail.Mailbox{Name: name})
	}
	return all, err
}
