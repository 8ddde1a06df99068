package ledger

import (
	"context"
	"database/sql/driver"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"mailhaul/internal/durable"
	"mailhaul/mail"
)

// Ledger is an open ledger. Its methods may be called from several goroutines at
// once; they take turns. Those that yield rows hold nothing while they yield, so
// the ledger may be used meanwhile. Errors are *mail.Error, of KindDisk where the
// disk is at fault; one for which errors.Is(err, ErrDamaged) holds says that the
// file is damaged.
//
// A context is looked at before a transaction and between rows, never within a
// transaction: what is true is recorded as a whole even if the run is being ended.
type Ledger struct {
	dir  string
	fsys durable.FS // nil when read-only
	now  func() time.Time
	hook func(step string)

	mu       sync.Mutex
	db       *db // nil once closed
	readOnly bool
	cleanup  func() error // removes what a read-only open copied
	broken   error        // a write failed in a way after which nothing is written
	opened   Opened

	// Ids given out, and names already looked up. A failed transaction clears
	// them all, since it may have taken rows back.
	next      map[int64]int64 // first id of a mailbox's range -> next id
	accounts  map[string]int64
	sources   map[string]bool // accounts that are known to be marked as sources
	mailboxes map[string]int64
	boxes     map[boxKey]int64
	flagIDs   map[mail.Flags]int64
	flagSets  map[int64]mail.Flags
	lost      *lost // nil: not looked up

	recorded atomic.Int64
}

type boxKey struct{ account, mailbox string }

// Opened tells what Open found.
type Opened struct {
	// SetAside is the file name, beside the ledger, to which a damaged ledger was
	// moved; "" if there was none.
	SetAside string
	// Restored says that the ledger now stands as the last checked copy
	// (ledger.bak) has it.
	Restored bool
	// Rebuild says that messages may lie in the archive that the ledger does not
	// have: every mailbox must be given to Reanchor, then Rebuilt be called. It
	// is true for a new ledger and stays so, across runs, until then.
	Rebuild bool
}

// Opened returns what Open found.
func (l *Ledger) Opened() Opened { return l.opened }

func (l *Ledger) forget() {
	l.next = map[int64]int64{}
	l.accounts = map[string]int64{}
	l.sources = map[string]bool{}
	l.mailboxes = map[string]int64{}
	l.boxes = map[boxKey]int64{}
	l.flagIDs = map[mail.Flags]int64{}
	l.flagSets = map[int64]mail.Flags{0: ""}
	l.lost = nil
}

func (l *Ledger) step(name string) {
	if l.hook != nil {
		l.hook(name)
	}
}

// wrap turns an error into one a person can act on.
func wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if damaged(err) {
		return &mail.Error{
			Kind: mail.KindDisk, Op: "ledger: " + op, Err: fmt.Errorf("%w: %w", ErrDamaged, err),
			Hint: "run the same command again: the damaged ledger is set aside and built anew from the archive",
		}
	}
	e := &mail.Error{Kind: kindOf(err), Op: "ledger: " + op, Err: err}
	if e.Kind == mail.KindTemporary {
		e.Hint = "another program has the ledger open; close it and try again"
	}
	return e
}

// suspect is the file that makes the next Open check the ledger as a whole.
const suspect = "ledger.check"

// failed notes what an error of the database means for the rest of this run and
// for the next.
func (l *Ledger) failed(op string, err error) error {
	l.forget()
	if damaged(err) && l.fsys != nil {
		l.broken = err
		// Best effort: without the file the next run meets the damage again.
		_ = durable.WriteFileAtomic(l.fsys, suspect, nil)
	}
	return wrap(op, err)
}

// read runs f with the database to itself.
func (l *Ledger) read(ctx context.Context, op string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db == nil {
		return wrap(op, errClosed)
	}
	if err := f(); err != nil {
		return l.failed(op, err)
	}
	return nil
}

// write runs f in a transaction that is durable when write returns nil. If f
// changes nothing, nothing is written.
func (l *Ledger) write(ctx context.Context, op string, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.db == nil:
		return wrap(op, errClosed)
	case l.readOnly:
		return wrap(op, errReadOnly)
	case l.broken != nil:
		return wrap(op, l.broken)
	}
	l.step(op)
	if err := l.db.tx(f); err != nil {
		err = l.failed(op, err)
		if mail.KindOf(err) == mail.KindDisk {
			l.broken = err // after a failed sync nothing more is known of the file
		}
		return err
	}
	l.step(op + " done")
	return nil
}

// Format returns the format of the archive, fixed when the ledger was made:
// "maildir" or "mbox".
func (l *Ledger) Format() string {
	var s string
	_ = l.read(context.Background(), "read format", func() (err error) {
		s, err = l.meta("format")
		return err
	})
	return s
}

func (l *Ledger) meta(key string) (string, error) {
	return l.db.string("SELECT value FROM meta WHERE key = ?", key)
}

func (l *Ledger) setMeta(key, value string) error {
	return l.db.exec(`INSERT INTO meta (key, value) VALUES (?, ?)
		ON CONFLICT (key) DO UPDATE SET value = excluded.value WHERE value <> excluded.value`, key, value)
}

// Recorded returns how many archived messages this Ledger has recorded since it
// was opened.
func (l *Ledger) Recorded() int64 { return l.recorded.Load() }

// Rebuilt records that every mailbox found on disk was given to Reanchor.
func (l *Ledger) Rebuilt(ctx context.Context) error {
	if !l.opened.Rebuild {
		return nil
	}
	err := l.write(ctx, "end rebuild", func() error { return l.setMeta("rebuild", "0") })
	if err == nil {
		l.opened.Rebuild = false
	}
	return err
}

// Accounts returns the accounts (mail.AccountKey) that mail was copied from into
// this archive, sorted. Destinations of uploads are not among them.
func (l *Ledger) Accounts(ctx context.Context) ([]string, error) {
	return l.names(ctx, "list accounts", "SELECT name FROM account WHERE source = 1 ORDER BY name")
}

// Mailboxes returns the archive's mailboxes that the ledger has, sorted.
func (l *Ledger) Mailboxes(ctx context.Context) ([]string, error) {
	return l.names(ctx, "list mailboxes", "SELECT name FROM mailbox ORDER BY name")
}

func (l *Ledger) names(ctx context.Context, op, q string) (list []string, err error) {
	err = l.read(ctx, op, func() error {
		return l.db.query(q, nil, func(v []driver.Value) error {
			list = append(list, text(v[0]))
			return nil
		})
	})
	return list, err
}

// Cursor returns the state of an account's mailbox as last completed, "" if
// nothing can be concluded.
func (l *Ledger) Cursor(ctx context.Context, account, mailbox string) (state string, err error) {
	err = l.read(ctx, "read cursor", func() (err error) {
		state, err = l.db.string(`SELECT cursor FROM box WHERE name = ?
			AND account = (SELECT id FROM account WHERE name = ?)`, mailbox, account)
		return err
	})
	return state, err
}

// Times are stored as numbers: 0 is the zero time.

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// stamp is the time as it is stored of what happens now; never 0, which would say
// that it did not happen: a clock that was never set may stand at 1970.
func (l *Ledger) stamp() int64 {
	if ms := millis(l.now()); ms != 0 {
		return ms
	}
	return 1
}

func fromMillis(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.UnixMilli(n).UTC()
}

func nanos(t time.Time) int64 {
	if t.IsZero() || t.Year() < 1678 || t.Year() > 2261 {
		return 0
	}
	return t.UnixNano()
}

func fromNanos(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n).UTC()
}
