package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"mailhaul/internal/auth"
	"mailhaul/internal/config"
	"mailhaul/internal/dial"
	"mailhaul/internal/keyring"
	"mailhaul/internal/oauth"
	"mailhaul/internal/vault"
	"mailhaul/mail"
)

type oauthFlags struct {
	provider, tenant             string
	clientID, clientSecretFile   string
	authURL, tokenURL, deviceURL string
	scopes                       []string
	device, noBrowser            bool
	port                         int
	store                        string
	forget                       bool
}

func newLogin(a *app) *cobra.Command {
	var o oauthFlags
	cmd := &cobra.Command{
		Use:   "login ACCOUNT",
		Short: "Log in with OAuth 2, in the browser or by device code",
		Long: `login asks your provider, in your browser, to let mailhaul read the mail of an
account, and keeps what the provider answers: in the keyring of the system, or in a
file that only you can read. From then on this account uses OAuth 2 tokens instead of
a password; they are renewed by themselves, also in the middle of a run.

ACCOUNT is one of the configuration, or imaps://USER@HOST. Google and Microsoft are
known; for others give the endpoints. Every provider wants a program to be registered:
the client id is that of your own registration. docs/oauth.md says, provider by
provider, where to click. It is given once; later logins remember it.

With Google the browser must run on this machine. With Microsoft a code is shown that
is typed into a browser anywhere.`,
		Example: `  mailhaul login imaps://ada@gmail.com@imap.gmail.com --client-id 123-abc.apps.googleusercontent.com --client-secret-file ~/google-secret
  mailhaul login work --client-id 00000000-0000-0000-0000-000000000000
  mailhaul login home --client-id mailhaul --auth-url https://id.example.org/authorize --token-url https://id.example.org/token --scope mail
  mailhaul login work            # again, after the consent has ended
  mailhaul login work --forget`,
		Args: arguments(1, 1, "an ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.login(cmd.Context(), args[0], o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.provider, "provider", "", "log in at `google|microsoft`, where the host does not tell which")
	f.StringVar(&o.tenant, "tenant", "", "Microsoft's `TENANT` (default common: work, school and personal accounts)")
	f.StringVar(&o.clientID, "client-id", "", "`ID` of your registration with the provider")
	f.StringVar(&o.clientSecretFile, "client-secret-file", "", "`FILE` with the secret of the registration, where the provider gives one; others must not be able to read it")
	f.StringVar(&o.authURL, "auth-url", "", "`URL` of the authorization endpoint")
	f.StringVar(&o.tokenURL, "token-url", "", "`URL` of the token endpoint")
	f.StringVar(&o.deviceURL, "device-url", "", "`URL` of the device authorization endpoint")
	f.StringArrayVar(&o.scopes, "scope", nil, "`SCOPE` to ask for (repeatable)")
	f.BoolVar(&o.device, "device", false, "show a code for a browser anywhere, where the provider can do that")
	f.BoolVar(&o.noBrowser, "no-browser", false, "show the address, but open no browser")
	f.IntVar(&o.port, "port", 0, "`PORT` of this machine to which the browser comes back (default any)")
	f.StringVar(&o.store, "store", "", "keep the login in the `keyring|file` (default the keyring, if there is one)")
	f.BoolVar(&o.forget, "forget", false, "remove the login instead")
	return cmd
}

// grants is where the logins of this user are kept.
func (a *app) grants() oauth.Store {
	dir := a.stateDir
	if dir == "" {
		dir = vault.StateDir()
	}
	if dir == "" {
		return oauth.Store{}
	}
	return oauth.Store{Dir: filepath.Join(dir, "oauth")}
}

// useGrant has an account log in with the tokens of mailhaul login, if there are
// any and nothing else was asked for.
func (a *app) useGrant(ac *account, s secretFlags) error {
	if ac.tokens != nil || s.command != "" || s.file != "" || ac.admin != "" {
		return nil
	}
	if m := strings.ToUpper(ac.mechanism); m != "" && m != auth.XOAuth2 && m != "OAUTHBEARER" {
		return nil
	}
	store, user := a.grants(), strings.TrimPrefix(ac.place.User, "recent:") // Gmail over POP3
	if !store.Has(user, ac.place.Host) {
		return nil
	}
	web, err := oauth.HTTPClient(ac.server.CAFile)
	if err != nil {
		return err
	}
	ac.tokens = store.Tokens(web, user, ac.place.Host, ac.name())
	return nil
}

// name is how a person types the account.
func (ac account) name() string {
	if ac.named != nil {
		return ac.named.Name
	}
	return ac.place.String()
}

func (a *app) login(ctx context.Context, typed string, o oauthFlags) (err error) {
	if o.store != "" && o.store != "keyring" && o.store != "file" {
		return usage("write keyring or file", "--store %q is neither", o.store)
	}
	ac, err := a.account(ctx, typed, secretFlags{}, nil)
	if err != nil {
		return err
	}
	store := a.grants()
	if o.forget {
		if !store.Has(ac.place.User, ac.place.Host) {
			return usage("", "%s has not logged in by OAuth 2", ac.label())
		}
		if err := store.Forget(ctx, ac.place.User, ac.place.Host); err != nil {
			return err
		}
		a.ui.Done("%s: the login is forgotten; withdraw the consent at the provider, too, if it was not only for this machine", ac.label())
		return nil
	}
	client, inKeyring, err := a.oauthClient(ctx, store, ac, o)
	if err != nil {
		return err
	}
	web, err := oauth.HTTPClient(ac.server.CAFile)
	if err != nil {
		return err
	}
	grant, err := a.consent(ctx, client, ac, o, func(c oauth.Client, show func(string)) (oauth.Grant, error) {
		return oauth.Browser(ctx, web, c, ac.place.User, o.port, show)
	}, func(c oauth.Client, show func(string, string)) (oauth.Grant, error) {
		return oauth.Device(ctx, web, c, show)
	})
	if err != nil {
		return err
	}
	if err := store.Save(ctx, ac.place.User, ac.place.Host, client, grant, inKeyring); err != nil {
		return err
	}
	where := store.Dir
	if inKeyring {
		where = "the keyring"
	}
	a.ui.Done("%s: logged in by OAuth 2; kept in %s", ac.label(), where)
	if grant.Refresh == "" {
		a.ui.Warn(&mail.Error{Err: errors.New("the provider gave no refresh token: this login ends in " + until(grant.Access.Expires)), Hint: "with Microsoft and others ask for the scope offline_access"})
	}
	ac.tokens = store.Tokens(web, ac.place.User, ac.place.Host, ac.name())
	if err := a.tryLogin(ctx, ac); err != nil {
		return err
	}
	a.ui.Done("%s: the mail server takes it", ac.label())
	a.ui.Object(struct {
		Type    string `json:"type"`
		Command string `json:"command"`
		Source  string `json:"source"`
		Store   string `json:"store"`
		Exit    int    `json:"exit"`
	}{"summary", "login", ac.key(), map[bool]string{true: "keyring", false: "file"}[inKeyring], exitDone})
	return nil
}

func until(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return time.Until(t).Round(time.Minute).String()
}

// tryLogin connects, logs in and leaves.
func (a *app) tryLogin(ctx context.Context, ac account) error {
	c, err := ac.credentials(ctx)
	if err != nil {
		return err
	}
	return a.tryCredentials(ctx, ac.server, c)
}

func (a *app) tryCredentials(ctx context.Context, s dial.Server, c auth.Credentials) error {
	src, err := a.openSource(s, c, 1)
	if err != nil {
		return err
	}
	_, err = src.Mailboxes(ctx)
	return errors.Join(err, src.Close())
}

// oauthClient puts together what is known of the registration: flags, what an
// earlier login had, the provider of the server.
func (a *app) oauthClient(ctx context.Context, store oauth.Store, ac account, o oauthFlags) (c oauth.Client, inKeyring bool, err error) {
	old, wasInKeyring, again := store.Client(ctx, ac.place.User, ac.place.Host)
	provider := o.provider
	if provider == "" && o.tokenURL == "" {
		provider = oauth.ForHost(ac.place.Host)
	}
	switch {
	case provider != "" && (o.provider != "" || o.tenant != "" || !again):
		var ok bool
		if c, ok = oauth.Lookup(provider, o.tenant); !ok {
			return c, false, usage("known are google and microsoft; for others give --auth-url or --device-url, and --token-url", "there is no provider %q", provider)
		}
		if again && old.Provider == c.Provider {
			c.ID, c.Secret = old.ID, old.Secret
		}
	case again:
		c = old
	}
	for to, from := range map[*string]string{&c.ID: o.clientID, &c.AuthURL: o.authURL, &c.TokenURL: o.tokenURL, &c.DeviceURL: o.deviceURL} {
		if from != "" {
			*to = from
		}
	}
	if o.scopes != nil {
		c.Scopes = o.scopes
	}
	if o.clientSecretFile != "" {
		if c.Secret, err = (config.Password{File: o.clientSecretFile}).Find(ctx); err != nil {
			return c, false, err
		}
	}
	inKeyring = o.store == "keyring" || o.store == "" && keyring.Available()
	if o.store == "" && again {
		inKeyring = wasInKeyring
	}
	return c, inKeyring, c.Check()
}

// consent lets the person log in at the provider.
func (a *app) consent(ctx context.Context, c oauth.Client, ac account, o oauthFlags, browser func(oauth.Client, func(string)) (oauth.Grant, error), device func(oauth.Client, func(string, string)) (oauth.Grant, error)) (oauth.Grant, error) {
	byDevice := c.DeviceURL != "" && (o.device || c.Provider == "microsoft" || c.AuthURL == "")
	if o.device && c.DeviceURL == "" {
		return oauth.Grant{}, usage("leave out --device, and run this where there is a browser", "this provider has no device codes for mail")
	}
	if byDevice {
		return device(c, func(url, code string) {
			a.say("To log in %s, open this address in a browser, on any machine:", ac.place.User)
			a.say("    %s", url)
			a.say("and type the code %s", code)
		})
	}
	return browser(c, func(url string) {
		a.say("To log in %s, open this address in a browser on this machine:", ac.place.User)
		a.say("    %s", url)
		if !o.noBrowser {
			openBrowser(ctx, url)
		}
	})
}

// say tells a person what to do now, even with --quiet.
func (a *app) say(format string, args ...any) {
	a.ui.Prompt(fmt.Sprintf(format, args...))
	a.ui.Break()
}

// openBrowser tries to; the address was shown anyway.
func openBrowser(ctx context.Context, url string) {
	var cmd *exec.Cmd
	switch {
	case runtime.GOOS == "darwin":
		cmd = exec.CommandContext(ctx, "open", url)
	case runtime.GOOS == "windows":
		cmd = exec.CommandContext(ctx, "rundll32", "url.dll,FileProtocolHandler", url)
	case os.Getenv("DISPLAY") != "" || os.Getenv("WAYLAND_DISPLAY") != "":
		cmd = exec.CommandContext(ctx, "xdg-open", url)
	default:
		return
	}
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }() // whether it worked, the person sees
	}
}
