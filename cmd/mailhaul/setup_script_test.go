package main

import (
	"fmt"
	"net"
	"net/http"
	"strconv"

	"github.com/rogpeppe/go-internal/testscript"

	"mailhaul/internal/testserver"
)

// directory starts a name server and a web server that know where the servers of
// serve are. It sets $DNS and $AUTOCONFIG.
//
//	directory
func directory(ts *testscript.TestScript, neg bool, args []string) {
	port := func(name string) uint16 {
		n, err := strconv.ParseUint(ts.Getenv(name), 10, 16)
		ts.Check(err)
		return uint16(n)
	}
	imap, pop3 := port("IMAPPORT"), port("POP3PORT")
	d := &testserver.DNS{SRV: map[string][]testserver.SRV{
		"_imaps._tcp.example.org": {{Port: imap, Target: "localhost"}},
		"_pop3s._tcp.example.org": {{Port: pop3, Target: "localhost"}},
		"_imaps._tcp.localhost":   {{Port: imap, Target: "localhost"}},
	}, MX: map[string][]string{"school.example": {"school-example.mail.protection.outlook.com"}}}
	ts.Check(d.Start())
	ts.Defer(func() { ts.Check(d.Close()) })
	ts.Setenv("DNS", d.Addr())

	none := &testserver.DNS{}
	ts.Check(none.Start())
	ts.Defer(func() { ts.Check(none.Close()) })
	ts.Setenv("NODNS", none.Addr())

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/example.org" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, `<clientConfig version="1.1"><emailProvider id="example.org">
<incomingServer type="imap"><hostname>localhost</hostname><port>%d</port><socketType>SSL</socketType><username>%%EMAILADDRESS%%</username></incomingServer>
<incomingServer type="pop3"><hostname>localhost</hostname><port>%d</port><socketType>SSL</socketType><username>%%EMAILADDRESS%%</username></incomingServer>
</emailProvider></clientConfig>`, imap, pop3)
	})}
	go func() { _ = web.Serve(ln) }()
	ts.Defer(func() { ts.Check(web.Close()) })
	ts.Setenv("AUTOCONFIG", "http://"+ln.Addr().String()+"/DOMAIN")
}
