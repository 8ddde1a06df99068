package pop3

import (
	"context"
	"slices"

	"mailhaul/mail"
)

// Examine tells what the server says of itself. It logs in if need be.
func (s *Source) Examine(ctx context.Context) (mail.ServerFacts, error) {
	if err := s.lock(ctx); err != nil {
		return mail.ServerFacts{}, err
	}
	defer s.unlock()
	failed := 0
	ss, err := s.session(ctx, &failed)
	if err != nil {
		return mail.ServerFacts{}, err
	}
	f := ss.conn.Facts()
	f.Capabilities = slices.Sorted(slices.Values(ss.caps.lines))
	f.Offered = slices.Sorted(slices.Values(ss.offered))
	f.Login = ss.method
	f.LoginDelay, f.Expire = ss.caps.loginDelay, s.Consumes()
	f.DeletesOne = true
	return f, nil
}
