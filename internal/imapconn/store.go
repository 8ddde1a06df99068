package imapconn

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/emersion/go-imap/v2"
)

// Sets splits UIDs into sets that fit into one command each. Together they name
// exactly these UIDs.
func Sets(uids []uint32) [][]uint32 {
	var all [][]uint32
	var set Set
	from := 0
	for i, uid := range uids {
		if set.Add(uid) {
			continue
		}
		all = append(all, uids[from:i])
		from, set = i, Set{}
		set.Add(uid)
	}
	if from < len(uids) {
		all = append(all, uids[from:])
	}
	return all
}

// SetOf writes UIDs, few enough for one command, as a command takes them.
func SetOf(uids []uint32) string {
	var set Set
	for _, uid := range uids {
		set.Add(uid)
	}
	return set.String()
}

func librarySet(uids []uint32) imap.UIDSet {
	var set imap.UIDSet
	for _, uid := range uids {
		set.AddNum(imap.UID(uid))
	}
	return set
}

// Mark sets \Deleted on messages of the selected mailbox, or takes it off again.
// Where unchangedSince is not 0, messages with a higher MODSEQ are left alone and
// named in the answer's MODIFIED code (RFC 7162 section 3.1.3). A NO or BAD is no
// error; some messages may be marked then.
func (c *Conn) Mark(ctx context.Context, uids []uint32, on bool, unchangedSince uint64) (Result, error) {
	defer c.Bind(ctx)()
	op := imap.StoreFlagsAdd
	if !on {
		op = imap.StoreFlagsDel
	}
	if err := c.settle(); err != nil {
		return Result{}, err
	}
	c.last, c.junk = Result{}, 0
	cmd := c.client.Store(librarySet(uids), &imap.StoreFlags{Op: op, Silent: true, Flags: []imap.Flag{imap.FlagDeleted}},
		&imap.StoreOptions{UnchangedSince: unchangedSince})
	if err := c.letLibrary(func() error { return ignoreRefusal(cmd.Close()) }); err != nil {
		return Result{}, c.fail("mark messages", err)
	}
	return c.last, nil
}

// UIDExpunge removes those of the messages that bear \Deleted (RFC 4315 section
// 2.1). A NO or BAD is no error; some messages may be gone then.
func (c *Conn) UIDExpunge(ctx context.Context, uids []uint32) (Result, error) {
	defer c.Bind(ctx)()
	if !c.CanExpunge() {
		return Result{}, errors.New("the server has no UID EXPUNGE")
	}
	if err := c.settle(); err != nil {
		return Result{}, err
	}
	c.last, c.junk = Result{}, 0
	cmd := c.client.UIDExpunge(librarySet(uids))
	if err := c.letLibrary(func() error { return ignoreRefusal(cmd.Close()) }); err != nil {
		return Result{}, c.fail("expunge messages", err)
	}
	return c.last, nil
}

// CanExpunge tells whether the server can remove single messages.
func (c *Conn) CanExpunge() bool { return c.Has("UIDPLUS") || c.Has("IMAP4REV2") }

// CanMove tells whether the server can move messages in one step.
func (c *Conn) CanMove() bool { return c.Has("MOVE") || c.Has("IMAP4REV2") }

// Move moves messages to another mailbox, named as the server does (RFC 6851). It
// is a raw command: the library replaces a MOVE it does not know of by COPY, STORE
// and EXPUNGE. A NO or BAD is no error; some messages may be moved then. Where the
// server tells their new UIDs (RFC 6851 section 4.3), Copied has them.
func (c *Conn) Move(ctx context.Context, uids []uint32, to string) (Result, Copied, error) {
	name, ok := commandString(to, c.literalPlus())
	if !ok || !c.CanMove() {
		return Result{}, Copied{}, errors.New("the server cannot move messages there")
	}
	c.copied = nil
	res, err := c.Exec(ctx, nil, "UID MOVE "+SetOf(uids)+" "+name)
	if err != nil {
		return res, Copied{}, err
	}
	return res, copiedUIDs(c.copied, uids), nil
}

// Copied says where messages lie now.
type Copied struct {
	UIDValidity uint32
	UIDs        map[uint32]uint32 // new by old
}

// maxCopied bounds how many COPYUID codes are kept of one command.
const maxCopied = 64

// copiedUIDs reads COPYUID codes (RFC 4315 section 3). What cannot be right tells
// nothing: then content has to tell.
func copiedUIDs(codes []string, asked []uint32) Copied {
	all := Copied{UIDs: make(map[uint32]uint32)}
	open, taken := make(map[uint32]bool), make(map[uint32]bool)
	for _, uid := range asked {
		open[uid] = true
	}
	for _, code := range codes {
		f := strings.Fields(code)
		if len(f) != 3 {
			return Copied{}
		}
		v, err := strconv.ParseUint(f[0], 10, 32)
		from, to := parseSet(f[1], len(asked)), parseSet(f[2], len(asked))
		if err != nil || v == 0 || len(from) == 0 || len(from) != len(to) || all.UIDValidity != 0 && uint32(v) != all.UIDValidity {
			return Copied{}
		}
		all.UIDValidity = uint32(v)
		for i, uid := range from {
			if !open[uid] || taken[to[i]] {
				return Copied{}
			}
			all.UIDs[uid], open[uid], taken[to[i]] = to[i], false, true
		}
	}
	return all
}

// Modified returns the UIDs that a conditional STORE left alone.
func (r Result) Modified() (*Ranges, error) {
	if r.Code != "MODIFIED" {
		return &Ranges{}, nil
	}
	return parseRanges(r.Arg)
}

// Ranges is a set of numbers as a server writes it.
type Ranges struct{ list [][2]uint32 }

// Has tells whether a number is in the set.
func (r *Ranges) Has(n uint32) bool {
	for _, p := range r.list {
		if p[0] <= n && n <= p[1] {
			return true
		}
	}
	return false
}

func parseRanges(s string) (*Ranges, error) {
	r := &Ranges{}
	for part := range strings.SplitSeq(s, ",") {
		a, b, isRange := strings.Cut(strings.TrimSpace(part), ":")
		if !isRange {
			b = a
		}
		from, err1 := strconv.ParseUint(a, 10, 32)
		to, err2 := strconv.ParseUint(b, 10, 32)
		if err := errors.Join(err1, err2); err != nil {
			return nil, broken("not a set of UIDs: %.80q", s)
		}
		r.list = append(r.list, [2]uint32{uint32(min(from, to)), uint32(max(from, to))})
	}
	return r, nil
}

// Quota is one limit of a quota root (RFC 9208 section 3.2).
type Quota struct {
	Root, Resource string
	Used, Limit    int64 // STORAGE counts in units of 1024 octets
}

// maxQuotas in one answer.
const maxQuotas = 1000

// Quotas returns the limits that bind a mailbox, named as the server does.
func (c *Conn) Quotas(ctx context.Context, raw string) ([]Quota, error) {
	name, ok := commandString(raw, c.literalPlus())
	if !ok {
		return nil, errors.New("the mailbox name cannot be sent")
	}
	var all []Quota
	h := &Handler{Quota: func(q Quota) error {
		if len(all) < maxQuotas {
			all = append(all, q)
		}
		return nil
	}}
	res, err := c.Exec(ctx, h, "GETQUOTAROOT "+name)
	if err == nil && !res.OK() {
		err = c.refused("read quota", res, res.Kind(), "")
	}
	return all, err
}

// quota handles what stands behind "* QUOTA": root (resource usage limit ...).
func (c *Conn) quota() error {
	if c.handler == nil || c.handler.Quota == nil {
		return c.ignore()
	}
	s := c.scan
	s.spaces()
	root, _, err := s.text()
	if err != nil {
		return err
	}
	name := string(root)
	s.spaces()
	if !s.accept('(') {
		return errSyntax
	}
	for s.spaces(); !s.accept(')'); s.spaces() {
		q := Quota{Root: name, Resource: upper(s.atom())}
		s.spaces()
		used, ok1 := s.number()
		s.spaces()
		limit, ok2 := s.number()
		if q.Resource == "" || !ok1 || !ok2 {
			return errSyntax
		}
		q.Used, q.Limit = used, limit
		if err := c.handler.Quota(q); err != nil {
			return handled(err)
		}
	}
	return c.scan.skipRest()
}
