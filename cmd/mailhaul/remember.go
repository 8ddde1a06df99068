package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/history"
	"mailhaul/internal/keyring"
	"mailhaul/internal/metrics"
	"mailhaul/internal/notify"
	"mailhaul/internal/oauth"
	"mailhaul/internal/place"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

// deliverTime bounds all deliveries of a run together.
const deliverTime = 3 * time.Minute

// pending is a notice, and who is to get it.
type pending struct {
	notice history.Notice
	to     config.Notify
}

// store is where the history of accounts lies; ok is false where there is no place
// for it.
func (a *app) store() (s history.Store, ok bool) {
	dir := a.stateDir
	if dir == "" {
		dir = vault.StateDir()
	}
	return history.Store{Dir: filepath.Join(dir, "runs")}, dir != ""
}

// remembered runs a verb for a source and remembers how it ended, if that is an
// account of the configuration or metrics were asked for. A dry run is no run.
func (a *app) remembered(cmd *cobra.Command, source string, run func() error) error {
	named, err := a.named(source)
	if err != nil {
		return err
	}
	if dry, _ := cmd.Flags().GetBool("dry-run"); dry || named == nil && a.flags.metrics == "" {
		return run()
	}
	ctx := cmd.Context()
	began := time.Now()
	err = run()
	code := a.code(ctx, err)
	if err != nil && !errors.Is(err, errSaid) {
		a.tell(ctx, err)
		a.exit.Store(int32(code))
		err = errSaid
	}
	r := history.Run{
		Account: source, Command: cmd.Name(), Began: began, Seconds: time.Since(began).Seconds(),
		Exit: code, Counts: counters(a.ended), Told: a.ui.Told(),
	}
	if named == nil {
		r.Account = absolute(source)
		if place.IsServer(source) {
			p, perr := place.ParseServer(source)
			if perr != nil {
				return err // that is what the run said, too
			}
			r.Account = p.Account()
		}
	}
	a.remember(r, named)
	return err
}

// counters are the numbers of a summary that a report or a graph can use.
func counters(ended any) map[string]int64 {
	all := map[string]any{}
	add(all, ended)
	counts := map[string]int64{}
	for _, key := range []string{
		"listed", "archived", "uploaded", "adopted", "deleted", "skipped", "failed", "suspicious", "octets",
		"messages", "verified", "missing", "altered", "unreadable",
	} {
		if n, ok := all[key].(int64); ok {
			counts[key] = n
		}
	}
	return counts
}

// remember notes a run, writes the metrics and finds out who is to be told. What
// goes wrong here is a warning: it says nothing about the mail.
func (a *app) remember(r history.Run, named *config.Account) {
	st, ok := a.store()
	if !ok {
		a.ui.Warn(&mail.Error{Op: "remember how the run ended", Err: errors.New("there is no home directory"), Hint: "set XDG_STATE_HOME"})
		return
	}
	var to config.Notify
	if named != nil {
		to = named.Notify
	}
	file := a.metricsFile(named)
	var why []string
	s, err := st.Update(r.Account, func(s *history.State) {
		why = s.Note(r, max(to.After, 1))
		s.Metrics = file
	})
	if err != nil {
		a.ui.Warn(err)
		return
	}
	if file != "" {
		a.writeMetrics(st, file)
	}
	// A person at the terminal sees it.
	if a.ui.Terminal() {
		return
	}
	for _, occasion := range why {
		wanted := to.Wants(occasion) || occasion == history.Recovered && (to.Wants(history.Failure) || to.Wants(history.Trouble))
		if wanted {
			a.shared.mu.Lock()
			a.shared.pending = append(a.shared.pending, pending{history.Notice{Occasion: occasion, Run: r, State: s}, to})
			a.shared.mu.Unlock()
		}
	}
}

// metricsFile is the textfile for an account; "" for none.
func (a *app) metricsFile(named *config.Account) string {
	if a.flags.metrics != "" {
		return absolute(a.flags.metrics)
	}
	if named != nil && a.shared.file != nil {
		return a.shared.file.Metrics
	}
	return ""
}

// writeMetrics writes all accounts that share a textfile.
func (a *app) writeMetrics(st history.Store, file string) {
	a.shared.mu.Lock() // of several accounts that end at once the last one writes all
	defer a.shared.mu.Unlock()
	all, err := st.All()
	if err == nil {
		err = metrics.Write(file, slices.DeleteFunc(all, func(s history.State) bool { return s.Metrics != file }))
	}
	if err != nil {
		a.ui.Warn(err)
	}
}

// deliver tells those who want to know, in one message for each of them, and
// remembers that they were told.
func (a *app) deliver() {
	if len(a.shared.pending) == 0 {
		return
	}
	st, ok := a.store()
	if !ok {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), deliverTime) // a signal that ended the run does not end this
	defer cancel()
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "this machine"
	}
	for _, group := range byReceiver(a.shared.pending) {
		var notices []history.Notice
		for _, p := range group {
			notices = append(notices, p.notice)
		}
		if err := a.sendReport(ctx, group[0].to, history.Compose(notices, host), notices); err != nil {
			a.ui.Warn(err)
			continue
		}
		for _, n := range notices {
			if _, err := st.Update(n.Run.Account, func(s *history.State) { s.Told(n.Occasion, n.Run) }); err != nil {
				a.ui.Warn(err)
			}
		}
	}
}

// byReceiver groups notices that go the same way.
func byReceiver(all []pending) [][]pending {
	var groups [][]pending
	index := map[string]int{}
	for _, p := range all {
		to := p.to
		to.On, to.After = nil, 0
		key, err := json.Marshal(to) // a password is redacted, and belongs to a server and user
		if err != nil {
			key = nil
		}
		i, ok := index[string(key)]
		if !ok {
			i = len(groups)
			index[string(key)] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], p)
	}
	return groups
}

// sendReport tells one receiver by mail, by command, or both.
func (a *app) sendReport(ctx context.Context, to config.Notify, m history.Message, notices []history.Notice) error {
	var errs []error
	if to.Command != "" {
		argv, err := config.SplitCommand(to.Command)
		if err == nil {
			err = notify.Command(ctx, argv, m, notices)
		}
		errs = append(errs, err)
	}
	if len(to.To) > 0 {
		errs = append(errs, a.mailReport(ctx, to, m))
	}
	return errors.Join(errs...)
}

func (a *app) mailReport(ctx context.Context, to config.Notify, m history.Message) error {
	if to.Server.Host == "" {
		return &mail.Error{Kind: mail.KindConfig, Op: "mail the report", Err: errors.New("[notify] names no server"), Hint: `add server = "smtps://USER@HOST" below [notify]`}
	}
	c, err := a.reportCredentials(ctx, to)
	if err != nil {
		return err
	}
	return notify.Mail(ctx, notify.Envelope{From: to.From, To: to.To, Server: to.Server, CAFile: to.CAFile}, c, m)
}

// reportCredentials finds how to log in where mail is handed in: the token or the
// password that is configured, a grant of mailhaul login, the keyring, ~/.netrc.
func (a *app) reportCredentials(ctx context.Context, to config.Notify) (auth.Credentials, error) {
	c := auth.Credentials{User: to.Server.User}
	switch {
	case to.TokenCommand != "":
		c.Tokens = config.TokenCommand(to.TokenCommand)
	case to.Entry == (config.Entry{}):
		var err error
		if c.Tokens, err = a.reportGrant(to); err != nil {
			return c, err
		}
	}
	if c.Tokens != nil {
		return c, nil
	}
	p := config.Password{User: to.Server.User, Host: to.Server.Host, Entry: to.Entry, Netrc: netrc()}
	if keyring.Available() {
		p.Keyring = func(ctx context.Context) (s auth.Secret, found bool, err error) {
			for _, name := range a.reportKeys(to) {
				if s, found, err = keyring.Get(ctx, name); found || err != nil {
					break
				}
			}
			return s, found, err
		}
	}
	var err error
	c.Password, err = p.Find(ctx)
	return c, err
}

// reportKeys names where the keyring may have the password: one of its own, or that
// of the account whose user it is, if the configuration says that it is there.
func (a *app) reportKeys(to config.Notify) []string {
	names := []string{"smtp:" + to.Server.User + "@" + to.Server.Host}
	for _, ac := range a.sameUser(to.Server) {
		if to.Entry.Keyring && ac.Entry.Keyring {
			names = append(names, ac.Server.Account())
		}
	}
	return names
}

// reportGrant is the login of mailhaul login for the server, or for an account of the
// same user at the same provider; nil if there is none.
func (a *app) reportGrant(to config.Notify) (*auth.Tokens, error) {
	store, host, name := a.grants(), to.Server.Host, "imaps://"+to.Server.User+"@"+to.Server.Host
	if !store.Has(to.Server.User, host) {
		host = ""
		for _, ac := range a.sameUser(to.Server) {
			provider := oauth.ForHost(ac.Server.Host)
			if provider != "" && provider == oauth.ForHost(to.Server.Host) && store.Has(ac.Server.User, ac.Server.Host) {
				host, name = ac.Server.Host, ac.Name
			}
		}
	}
	if host == "" {
		return nil, nil
	}
	web, err := oauth.HTTPClient("")
	if err != nil {
		return nil, err
	}
	return store.Tokens(web, to.Server.User, host, name), nil
}

// sameUser returns the accounts of the user who hands mail in: a name without a
// domain may be another person's at another host.
func (a *app) sameUser(s place.Submission) (all []*config.Account) {
	if a.shared.file == nil {
		return nil
	}
	for _, ac := range a.shared.file.Accounts {
		if strings.EqualFold(ac.Server.User, s.User) && (strings.Contains(s.User, "@") || ac.Server.Host == s.Host) {
			all = append(all, ac)
		}
	}
	return all
}
