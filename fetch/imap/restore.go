package imap

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strconv"
	"sync"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Restore moves messages from the \Trash mailbox back to a mailbox, each of those
// wanted once. Info of a receipt has size and INTERNALDATE as the server listed
// them. known tells which UIDs of the mailbox are other messages for certain; what is
// wanted and lies there under another UID, moved by a run that was ended, is not
// moved again.
//
// back is called for each that is back, one at a time, with its place. What is not in
// the trash, or cannot be moved, is no error: it is for the caller to append. After
// an error the same call goes on.
func (s *Source) Restore(ctx context.Context, to mail.Mailbox, wanted []mail.Receipt, known func(mail.Ref) bool, back func(i int, in mail.Info) error) error {
	r := &restoring{s: s, to: to, wanted: wanted, known: known, back: back, done: make([]bool, len(wanted))}
	return s.at(s.retry(ctx, func() error { return r.run(ctx) }), to, "move back from the trash")
}

// restoring is one Restore.
type restoring struct {
	s      *Source
	to     mail.Mailbox
	wanted []mail.Receipt
	known  func(mail.Ref) bool
	back   func(int, mail.Info) error
	done   []bool // back, and told
}

func (r *restoring) run(ctx context.Context) error {
	c, err := r.s.pool.get(ctx, "")
	if err != nil {
		return err
	}
	trash, err := r.s.trash(ctx, c)
	r.s.pool.put(c)
	if mail.KindOf(err) == mail.KindLacking || err == nil && trash.Raw == r.to.Raw {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.look(ctx); err != nil {
		return err
	}
	lost, err := r.find(ctx, &trash, func(mail.Ref) bool { return false }, false)
	if err != nil || len(lost) == 0 {
		return err
	}
	told, err := r.move(ctx, trash, lost)
	if err == nil && told < len(lost) {
		err = r.look(ctx)
	}
	return err
}

// look tells what is back already.
func (r *restoring) look(ctx context.Context) error {
	there, err := r.find(ctx, &r.to, r.known, true)
	if err != nil {
		return err
	}
	for _, f := range there {
		if err := r.tell(f.at, f.in); err != nil {
			return err
		}
	}
	return nil
}

func (r *restoring) tell(at int, in mail.Info) error {
	r.done[at] = true
	return r.back(at, in)
}

// move moves what was found, and tells of it as far as the server says where it
// lies now.
func (r *restoring) move(ctx context.Context, trash mail.Mailbox, lost []located) (told int, err error) {
	c, err := r.s.pool.get(ctx, trash.Raw)
	if err != nil {
		return 0, err
	}
	defer r.s.pool.put(c)
	box, _, err := c.Select(ctx, trash.Raw)
	if err != nil || box.ReadOnly || box.UIDValidity != trash.UIDValidity {
		return 0, err
	}
	slices.SortFunc(lost, func(a, b located) int { return cmp.Compare(a.uid, b.uid) })
	byUID := make(map[uint32]located, len(lost))
	uids := make([]uint32, len(lost))
	for i, f := range lost {
		byUID[f.uid], uids[i] = f, f.uid
	}
	for _, set := range imapconn.Sets(uids) {
		_, copied, err := c.Move(ctx, set, r.to.Raw) // what is refused is not told
		if err != nil {
			return told, err
		}
		for old, now := range copied.UIDs {
			f := byUID[old]
			f.in.Ref = mail.Ref{Account: r.s.account, Mailbox: r.to.Name, UIDValidity: copied.UIDValidity, UID: strconv.FormatUint(uint64(now), 10)}
			if err := r.tell(f.at, f.in); err != nil {
				return told, err
			}
			told++
		}
	}
	return told, nil
}

// likeness is what a message is first recognised by.
type likeness struct {
	size   int64
	header mail.Digest
}

// located is a wanted message that was found.
type located struct {
	at  int // of wanted
	uid uint32
	in  mail.Info // as it was listed
}

// finding looks for wanted messages in a mailbox.
type finding struct {
	*restoring
	listed map[string]mail.Info  // what may be one of them, by UID
	by     map[likeness][]int    // wanted ones, by size and header
	octets map[mail.Digest][]int // and by digest
	found  map[string]located    // by UID
	took   map[int]bool          // of wanted
	mu     sync.Mutex
}

// find finds what is wanted and not back yet, each once: by size and header and, if
// exact is set, by the octets. Where several different ones have size and header in
// common, or a header has no trace of delivery and the dates differ, as with a draft
// that was edited often, only the octets can tell.
func (r *restoring) find(ctx context.Context, mb *mail.Mailbox, skip func(mail.Ref) bool, exact bool) ([]located, error) {
	f := &finding{restoring: r, listed: make(map[string]mail.Info), by: make(map[likeness][]int), octets: make(map[mail.Digest][]int), found: make(map[string]located), took: make(map[int]bool)}
	sizes := make(map[int64]bool)
	for i, rc := range r.wanted {
		if r.done[i] {
			continue
		}
		k := likeness{rc.Info.Size, rc.Header}
		f.by[k] = append(f.by[k], i)
		f.octets[rc.Digest] = append(f.octets[rc.Digest], i)
		sizes[rc.Info.Size] = true
	}
	if len(sizes) == 0 {
		return nil, nil
	}
	var ask []mail.Want
	for in, err := range r.s.List(ctx, *mb) {
		if err != nil {
			return nil, err
		}
		mb.UIDValidity = in.Ref.UIDValidity
		if sizes[in.Size] && in.Ref.UID != "" && !skip(in.Ref) {
			f.listed[in.Ref.UID] = in
			ask = append(ask, mail.Want{UID: in.Ref.UID, Size: in.Size})
		}
	}
	doubt, err := f.headers(ctx, *mb, ask, exact)
	if err == nil {
		err = f.bodies(ctx, *mb, doubt)
	}
	all := make([]located, 0, len(f.found))
	for _, l := range f.found {
		all = append(all, l)
	}
	return all, err
}

// headers takes what size and header tell, and returns what the octets must.
func (f *finding) headers(ctx context.Context, mb mail.Mailbox, ask []mail.Want, exact bool) (doubt []mail.Want, err error) {
	if len(ask) == 0 {
		return nil, nil
	}
	err = f.s.Headers(ctx, mb, ask, func(in mail.Info, rd io.Reader, err error) error {
		if err != nil {
			return nil // not to be had: it is appended
		}
		top := &start{}
		digest, err := mail.HeaderDigest(io.TeeReader(rd, top))
		if err != nil {
			return nil // the driver asks again
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		listed := f.listed[in.Ref.UID]
		same := f.by[likeness{listed.Size, digest}]
		if len(same) == 0 {
			return nil
		}
		if exact || !f.alike(same, listed, top) {
			doubt = append(doubt, mail.Want{UID: in.Ref.UID, Size: listed.Size})
			return nil
		}
		f.take(same, listed)
		return nil
	})
	return doubt, err
}

// alike tells whether size and header are enough.
func (f *finding) alike(same []int, listed mail.Info, top *start) bool {
	first := f.wanted[same[0]]
	_, from := mail.HeaderDate(top.b)
	for _, i := range same {
		rc := f.wanted[i]
		if rc.Digest != first.Digest || from != mail.DateReceived && !rc.Info.InternalDate.Equal(listed.InternalDate) {
			return false
		}
	}
	return true
}

func (f *finding) bodies(ctx context.Context, mb mail.Mailbox, doubt []mail.Want) error {
	if len(doubt) == 0 {
		return nil
	}
	return f.s.Fetch(ctx, mb, doubt, func(in mail.Info, rd io.Reader, err error) error {
		if err != nil {
			return nil
		}
		c := mail.NewCanonical(rd, nil)
		if _, err := io.Copy(io.Discard, c); err != nil {
			return nil
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.take(f.octets[c.Sums().Digest], f.listed[in.Ref.UID])
		return nil
	})
}

// take takes the first of equal messages that is still to be found.
func (f *finding) take(equal []int, listed mail.Info) {
	uid, err := strconv.ParseUint(listed.Ref.UID, 10, 32)
	if _, again := f.found[listed.Ref.UID]; err != nil || again {
		return
	}
	for _, i := range equal {
		if !f.took[i] {
			f.took[i] = true
			f.found[listed.Ref.UID] = located{at: i, uid: uint32(uid), in: listed}
			return
		}
	}
}

// start keeps the beginning of a header.
type start struct{ b []byte }

// Write keeps what fits and takes the rest for written.
func (s *start) Write(p []byte) (int, error) {
	const most = 16 << 10
	s.b = append(s.b, p[:min(len(p), most-len(s.b))]...)
	return len(p), nil
}
