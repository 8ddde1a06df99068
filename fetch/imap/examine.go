package imap

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"mailhaul/internal/imapconn"
	"mailhaul/mail"
)

// Examine tells what the server says of itself. It logs in if need be.
func (s *Source) Examine(ctx context.Context) (f mail.ServerFacts, err error) {
	err = s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		if _, err := c.Mailboxes(ctx); err != nil {
			return err
		}
		f = c.Net().Facts()
		f.Greeting, f.Capabilities, f.RoundTrip = c.Greeting(), c.Caps(), c.RoundTrip()
		f.Offered, f.Login = c.Logins()
		names := c.Names()
		f.Prefix, f.AppendLimit, f.Alert = names.Prefix, c.AppendLimit(), c.Alert()
		if names.Delim != 0 {
			f.Delimiter = string(rune(names.Delim))
		}
		f.DeletesOne, f.Moves, f.Appends = c.CanExpunge(), c.CanMove(), true
		return nil
	})
	return f, err
}

// Quota returns the octets used and the limit of the account, by the tightest
// storage limit on INBOX (RFC 9208 section 5.1); 0 if the server gives none.
func (s *Source) Quota(ctx context.Context) (used, limit int64, err error) {
	err = s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, "")
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		used, limit = 0, 0
		if !c.Has("QUOTA") {
			return nil
		}
		all, err := c.Quotas(ctx, "INBOX")
		for _, q := range all {
			const most = math.MaxInt64 >> 10
			if q.Resource != "STORAGE" || q.Limit <= 0 || q.Limit > most || q.Used > most {
				continue
			}
			if limit == 0 || (q.Limit-q.Used)<<10 < limit-used {
				used, limit = q.Used<<10, q.Limit<<10
			}
		}
		return err
	})
	return used, limit, err
}

// CheckSearch asks the server to find messages that are known: those of known
// larger than a size, and those of a day or before. It returns what the server got
// wrong, "" if nothing. The mailbox is opened for reading only.
func (s *Source) CheckSearch(ctx context.Context, mb mail.Mailbox, known []mail.Info) (wrong string, err error) {
	if len(known) == 0 {
		return "", nil
	}
	err = s.retry(ctx, func() error {
		c, err := s.pool.get(ctx, mb.Raw)
		if err != nil {
			return err
		}
		defer s.pool.put(c)
		if _, _, err := c.Examine(ctx, mb.Raw); err != nil {
			return err
		}
		wrong, err = checkSearch(ctx, c, known)
		return err
	})
	return wrong, err
}

func checkSearch(ctx context.Context, c *imapconn.Conn, known []mail.Info) (wrong string, err error) {
	middle := known[len(known)/2]
	day := middle.InternalDate
	tests := []struct {
		criteria string
		want     func(in mail.Info) bool
	}{
		{"LARGER " + strconv.FormatInt(max(0, middle.Size-1), 10), func(in mail.Info) bool { return in.Size > middle.Size-1 }},
		// RFC 9051 section 6.4.4 leaves the zone to the server: a day around stays out.
		{"SINCE " + day.AddDate(0, 0, -1).Format("2-Jan-2006"), func(in mail.Info) bool { return !in.InternalDate.Before(day) }},
		{"BEFORE " + day.AddDate(0, 0, 2).Format("2-Jan-2006"), func(in mail.Info) bool { return !in.InternalDate.After(day) }},
		{"SEEN", func(in mail.Info) bool { return in.Flags.Has(mail.Seen) }},
	}
	for _, t := range tests {
		if day == (time.Time{}) && t.criteria[0] != 'L' && t.criteria != "SEEN" {
			continue
		}
		uids, err := c.Search(ctx, t.criteria)
		if err != nil {
			return "", err
		}
		found := make(map[string]bool, len(uids))
		for _, u := range uids {
			found[strconv.FormatUint(uint64(u), 10)] = true
		}
		missed := 0
		for _, in := range known {
			if t.want(in) && !found[in.Ref.UID] {
				missed++
			}
		}
		if missed > 0 {
			return fmt.Sprintf("SEARCH %s leaves out %d messages that it should find", t.criteria, missed), nil
		}
	}
	return "", nil
}
