package ledger

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"mailhaul/mail"
)

// db is one connection of the driver without database/sql above it: a ledger has
// one connection and one user at a time, so a pool and its conversions only cost
// (scanning claims is about three times as fast this way).
type db struct {
	conn  driver.Conn
	stmts map[string]*stmt
}

type stmt struct {
	exec  driver.StmtExecContext
	query driver.StmtQueryContext
	close func() error
	args  []driver.NamedValue
	row   []driver.Value
}

// openDB opens a file by SQLite's URI parameters and runs the pragmas.
func openDB(file, params string, pragmas ...string) (*db, error) {
	abs, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	path := filepath.ToSlash(abs)
	if !strings.HasPrefix(path, "/") {
		path = "/" + path // C:/...
	}
	u := url.URL{Scheme: "file", Path: path}
	conn, err := (&sqlite.Driver{}).Open(u.String() + "?" + params)
	if err != nil {
		return nil, err
	}
	d := &db{conn: conn, stmts: map[string]*stmt{}}
	for _, p := range pragmas {
		if err := d.query("PRAGMA "+p, nil, func([]driver.Value) error { return nil }); err != nil {
			return nil, errors.Join(err, d.close())
		}
	}
	return d, nil
}

// prepared returns the statement, prepared once. The arguments are bound by
// copying, so the buffers can be used again.
func (d *db) prepared(q string, args []any) (*stmt, error) {
	s := d.stmts[q]
	if s == nil {
		ds, err := d.conn.Prepare(q)
		if err != nil {
			return nil, fmt.Errorf("%w in %q", err, q)
		}
		s = &stmt{close: ds.Close}
		var okExec, okQuery bool
		s.exec, okExec = ds.(driver.StmtExecContext)
		s.query, okQuery = ds.(driver.StmtQueryContext)
		if !okExec || !okQuery {
			return nil, errors.Join(errors.New("sqlite driver without contexts"), ds.Close())
		}
		d.stmts[q] = s
	}
	s.args = s.args[:0]
	for i, a := range args {
		s.args = append(s.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s, nil
}

// exec runs one statement. Arguments are int64, string, []byte or nil. No context
// is given to the driver: a fact half recorded helps nobody.
func (d *db) exec(q string, args ...any) error {
	s, err := d.prepared(q, args)
	if err != nil {
		return err
	}
	_, err = s.exec.ExecContext(context.Background(), s.args)
	return err
}

// query calls row for each row; what it is given is only valid during the call
// as far as the slice goes, the values in it may be kept.
func (d *db) query(q string, args []any, row func([]driver.Value) error) (err error) {
	s, err := d.prepared(q, args)
	if err != nil {
		return err
	}
	rows, err := s.query.QueryContext(context.Background(), s.args)
	if err != nil {
		return err
	}
	defer func() {
		if e := rows.Close(); err == nil {
			err = e
		}
	}()
	if s.row == nil {
		s.row = make([]driver.Value, len(rows.Columns()))
	}
	for {
		switch err := rows.Next(s.row); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := row(s.row); err != nil {
			return err
		}
	}
}

// int64 returns the first column of the first row; 0 without a row or for NULL.
func (d *db) int64(q string, args ...any) (n int64, err error) {
	err = d.query(q, args, func(v []driver.Value) error {
		n = integer(v[0])
		return nil
	})
	return n, err
}

func (d *db) string(q string, args ...any) (s string, err error) {
	err = d.query(q, args, func(v []driver.Value) error {
		s = text(v[0])
		return nil
	})
	return s, err
}

// tx runs f in one transaction; an error of f or of the commit leaves nothing.
func (d *db) tx(f func() error) error {
	if err := d.exec("BEGIN"); err != nil {
		return err
	}
	err := f()
	if err == nil {
		err = d.exec("COMMIT")
	}
	if err != nil {
		// After some errors SQLite has rolled back already and says so; the
		// first error is the one that counts.
		_ = d.exec("ROLLBACK")
	}
	return err
}

func (d *db) close() error {
	var errs []error
	for _, s := range d.stmts {
		errs = append(errs, s.close())
	}
	d.stmts = nil
	return errors.Join(append(errs, d.conn.Close())...)
}

// The conversions take whatever a damaged file may hold in a column.

func integer(v driver.Value) int64 {
	n, _ := v.(int64)
	return n
}

func text(v driver.Value) string {
	switch v := v.(type) {
	case string:
		return v
	case []byte:
		return string(v)
	}
	return ""
}

func digest(v driver.Value) (d mail.Digest) {
	if b, ok := v.([]byte); ok && len(b) == len(d) {
		copy(d[:], b)
	}
	return d
}

// null is what an empty string is stored as where most are empty.
func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// ErrDamaged says that the ledger's file is no ledger any more, or not a whole
// one. The next Open sets it aside.
var ErrDamaged = errors.New("the ledger is damaged")

// kindOf sorts an error of SQLite or of the system by what can be done about it.
func kindOf(err error) mail.Kind {
	if e, ok := errors.AsType[*mail.Error](err); ok {
		return e.Kind
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
			return mail.KindTemporary
		case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY,
			sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH:
			return mail.KindDisk
		}
		return mail.KindOther
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		return mail.KindDisk
	}
	return mail.KindOther
}

func damaged(err error) bool {
	if errors.Is(err, ErrDamaged) {
		return true
	}
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		switch e.Code() & 0xff {
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT:
			return true
		}
	}
	return false
}
