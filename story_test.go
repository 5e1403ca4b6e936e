package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/internal/testredis"
)

// TestStories runs testdata/script: one behaviour per file, told against the real program over real TLS. Whatever a story
// made the program say or store is searched for card data, tokens and keys when it ends: see canary_test.go.
func TestStories(t *testing.T) {
	t.Parallel()
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		WorkdirRoot:         t.TempDir(), // testscript leaves its own behind where -run chooses scripts
		RequireExplicitExec: true,
		UpdateScripts:       *update,
		Setup: func(env *testscript.Env) error {
			t := env.T().(testing.TB)
			env.Setenv("PATH", filepath.Dir(binary(t))+string(filepath.ListSeparator)+env.Getenv("PATH"))
			seeds, err := filepath.Abs("testdata/seeds")
			if err != nil {
				return err
			}
			env.Setenv("SEEDS", seeds)
			s := &story{t: t, work: env.WorkDir, canary: newCanary(), programs: map[string]*program{}, gateways: map[string]*gatewayProcess{},
				sessions: map[string]*sandbox.Session{}, passkeys: map[string]*sandbox.Passkey{}, servers: map[string]*testredis.Server{}, cas: map[string]*httptest.Server{},
				answers: map[string]chan answered{}, clients: map[string]*http.Client{}}
			env.Values[storyKey{}] = s
			env.Defer(s.end)
			return nil
		},
		Cmds: commands,
	})
}

type storyKey struct{}

// story is what one script has made so far.
type story struct {
	t        testing.TB
	work     string // the script's directory
	canary   *canary
	house    *house
	dir      string // with the certificates that callers use
	programs map[string]*program
	gateways map[string]*gatewayProcess
	sessions map[string]*sandbox.Session
	passkeys map[string]*sandbox.Passkey
	servers  map[string]*testredis.Server
	cas      map[string]*httptest.Server // servers of their lists
	answers  map[string]chan answered
	clients  map[string]*http.Client // by connection
	last     answered
	doc      demoFile
}

// end collects what the programs said and what is stored, and looks for what must not be there.
func (s *story) end() {
	for name, g := range s.gateways {
		if g.running() {
			s.scrape(name, g)
			g.stop(s.t, syscall.SIGTERM)
		}
	}
	for name, p := range s.programs {
		if p.running() {
			p.stop(s.t, syscall.SIGTERM)
		}
		s.canary.saw("the log of "+name, p.log())
		if s.t.Failed() {
			s.t.Logf("%s said:\n%s", name, p.log())
		}
	}
	for name, server := range s.servers {
		if server.PID() > 0 {
			s.canary.dump(name, server)
		}
	}
	if s.dir != "" {
		s.canary.auditFiles(s.t, s.dir)
	}
	for _, f := range s.canary.search() {
		s.t.Error(f)
	}
}

func (s *story) scrape(name string, g *gatewayProcess) {
	for _, path := range []string{"/metrics", "/readyz"} {
		_, text := g.get(s.t, path)
		s.canary.saw(path+" of "+name, text)
	}
}

// step is a step of a script. An error fails the script, or is what a negated step wants.
type step struct {
	usage string
	words int // at least
	do    func(*story, *testscript.TestScript, []string) error
}

func (c step) run(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < c.words {
		ts.Fatalf("usage: %s", c.usage)
	}
	err := c.do(ts.Value(storyKey{}).(*story), ts, args)
	switch {
	case neg && err == nil:
		ts.Fatalf("it succeeded, and must not")
	case !neg && err != nil:
		ts.Fatalf("%v", err)
	case err != nil:
		fmt.Fprintln(ts.Stdout(), err)
	}
}

// commands are the steps that scripts have beside testscript's own.
var commands = func() map[string]func(*testscript.TestScript, bool, []string) {
	all := map[string]func(*testscript.TestScript, bool, []string){}
	for _, c := range slices.Concat(bridgeSteps, paymentsSteps, exaSteps, payrocSteps, gnosisSteps, revocationSteps, fipsSteps, []step{
		{"house DIR: a directory as the demo makes it, with its issuer", 1, doHouse},
		{"document DIR: take the caller's certificates and addresses from a demo.json", 1, doDocument},
		{"redis NAME [DIR]: a server, and a house's configuration that names it", 1, doRedis},
		{"redis-stop NAME", 1, doRedisStop},
		{"redis-start NAME", 1, doRedisStart},
		{"redis-kill NAME: with what it has in memory, for good", 1, doRedisKill},
		{"redis-follow REPLICA PRIMARY: and wait until it does", 2, doRedisFollow},
		{"redis-sentinels MASTER PRIMARY NAME NAME: two Sentinels that watch it", 4, doRedisSentinels},
		{"redis-pause NAME: it stands still, its connections open, until redis-resume", 1, doRedisPause},
		{"redis-resume NAME", 1, doRedisResume},
		{"login NAME: a login record for the house's user, in a Redis", 1, doLogin},
		{"serve NAME CONFIG: a gateway, in the background; $NAME_partners, $NAME_public, $NAME_admin", 2, doServe},
		{"run NAME PROGRAM [ARGS...]: a program in the background", 2, doRun},
		{"output NAME [PATTERN]: a program's standard output so far, or as soon as it has a pattern", 1, doOutput},
		{"signal NAME HUP|TERM|INT", 2, doSignal},
		{"end NAME [TERM|INT]: end it and want exit code 0", 1, doEnd},
		{"ended NAME: wait until it has ended with exit code 0", 1, doEnded},
		{"log NAME PATTERN [COUNT]: wait until the log says so", 2, doLog},
		{"await FILE: wait until a file is there", 1, doAwait},
		{"ports VAR: the first of three free ports", 1, doPorts},
		{"cert DIR NAME [WORD=VALUE...]: a certificate; without ca= an authority", 2, doCert},
		{"http [OPTIONS] STATUS METHOD URL", 3, doHTTP},
		{"answer NAME: wait for a call that was made in the background", 1, doAnswer},
		{"header NAME PATTERN: of the last answer", 2, doHeader},
		{"member VAR NAME[.NAME...]: of the last answer's JSON; a text as it is, anything else as JSON", 2, doMember},
		{"cookie VAR NAME: name and value of a cookie that the last answer sets", 2, doCookie},
		{"uuid VAR", 1, doUUID},
		{"learn FILE: an answer that a program of the script's got; what it hands out is a secret from then on", 1, doLearn},
		{"needs PROGRAM...: fail, and say what to type, where one is not installed", 1, doNeeds},
		{"until STATUS URL [PATTERN]: ask the admin listener until it answers so", 2, doUntil},
		{"mint VAR GATEWAY [BODY]: a token", 2, doMint},
		{"alter NEW TOKEN: one like it that nobody minted", 2, doAlter},
		{"swap-case NEW TEXT: upper case for lower case, and the other way round", 2, doSwapCase},
		{"session NAME: a cardholder's device; $NAME_id", 1, doSession},
		{"opened SESSION FIELD...: the last answer's sealed values are the card's", 2, doOpened},
		{"seal-pin VAR SESSION PIN: the body of a PIN set; $VAR_data, $VAR_iv", 3, doSealPIN},
		{"issuer-pin PIN: what the issuer knows", 1, doIssuerPIN},
		{"issuer-calls COUNT [ISSUER]: how many requests have reached an issuer", 1, doIssuerCalls},
		{"issuer-status STATUS: what the issuer knows of the card", 1, doIssuerStatus},
		{"fault NAME [ISSUER]: have an issuer fail; none ends it", 1, doFault},
		{"hold [ISSUER]: stop requests before an issuer's door", 0, doHold},
		{"held COUNT [ISSUER]: wait until so many stand there", 1, doHeld},
		{"release [ISSUER]: open the door", 0, doRelease},
		{"metric GATEWAY NAME VALUE", 3, doMetric},
		{"mode FILE OCTAL", 2, doMode},
		{"edit FILE OLD NEW: replace a text that stands there once", 3, doEdit},
		{"exactly-one [STATUS] NAME...: of calls in the background, one got its status and the others 401, or STATUS", 2, doExactlyOne},
		{"at-most-one NAME...: the same, where none may have got it", 2, doAtMostOne},
		{"none NAME...: of them got its status, and all got 401", 1, doNone},
		{"all-but-one NAME...: the same, where all got it, or all but one", 1, doAllButOne},
		{"alike STATUS NAME...: of calls in the background, some got theirs and all of those one answer, and the others STATUS", 3, doAlike},
		{"refuses URL: wait until nobody listens there", 1, doRefuses},
		{"flows GATEWAY: all flows of the demo", 1, doFlows},
		{"each-fault GATEWAY SESSION FAULT...: what callers are told when the issuer fails", 3, doEachFault},
		{"handshake CERT|none URL: what a server says to a certificate, or to none", 2, doHandshake},
		{"presented URL: print the serial number of the certificate that a server shows", 1, doPresented},
		{"partner ID: one more partner, that shares the issuers", 1, doPartner},
		{"api-key VAR PARTNER [SCOPE...]: a new API key", 2, doAPIKey},
	}) {
		name, _, _ := strings.Cut(c.usage, ":")
		name, _, _ = strings.Cut(name, " ")
		all[name] = c.run
	}
	return all
}()

var discardLog = log.New(io.Discard, "", 0)

func doHouse(s *story, ts *testscript.TestScript, args []string) error {
	s.house = newHouse(s.t, ts.MkAbs(args[0]), s.canary)
	s.dir = s.house.dir
	doc, err := s.house.describe()
	if err != nil {
		return err
	}
	s.doc = doc
	s.describe(ts)
	ts.Setenv("nobodys_card", s.house.state.Cards[1].ID)
	ts.Setenv("pan", s.house.checkout.PAN)
	ts.Setenv("cvc", s.house.checkout.CVC)
	return nil
}

// describe sets what every caller of the directory's document knows.
func (s *story) describe(ts *testscript.TestScript) {
	for name, value := range map[string]string{
		"card": s.doc.Card.ID, "origin": s.doc.Origin,
		"bridge_key": s.doc.Bridge.APIKey, "customer": s.doc.Bridge.CustomerID, "card_account": s.doc.Bridge.CardAccountID,
		"account": s.doc.PaymentsGate.AccountID, "public_key": s.doc.PaymentsGate.PublicKey, "deal": s.doc.PaymentsGate.Deal,
		"credential": s.doc.Exa.CredentialID, "credential_cookie": s.doc.Exa.Cookie, "provisioning": s.doc.Exa.ProvisioningToken,
		"payroc_key": s.doc.Payroc.APIKey, "terminal": s.doc.Payroc.TerminalID, "library": s.doc.Payroc.LibVersion,
		"app": s.doc.GnosisPay.AppID, "user": s.doc.GnosisPay.UserToken,
	} {
		ts.Setenv(name, value)
	}
	s.canary.secret("partner's API key", s.doc.Bridge.APIKey)
	s.canary.secret("account's public key", s.doc.PaymentsGate.PublicKey)
	s.canary.secret("partner's API key of payroc", s.doc.Payroc.APIKey)
	s.canary.token("provisioning token", s.doc.Exa.ProvisioningToken)
	s.canary.token("user token", s.doc.GnosisPay.UserToken)
}

func doDocument(s *story, ts *testscript.TestScript, args []string) error {
	s.dir = ts.MkAbs(args[0])
	if err := json.Unmarshal([]byte(ts.ReadFile(args[0]+"/demo.json")), &s.doc); err != nil {
		return err
	}
	c := s.doc.Card
	s.canary.card(sandbox.Card{PAN: c.PAN, CVC: c.CVC, PIN: c.PIN})
	s.describe(ts)
	for name, value := range map[string]string{"partners": s.doc.PartnersURL, "public": s.doc.PublicURL, "admin": s.doc.AdminURL} {
		ts.Setenv(name, value)
	}
	return nil
}

func doRedis(s *story, ts *testscript.TestScript, args []string) error {
	server := testredis.Start(s.t)
	s.servers[args[0]] = server
	ts.Setenv(args[0], server.Addr)
	if len(args) > 1 {
		s.house.useRedis(server.Addr)
	}
	return nil
}

func (s *story) server(name string) (*testredis.Server, error) {
	if server := s.servers[name]; server != nil {
		return server, nil
	}
	return nil, fmt.Errorf("no Redis %s", name)
}

func doRedisStop(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		s.canary.dump(args[0], server)
		server.Stop()
	}
	return err
}

func doRedisStart(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		server.Restart()
	}
	return err
}

func doRedisKill(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		s.canary.dump(args[0], server)
		server.Kill()
		delete(s.servers, args[0])
	}
	return err
}

func doRedisFollow(s *story, _ *testscript.TestScript, args []string) error {
	replica, err := s.server(args[0])
	if err != nil {
		return err
	}
	primary, err := s.server(args[1])
	if err != nil {
		return err
	}
	replica.Follow(primary.Addr)
	replica.Synced()
	return nil
}

func doRedisSentinels(s *story, ts *testscript.TestScript, args []string) error {
	primary, err := s.server(args[1])
	if err != nil {
		return err
	}
	sentinels := []*testredis.Server{}
	for _, name := range args[2:] {
		sentinel := testredis.StartWith(s.t, testredis.Options{Sentinel: true})
		sentinel.Monitor(args[0], primary.Addr, 500*time.Millisecond)
		sentinels = append(sentinels, sentinel)
		ts.Setenv(name, sentinel.Addr)
	}
	for _, sentinel := range sentinels {
		sentinel.Eventually("it knows the other one, and the replica", func() bool {
			return strings.HasSuffix(sentinel.Field("sentinel", "master0"), "slaves=1,sentinels=2")
		})
	}
	return nil
}

func doRedisPause(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		server.Pause()
	}
	return err
}

func doRedisResume(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		server.Resume()
	}
	return err
}

func doLogin(s *story, _ *testscript.TestScript, args []string) error {
	server, err := s.server(args[0])
	if err == nil {
		s.house.logIn(server.Addr)
	}
	return err
}

func doServe(s *story, ts *testscript.TestScript, args []string) error {
	return s.serve(ts, args[0], binary(s.t), args[1])
}

// serve starts a gateway by the program at path.
func (s *story) serve(ts *testscript.TestScript, name, path, config string) error {
	g := serveProcess(s.t, path, ts.MkAbs(config))
	s.gateways[name], s.programs[name] = g, g.program
	for listener := range g.addr {
		ts.Setenv(name+"_"+listener, g.url(listener))
	}
	ts.Setenv(name+"_account", g.url("public")+"/v0/customers/"+s.doc.Bridge.CustomerID+"/card_accounts/"+s.doc.Bridge.CardAccountID)
	return nil
}

func doRun(s *story, ts *testscript.TestScript, args []string) error {
	path := args[1]
	if path == "cardstile" {
		path = binary(s.t)
	}
	s.programs[args[0]] = start(s.t, ts.MkAbs("."), path, args[2:]...)
	return nil
}

func (s *story) program(name string) (*program, error) {
	if p := s.programs[name]; p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("no program %s", name)
}

func doOutput(s *story, ts *testscript.TestScript, args []string) error {
	p, err := s.program(args[0])
	if err != nil {
		return err
	}
	if len(args) > 1 {
		re := regexp.MustCompile(args[1])
		eventually(s.t, "output of "+args[0]+" with "+args[1], func() bool { return re.MatchString(p.output()) })
	}
	_, err = io.WriteString(ts.Stdout(), p.output())
	return err
}

var signals = map[string]syscall.Signal{"HUP": syscall.SIGHUP, "TERM": syscall.SIGTERM, "INT": syscall.SIGINT}

func doSignal(s *story, _ *testscript.TestScript, args []string) error {
	p, err := s.program(args[0])
	if err != nil {
		return err
	}
	return p.cmd.Process.Signal(signals[args[1]])
}

func doEnd(s *story, _ *testscript.TestScript, args []string) error {
	p, err := s.program(args[0])
	if err != nil {
		return err
	}
	sig := syscall.SIGTERM
	if len(args) > 1 {
		sig = signals[args[1]]
	}
	if g := s.gateways[args[0]]; g != nil {
		s.scrape(args[0], g)
	}
	p.stop(s.t, sig)
	return nil
}

func doEnded(s *story, _ *testscript.TestScript, args []string) error {
	p, err := s.program(args[0])
	if err != nil {
		return err
	}
	eventually(s.t, "end of "+args[0], func() bool { return !p.running() })
	return p.err
}

func doLog(s *story, ts *testscript.TestScript, args []string) error {
	p, err := s.program(args[0])
	if err != nil {
		return err
	}
	count := 1
	if len(args) > 2 {
		if count, err = strconv.Atoi(args[2]); err != nil {
			return err
		}
	}
	p.said(s.t, args[1], count)
	return nil
}

func doAwait(s *story, ts *testscript.TestScript, args []string) error {
	path := ts.MkAbs(args[0])
	eventually(s.t, args[0], func() bool { _, err := os.Stat(path); return err == nil })
	return nil
}

func doPorts(s *story, ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], strconv.Itoa(threePorts(s.t)))
	return nil
}

func doCert(s *story, ts *testscript.TestScript, args []string) error {
	o, err := parseOrder(args[1], args[2:])
	if err != nil {
		return err
	}
	return issueCertificate(ts.MkAbs(args[0]), o)
}

// answered is an answer, or why there is none.
type answered struct {
	reply
	clear bool // card data in clear belongs into it
	err   error
}

// call is what the options of `http` say.
type call struct {
	background, certificate, connection string
	http1                               bool
	chunked                             bool // the body's length is not said
	untyped                             bool // nor its type
	clear                               bool // card data in clear belongs into the answer
	host                                string
	more                                http.Header // fields that are there already
	request                             request
	status                              int
}

func (s *story) parseCall(args []string) (*call, error) {
	c := &call{request: request{header: map[string]string{}}, more: http.Header{}}
	flags := map[string]*bool{"-http1": &c.http1, "-chunked": &c.chunked, "-no-type": &c.untyped, "-clear": &c.clear}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if flag := flags[args[0]]; flag != nil {
			*flag, args = true, args[1:]
			continue
		}
		if len(args) < 2 {
			return nil, fmt.Errorf("%s: no value", args[0])
		}
		value := args[1]
		switch args[0] {
		case "-bg":
			c.background = value
		case "-cert":
			c.certificate = value
		case "-conn":
			c.connection = value
		case "-bearer":
			c.request.header["Authorization"] = "Bearer " + value
		case "-session":
			session := s.sessions[value]
			if session == nil {
				return nil, fmt.Errorf("no session %s", value)
			}
			c.request.header["sessionid"] = session.ID()
		case "-cookie":
			c.request.header["Cookie"] = s.doc.Exa.Cookie + value
		case "-data":
			c.request.body = value
		case "-body":
			content, err := os.ReadFile(filepath.Join(s.work, value))
			if err != nil {
				return nil, err
			}
			c.request.body = string(content)
		case "-host":
			c.host = value
		case "-H":
			name, text, _ := strings.Cut(value, ": ")
			if _, twice := c.request.header[name]; twice {
				c.more.Add(name, text)
				break
			}
			c.request.header[name] = text
		default:
			return nil, fmt.Errorf("unknown option %s", args[0])
		}
		args = args[2:]
	}
	if len(args) != 3 {
		return nil, errors.New("want STATUS METHOD URL after the options")
	}
	var err error
	c.status, err = strconv.Atoi(args[0])
	c.request.method, c.request.url = args[1], args[2]
	return c, err
}

// client trusts the directory's ca.pem and shows a certificate of the directory, or none. A named connection is kept.
func (s *story) client(c *call) (*http.Client, error) {
	if client := s.clients[c.connection]; client != nil {
		return client, nil
	}
	t := &tester{dir: s.dir}
	if err := t.trust("ca.pem"); err != nil {
		return nil, err
	}
	var who demoCaller
	if c.certificate != "" {
		who = demoCaller{Certificate: c.certificate + ".pem", Key: c.certificate + "-key.pem"}
	}
	config, err := t.tls(who)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: !c.http1, DisableKeepAlives: c.connection == ""}
	client := &http.Client{Transport: transport, Timeout: patience, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	if c.connection != "" {
		s.clients[c.connection] = client
		s.t.Cleanup(transport.CloseIdleConnections)
	}
	return client, nil
}

// do makes a call and tells the canary of the answer.
func (s *story) do(c *call) (a answered) {
	client, err := s.client(c)
	if err != nil {
		return answered{err: err}
	}
	var sent io.Reader = strings.NewReader(c.request.body)
	if c.chunked {
		sent = struct{ io.Reader }{sent}
	}
	q, err := http.NewRequestWithContext(context.Background(), c.request.method, c.request.url, sent)
	if err != nil {
		return answered{err: err}
	}
	if c.request.body != "" && !c.untyped {
		q.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.request.header {
		q.Header.Set(name, value)
	}
	for name, values := range c.more {
		for _, value := range values {
			q.Header.Add(name, value)
		}
	}
	q.Host = c.host
	s.canary.sent(q.Header, q.URL, c.request.body)
	res, err := client.Do(q)
	if err != nil {
		return answered{err: err}
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return answered{err: err}
	}
	searched := ownToken(q.URL, body)
	if c.clear {
		searched = shown(body)
	}
	s.canary.answered(res.StatusCode, res.Header, searched)
	return answered{reply: reply{res.StatusCode, res.Header, body}, clear: c.clear}
}

func (s *story) check(ts *testscript.TestScript, a answered, status int) error {
	s.last = a
	if a.err != nil {
		return a.err
	}
	body := a.body
	if a.clear {
		body = shown(body)
	}
	ts.Stdout().Write(append(bytes.TrimSuffix(body, []byte("\n")), '\n')) //nolint:errcheck // a buffer
	if a.status != status {
		return fmt.Errorf("status %d, want %d: %s", a.status, status, body)
	}
	return nil
}

func doHTTP(s *story, ts *testscript.TestScript, args []string) error {
	c, err := s.parseCall(args)
	if err != nil {
		ts.Fatalf("%v", err)
	}
	if c.background == "" {
		return s.check(ts, s.do(c), c.status)
	}
	done := make(chan answered, 1)
	s.answers[c.background] = done
	ts.Setenv(c.background+"_status", strconv.Itoa(c.status))
	go func() { done <- s.do(c) }()
	return nil
}

func doAnswer(s *story, ts *testscript.TestScript, args []string) error {
	done := s.answers[args[0]]
	if done == nil {
		return fmt.Errorf("no call %s", args[0])
	}
	status, err := strconv.Atoi(ts.Getenv(args[0] + "_status"))
	if err != nil {
		return err
	}
	return s.check(ts, <-done, status)
}

func doHeader(s *story, _ *testscript.TestScript, args []string) error {
	value := strings.Join(s.last.header.Values(args[0]), ", ")
	if !regexp.MustCompile(args[1]).MatchString(value) {
		return fmt.Errorf("%s: %q does not match %s", args[0], value, args[1])
	}
	return nil
}

func doMember(s *story, ts *testscript.TestScript, args []string) error {
	text, err := memberOf(s.last.body, args[1])
	if err != nil {
		return err
	}
	ts.Setenv(args[0], text)
	return nil
}

// memberOf is a member of a JSON object, by its path: a text as it is, anything else as JSON.
func memberOf(body []byte, path string) (string, error) {
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(body, &object); err != nil {
			return "", err
		}
		if body = object[name]; body == nil {
			return "", fmt.Errorf("no %s in the answer", path)
		}
	}
	var text string
	if json.Unmarshal(body, &text) == nil {
		return text, nil
	}
	return string(body), nil
}

func doCookie(s *story, ts *testscript.TestScript, args []string) error {
	for _, c := range (&http.Response{Header: s.last.header}).Cookies() {
		if c.Name == args[1] {
			ts.Setenv(args[0], c.Name+"="+c.Value)
			return nil
		}
	}
	return fmt.Errorf("the answer sets no cookie %s", args[1])
}

func doUUID(_ *story, ts *testscript.TestScript, args []string) error {
	ts.Setenv(args[0], randomUUID())
	return nil
}

func doLearn(s *story, ts *testscript.TestScript, args []string) error {
	s.canary.answered(http.StatusOK, nil, []byte(ts.ReadFile(args[0])))
	return nil
}

func doNeeds(_ *story, ts *testscript.TestScript, args []string) error {
	for _, name := range args {
		if _, err := exec.LookPath(name); err != nil {
			ts.Fatalf("%s is not installed, and this story runs it: type ./tools/setup", name)
		}
	}
	return nil
}

func doUntil(s *story, ts *testscript.TestScript, args []string) error {
	want, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	pattern := regexp.MustCompile(strings.Join(args[2:], " "))
	var last string
	defer func() { s.canary.saw("an answer of the admin listener", last) }()
	eventually(s.t, strings.Join(args, " "), func() bool {
		res, err := http.Get(args[1]) //nolint:noctx // loopback
		if err != nil {
			return false
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		last = string(body)
		return err == nil && res.StatusCode == want && pattern.Match(body)
	})
	fmt.Fprint(ts.Stdout(), last)
	return nil
}

func doMint(s *story, ts *testscript.TestScript, args []string) error {
	url := ts.Getenv(args[1] + "_partners")
	if url == "" {
		url = s.doc.PartnersURL
	}
	c := &call{certificate: "partner", request: request{method: "POST", url: url + "/api/v1/ephemeral-token", body: strings.Join(args[2:], " ")}}
	a := s.do(c)
	if a.err != nil {
		return a.err
	}
	var answer struct {
		Data struct{ EphemeralToken string }
	}
	if err := json.Unmarshal(a.body, &answer); err != nil || a.status != 200 || answer.Data.EphemeralToken == "" {
		return fmt.Errorf("mint: status %d", a.status)
	}
	ts.Setenv(args[0], answer.Data.EphemeralToken)
	return nil
}

func doAlter(_ *story, ts *testscript.TestScript, args []string) error {
	token := []byte(ts.Getenv(args[1]))
	for i := len(token) - 9; i < len(token)-1; i++ {
		token[i] = 'A'
	}
	ts.Setenv(args[0], string(token))
	return nil
}

func doSwapCase(_ *story, ts *testscript.TestScript, args []string) error {
	swap := func(r rune) rune {
		if unicode.IsUpper(r) {
			return unicode.ToLower(r)
		}
		return unicode.ToUpper(r)
	}
	ts.Setenv(args[0], strings.Map(swap, args[1]))
	return nil
}

func doSession(s *story, ts *testscript.TestScript, args []string) error {
	t, err := newTesterOf(s.dir)
	if err != nil {
		return err
	}
	session, err := t.session()
	if err != nil {
		return err
	}
	s.canary.session(session)
	s.sessions[args[0]] = session
	ts.Setenv(args[0]+"_id", session.ID())
	return nil
}

// newTesterOf reads no more of a directory than the public session key.
func newTesterOf(dir string) (*tester, error) {
	t := &tester{dir: dir}
	return t, t.learn("session-public.pem")
}

// doOpened never prints what it compares.
func doOpened(s *story, _ *testscript.TestScript, args []string) error {
	session := s.sessions[args[0]]
	if session == nil {
		return fmt.Errorf("no session %s", args[0])
	}
	var answer struct {
		Data struct{ EncryptedPan, EncryptedCvc, EncryptedPin *sandbox.Sealed }
		// Exa's answer has them at the top.
		EncryptedPan, EncryptedCvc, Pin *sandbox.Sealed
	}
	if err := json.Unmarshal(s.last.body, &answer); err != nil {
		return err
	}
	first := func(values ...*sandbox.Sealed) *sandbox.Sealed {
		for _, v := range values {
			if v != nil {
				return v
			}
		}
		return nil
	}
	for _, field := range args[1:] {
		var sealed *sandbox.Sealed
		var want string
		read := session.Open
		switch field {
		case "pan":
			sealed, want = first(answer.Data.EncryptedPan, answer.EncryptedPan), s.doc.Card.PAN
		case "cvc":
			sealed, want = first(answer.Data.EncryptedCvc, answer.EncryptedCvc), s.doc.Card.CVC
		case "pin":
			sealed, want = first(answer.Data.EncryptedPin, answer.Pin), s.doc.Card.PIN
			read = session.OpenPIN
		}
		if sealed == nil {
			return fmt.Errorf("no %s in the answer", field)
		}
		if got, err := read(*sealed); err != nil || got != want {
			return fmt.Errorf("the %s does not open, or is another one", field)
		}
	}
	return nil
}

func doSealPIN(s *story, ts *testscript.TestScript, args []string) error {
	sealed, err := s.sessions[args[1]].SealPIN(args[2])
	if err != nil {
		return err
	}
	if len(args[2]) > 4 {
		s.canary.pin(args[2])
	}
	ts.Setenv(args[0], fmt.Sprintf(`{"data":%q,"iv":%q}`, sealed.Data, sealed.IV))
	ts.Setenv(args[0]+"_data", sealed.Data)
	ts.Setenv(args[0]+"_iv", sealed.IV)
	return nil
}

func doIssuerPIN(s *story, _ *testscript.TestScript, args []string) error {
	want := args[0]
	if want == "unchanged" {
		want = s.doc.Card.PIN
	}
	if s.house.rain.PIN(demoCard) != want {
		return errors.New("the issuer knows another PIN")
	}
	return nil
}

func doIssuerCalls(s *story, _ *testscript.TestScript, args []string) error {
	issuer, _ := s.house.issuer(args[1:])
	if got := strconv.Itoa(issuer.Total()); got != args[0] {
		return fmt.Errorf("%s requests reached the issuer, want %s", got, args[0])
	}
	return nil
}

func doIssuerStatus(s *story, _ *testscript.TestScript, args []string) error {
	if got := s.house.rain.Status(demoCard); got != args[0] {
		return fmt.Errorf("the card is %q to the issuer, want %q", got, args[0])
	}
	return nil
}

// faults are the issuers', by the names that scripts use.
var faults = map[string]sandbox.Fault{
	"none": {}, "hang": sandbox.FaultHang, "500": sandbox.Fault500, "malformed": sandbox.FaultMalformedJSON,
	"wrong-ciphertext": sandbox.FaultWrongCiphertext, "wrong-iv": sandbox.FaultWrongIV, "missing-field": sandbox.FaultMissingField,
	"huge": sandbox.FaultHugeBody, "truncated": sandbox.FaultTruncatedBody, "disconnect": sandbox.FaultDisconnect,
	"redirect": sandbox.FaultRedirect, "pan-in-error": sandbox.FaultPANInError, "null-pin": sandbox.FaultNullPIN,
	"empty": sandbox.FaultEmptyBody, "content-type": sandbox.FaultWrongContentType,
	"lost-update":   sandbox.FaultDisconnect.On(sandbox.CallUpdate), // done, and not answered
	"pan-in-member": sandbox.FaultPANInMember, "pan-in-header": sandbox.FaultPANInHeader("X-Card"), "pan-in-type": sandbox.FaultPANInHeader("Content-Type"),
}

func doFault(s *story, _ *testscript.TestScript, args []string) error {
	f, ok := faults[args[0]]
	if !ok {
		return fmt.Errorf("unknown fault %q", args[0])
	}
	issuer, id := s.house.issuer(args[1:])
	issuer.SetFault(id, f)
	return nil
}

func doHold(s *story, _ *testscript.TestScript, args []string) error {
	s.house.gate(args).close()
	return nil
}

func doHeld(s *story, _ *testscript.TestScript, args []string) error {
	gate := s.house.gate(args[1:])
	eventually(s.t, args[0]+" requests before the issuer's door", func() bool { return strconv.Itoa(gate.held()) == args[0] })
	return nil
}

func doRelease(s *story, _ *testscript.TestScript, args []string) error {
	s.house.gate(args).open()
	return nil
}

func doMetric(s *story, _ *testscript.TestScript, args []string) error {
	g := s.gateways[args[0]]
	if g == nil {
		return fmt.Errorf("no gateway %s", args[0])
	}
	_, text := g.get(s.t, "/metrics")
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), args[1]+" "); ok {
			if value != args[2] {
				return fmt.Errorf("%s is %s, want %s", args[1], value, args[2])
			}
			return nil
		}
	}
	return fmt.Errorf("no metric %s", args[1])
}

func doMode(_ *story, ts *testscript.TestScript, args []string) error {
	info, err := os.Stat(ts.MkAbs(args[0]))
	if err != nil {
		return err
	}
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		return fmt.Errorf("%s has mode %s, want %s", args[0], got, args[1])
	}
	return nil
}

// doHandshake succeeds where the connection stands; otherwise the error is the server's alert.
func doHandshake(s *story, _ *testscript.TestScript, args []string) error {
	t := &tester{dir: s.dir, doc: demoFile{PartnersURL: args[1]}}
	if err := t.trust("ca.pem"); err != nil {
		return err
	}
	var who demoCaller
	if args[0] != "none" {
		who = demoCaller{Certificate: args[0] + ".pem", Key: args[0] + "-key.pem"}
	}
	config, err := t.tls(who)
	if err != nil {
		return err
	}
	err = t.handshake(context.Background(), config)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return nil // it waits for a request
	}
	return err
}

func doPresented(_ *story, ts *testscript.TestScript, args []string) error {
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext(context.Background(), "tcp", strings.TrimPrefix(args[0], "https://"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience)) // a net.Conn that was just opened
	fmt.Fprintln(ts.Stdout(), conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber)
	return nil
}

func doEdit(_ *story, ts *testscript.TestScript, args []string) error {
	unescape := strings.NewReplacer(`\n`, "\n").Replace
	text, old := ts.ReadFile(args[0]), unescape(args[1])
	if n := strings.Count(text, old); n != 1 {
		return fmt.Errorf("%s has %q %d times, not once", args[0], old, n)
	}
	path := ts.MkAbs(args[0])
	if err := os.WriteFile(path+".new", []byte(strings.Replace(text, old, unescape(args[2]), 1)), 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func doExactlyOne(s *story, ts *testscript.TestScript, args []string) error {
	lost := http.StatusUnauthorized
	if status, err := strconv.Atoi(args[0]); err == nil {
		lost, args = status, args[1:]
	}
	won, err := s.won(ts, lost, args)
	if err == nil && won != 1 {
		err = fmt.Errorf("%d of %d won", won, len(args))
	}
	return err
}

func doAtMostOne(s *story, ts *testscript.TestScript, args []string) error {
	won, err := s.won(ts, http.StatusUnauthorized, args)
	if err == nil && won > 1 {
		err = fmt.Errorf("%d of %d won", won, len(args))
	}
	return err
}

func doNone(s *story, ts *testscript.TestScript, args []string) error {
	won, err := s.won(ts, http.StatusUnauthorized, args)
	if err == nil && won > 0 {
		err = fmt.Errorf("%d of %d won", won, len(args))
	}
	return err
}

func doAllButOne(s *story, ts *testscript.TestScript, args []string) error {
	won, err := s.won(ts, http.StatusUnauthorized, args)
	if err == nil && won < len(args)-1 {
		err = fmt.Errorf("%d of %d won", won, len(args))
	}
	return err
}

// won counts the calls that got their status. The others got the one of those that lost.
func (s *story) won(ts *testscript.TestScript, lost int, names []string) (won int, err error) {
	for _, name := range names {
		a := <-s.answers[name]
		switch {
		case a.err != nil:
			return won, a.err
		case strconv.Itoa(a.status) == ts.Getenv(name+"_status"):
			won++
			s.last = a
		case a.status != lost:
			return won, fmt.Errorf("%s: status %d", name, a.status)
		}
	}
	return won, nil
}

func doAlike(s *story, ts *testscript.TestScript, args []string) error {
	var first []byte
	for _, name := range args[1:] {
		a := <-s.answers[name]
		switch {
		case a.err != nil:
			return a.err
		case strconv.Itoa(a.status) == args[0]:
			continue
		case strconv.Itoa(a.status) != ts.Getenv(name+"_status"):
			return fmt.Errorf("%s: status %d", name, a.status)
		case first != nil && !bytes.Equal(first, a.body):
			return fmt.Errorf("%s: another answer", name)
		}
		first, s.last = a.body, a
	}
	if first == nil {
		return errors.New("none was answered")
	}
	return nil
}

func doRefuses(s *story, _ *testscript.TestScript, args []string) error {
	eventually(s.t, "a refused connection", func() bool {
		conn, err := net.Dial("tcp", strings.TrimPrefix(args[0], "https://")) //nolint:noctx // loopback
		if err == nil {
			conn.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	return nil
}

func doFlows(s *story, ts *testscript.TestScript, args []string) error {
	g := s.gateways[args[0]]
	if g == nil {
		return fmt.Errorf("no gateway %s", args[0])
	}
	t := s.house.caller(g)
	err := tryFlows(context.Background(), ts.Stdout(), t)
	for _, body := range t.bodies {
		s.canary.answered(http.StatusOK, nil, body)
	}
	return err
}

// doEachFault prints, for each fault, what the two faces say about it, and wants each to have reached the issuer.
func doEachFault(s *story, ts *testscript.TestScript, args []string) error {
	defer s.house.rain.SetFault(demoCard, sandbox.Fault{})
	base := ts.Getenv(args[0] + "_public")
	for _, name := range args[2:] {
		fault, ok := faults[name]
		if !ok {
			return fmt.Errorf("unknown fault %q", name)
		}
		s.house.rain.SetFault(demoCard, sandbox.Fault{})
		if err := doMint(s, ts, []string{"token", args[0]}); err != nil {
			return err
		}
		s.house.rain.SetFault(demoCard, fault)
		for _, options := range [][]string{
			{"-bearer", ts.Getenv("token"), "-session", args[1], "0", "GET", base + "/api/v1/cards/" + demoCard + "/details"},
			{"-cookie", "", "-session", args[1], "0", "GET", base + "/api/card"},
		} {
			before := s.house.rain.Total()
			c, err := s.parseCall(options)
			if err != nil {
				return err
			}
			a := s.do(c)
			if a.err != nil {
				return a.err
			}
			if s.house.rain.Total() == before {
				return fmt.Errorf("%s: the issuer was not asked", name)
			}
			fmt.Fprintf(ts.Stdout(), "%s: %d %s\n", name, a.status, a.body)
		}
	}
	return nil
}
