package imapconn

import (
	"context"
	"time"
)

// RoundTrip returns how long the login took: at least one round trip. It is 0 where
// there was no login.
func (c *Conn) RoundTrip() time.Duration { return c.trip }

// OffersCompression tells whether the server compresses when it is asked to, and has
// not been yet.
func (c *Conn) OffersCompression() bool { return c.Has("COMPRESS=DEFLATE") && !c.nc.Compressed() }

// Compress has both sides compress from now on (RFC 4978). Nothing may be in
// flight. A server that refuses is not asked again; that is no error.
func (c *Conn) Compress(ctx context.Context) error {
	defer c.Bind(ctx)()
	if err := c.settle(); err != nil {
		return err
	}
	c.nc.Lines(true) // what the server sends behind its OK is compressed
	res, err := c.Exec(ctx, nil, "COMPRESS DEFLATE")
	if err != nil {
		return err
	}
	if !res.OK() {
		c.nc.Lines(false)
		delete(c.caps, "COMPRESS=DEFLATE")
		return nil
	}
	if c.scan.br.Buffered() > 0 {
		return c.broke(broken("octets in clear behind the answer to COMPRESS"))
	}
	c.nc.Compress()
	return nil
}
