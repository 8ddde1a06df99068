package imapconn

import "context"

// maxFound is how many UIDs one SEARCH may bring.
const maxFound = 1_000_000

// Search returns the UIDs the server finds in the selected mailbox by criteria in
// ASCII (RFC 9051 section 6.4.4). No conclusion is drawn from it but how far the
// server can be believed.
func (c *Conn) Search(ctx context.Context, criteria string) ([]uint32, error) {
	var found []uint32
	h := &Handler{Search: func(uid uint32) error {
		if len(found) < maxFound {
			found = append(found, uid)
		}
		return nil
	}}
	res, err := c.Exec(ctx, h, "UID SEARCH "+criteria)
	if err == nil && !res.OK() {
		err = c.refused("search", res, res.Kind(), "")
	}
	return found, err
}

// search handles what stands behind "* SEARCH".
func (c *Conn) search() error {
	if c.handler == nil || c.handler.Search == nil {
		return c.ignore()
	}
	s := c.scan
	for s.spaces(); ; s.spaces() {
		uid, ok := s.number32()
		if !ok {
			return s.skipRest()
		}
		if err := c.handler.Search(uid); err != nil {
			return handled(err)
		}
	}
}
