package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cardstile/cardstile/internal/testredis"
)

// underReload is a gateway that is reloaded under load.
type underReload interface {
	hup()
	// footprint is what the gateway takes.
	footprint() footprint
	// rests is how many reloads without load end what was begun.
	rests() int
	log() string
}

// footprint is what must not grow.
type footprint struct {
	goroutines, files, heap, series, redis int
}

// Growth that is none: a connection that waits for its next use, a timer that is about to end, and of the heap what the collector
// has not looked at. A configuration takes more than 100 KiB, 900 of them 90 MiB.
var tolerance = footprint{goroutines: 12, files: 8, heap: 6 << 20, series: 40, redis: 4}

func (f footprint) String() string {
	return fmt.Sprintf("%d goroutines, %d files, %.1f MiB of heap, %d series, %d connections to Redis", f.goroutines, f.files, float64(f.heap)/(1<<20), f.series, f.redis)
}

// grown reports what is more than before.
func (f footprint) grown(before footprint) bool {
	return f.goroutines > before.goroutines+tolerance.goroutines || f.files > before.files+tolerance.files || f.heap > before.heap+tolerance.heap ||
		f.series > before.series+tolerance.series || f.redis > before.redis+tolerance.redis
}

// TestThousandReloads reloads the real program a thousand times, by SIGHUP, under load.
func TestThousandReloads(t *testing.T) {
	t.Parallel()
	r := newReloading(t)
	g := serveProcess(t, binary(t), r.h.path("config.yaml"), "GOGC=50")
	r.run(g.addr, &reloadedProcess{g, r}, 12, 100, 1000)
	g.stop(t, syscall.SIGTERM)
}

// reloadedProcess is the real program, with GOGC=50. Its heap is what the collector found alive the last time: it aims at half as
// much again.
type reloadedProcess struct {
	g *gatewayProcess
	r *reloading
}

func (p *reloadedProcess) hup()        { _ = p.g.cmd.Process.Signal(syscall.SIGHUP) } // that it has ended shows
func (p *reloadedProcess) log() string { return p.g.log() }
func (p *reloadedProcess) rests() int  { return 12 } // until the collector has run

func (p *reloadedProcess) footprint() footprint {
	f := p.r.scraped()
	f.heap = p.r.sample("go_memstats_next_gc_bytes") / 3 * 2
	return f
}

// TestReloadsUnderRace is the same in this process, so that the race detector sees it: fewer, since it is slow.
func TestReloadsUnderRace(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(50)) // or run would set it
	r := newReloading(t)
	core, said := observer.New(zap.InfoLevel)
	b, err := load(r.h.path("config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(b, zap.New(core), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close() //nolint:errcheck // nobody is left to tell
	if err := p.gateway.Listen(); err != nil {
		t.Fatal(err)
	}
	signals, ended, done := make(chan os.Signal, 4), make(chan error, 1), make(chan error, 1)
	go func() { ended <- p.gateway.Serve() }()
	go func() { done <- p.run(context.Background(), r.h.path("config.yaml"), b, signals, ended) }()
	addr := map[string]string{"partners": "", "public": "", "admin": ""}
	for name := range addr {
		addr[name] = p.gateway.Addr(name).String()
	}
	r.run(addr, &reloadedHere{p, r, signals, said}, 8, 40, 72)
	signals <- syscall.SIGTERM
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// reloadedHere is a gateway in this process. What the test itself takes is the same before and after.
type reloadedHere struct {
	p       *process
	r       *reloading
	signals chan os.Signal
	said    *observer.ObservedLogs
}

func (p *reloadedHere) hup()       { p.signals <- syscall.SIGHUP }
func (p *reloadedHere) rests() int { return 2 }

func (p *reloadedHere) log() string {
	var all strings.Builder
	for _, e := range p.said.All() {
		fmt.Fprintln(&all, e.Message, e.ContextMap())
	}
	return all.String()
}

func (p *reloadedHere) footprint() footprint {
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	f := p.r.scraped()
	f.goroutines, f.heap = runtime.NumGoroutine(), int(m.HeapAlloc)
	return f
}

// reloading is the house, its callers and what is changed.
type reloading struct {
	t      *testing.T
	h      *house
	redis  *testredis.Server
	it     underReload
	g      *gatewayProcess // its addresses
	admin  *http.Client
	whole  string       // the configuration
	n      int          // reloads so far
	broken int          // of them
	serial int64        // of the last certificate and list
	calls  atomic.Int64 // that got their right answer
	steps  map[string]int
	due    chan struct{} // flows that callers are to go through
}

func newReloading(t *testing.T) *reloading {
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	r := &reloading{t: t, h: h, redis: testredis.Start(t), serial: 1000, steps: map[string]int{}, due: make(chan struct{}, flowsPerReload), admin: &http.Client{Transport: &http.Transport{}, Timeout: patience}}
	h.useRedis(r.redis.Addr)
	h.edit("config.yaml", "client_ca: partners-ca.pem}", "client_ca: partners-ca.pem, revocation: {crl: [partners.crl]}}")
	h.edit("config.yaml", "admin: {", "  hosts:\n    address: \"127.0.0.1:0\"\n    tls: {hosts: [a.example.com]}\n\ncertificates: {ca: local, directory: certificates}\n\nadmin: {")
	h.edit("config.yaml", "\npolicies: [", "\n  - {listener: hosts, face: bridge, issuer: rain, client_leg: clear}\n\npolicies: [")
	for _, file := range []string{"rain-api-key", "payments-api-key", "payroc-issuer-key", "cards-api-key"} {
		h.edit("config.yaml", "api_key_file: "+file, "api_key_file: "+file+"\n    shared_credential: true")
	}
	r.revoke()
	r.whole = string(h.read("config.yaml"))
	return r
}

// run makes reloads until there have been so many, and holds what the gateway takes after each number to the first.
func (r *reloading) run(addr map[string]string, it underReload, until ...int) {
	r.it, r.g = it, &gatewayProcess{addr: addr}
	defer func() {
		if r.t.Failed() {
			for line := range strings.Lines(it.log()) {
				if !strings.Contains(line, "came again") { // which is right
					r.t.Log(strings.TrimSpace(line))
				}
			}
		}
	}()
	var first footprint
	for i, n := range until {
		r.underLoad(n)
		var now footprint
		eventually(r.t, fmt.Sprintf("after %d reloads it takes no more than after %d", n, until[0]), func() bool {
			r.rest()
			now = it.footprint()
			r.t.Logf("%4d reloads: %s", r.n, now)
			return i == 0 || !now.grown(first)
		})
		if i == 0 {
			first = now
		}
	}
	if good, failed := r.sample(`cardstile_config_reloads_total{result="ok"}`), r.sample(`cardstile_config_reloads_total{result="failed"}`); failed < r.broken || good+failed < r.n {
		r.t.Errorf("%d reloads, of them %d of broken files: counted are %d and %d", r.n, r.broken, good, failed)
	}
	for what, n := range r.steps {
		if n == 0 {
			r.t.Errorf("%s: never", what)
		}
	}
	r.t.Logf("%d calls; %v", r.calls.Load(), r.steps)
}

// rest lets what was begun end: reloads without load, during which connections close and the collector runs.
func (r *reloading) rest() {
	r.admin.CloseIdleConnections()
	for range r.it.rests() {
		r.good()
	}
}

// good is a reload that must come to a good end. It reports nothing of one that a change of a file began besides.
func (r *reloading) good() { r.reload(`cardstile_config_reloads_total{result="ok"}`) }

func (r *reloading) reload(counter string) {
	before := r.sample(counter)
	r.it.hup()
	eventually(r.t, counter, func() bool { return r.sample(counter) > before })
}

// scrape returns the samples of a metric, or of all.
func (r *reloading) scrape(metric string) string {
	url := "http://" + r.g.addr["admin"] + "/metrics"
	if metric != "" {
		url += "?name[]=" + metric
	}
	res, err := r.admin.Get(url) //nolint:noctx // loopback
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return string(text)
}

func (r *reloading) sample(name string) int {
	r.t.Helper()
	metric, _, _ := strings.Cut(name, "{")
	_, rest, found := strings.Cut(r.scrape(metric), "\n"+name+" ")
	text, _, _ := strings.Cut(rest, "\n")
	value, err := strconv.ParseFloat(text, 64)
	if !found || err != nil {
		r.t.Fatalf("no sample %s: %v", name, err)
	}
	return int(value)
}

func (r *reloading) scraped() footprint {
	connected, err := strconv.Atoi(r.redis.Field("clients", "connected_clients"))
	if err != nil {
		r.t.Fatal(err)
	}
	return footprint{
		goroutines: r.sample("go_goroutines"), files: r.sample("process_open_fds"), redis: connected,
		series: strings.Count(r.scrape(""), "\ncardstile_"),
	}
}

// flowsPerReload bounds how much is called, so that reloads get a part of the processor, too: three calls each.
const flowsPerReload = 3

// underLoad makes reloads up to a number while callers call. Each call has one right answer, and gets it.
func (r *reloading) underLoad(until int) {
	ctx, stop := context.WithCancel(r.t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer stop()
	for _, kind := range []struct {
		name       string
		http2, new bool
	}{{"HTTP/1.1, kept", false, false}, {"HTTP/2, kept", true, false}, {"HTTP/2, new", true, true}, {"HTTP/1.1, new", false, true}} {
		c := r.h.caller(r.g)
		for _, client := range []*http.Client{c.client, c.partner} {
			transport := client.Transport.(*http.Transport)
			transport.ForceAttemptHTTP2, transport.DisableKeepAlives = kind.http2, kind.new
			client.Timeout = patience
		}
		all.Go(func() {
			defer c.client.CloseIdleConnections()
			defer c.partner.CloseIdleConnections()
			for {
				select {
				case <-ctx.Done():
					return
				case <-r.due:
				}
				if err := r.call(c); err != nil {
					r.t.Errorf("%s: %v", kind.name, err)
				}
			}
		})
	}
	for ; r.n < until && !r.t.Failed(); r.n++ {
		for len(r.due) < cap(r.due) {
			r.due <- struct{}{}
		}
		r.step()
	}
}

// call mints a token, opens the card with it, and is refused the second time.
func (r *reloading) call(c *tester) error {
	ctx := context.Background()
	c.bodies, c.said = nil, nil
	token, s, err := c.begin(ctx)
	if err != nil {
		return err
	}
	show := request{method: "GET", url: c.card("details"), header: bearing(token, s)}
	answer, err := c.want(ctx, c.client, http.StatusOK, show)
	if err != nil {
		return err
	}
	var d details
	if err := json.Unmarshal(answer.body, &d); err != nil || d.Data.EncryptedPan == nil {
		return errors.New("no card in the answer")
	}
	if pan, err := s.Open(*d.Data.EncryptedPan); err != nil || pan != c.doc.Card.PAN {
		return errors.New("another card, or it does not open")
	}
	if _, err := c.want(ctx, c.client, http.StatusUnauthorized, show); err != nil {
		return err
	}
	r.calls.Add(3)
	return nil
}

// step is one reload: every second one changes nothing, most others something that is good.
func (r *reloading) step() {
	if r.n%2 == 0 {
		r.steps["nothing"]++
		r.good()
		return
	}
	change := changes[r.n/2%len(changes)]
	r.steps[change.name]++
	change.make(r)
}

// config replaces texts of the configuration as it was at first.
func (r *reloading) config(pairs ...string) {
	text := strings.NewReplacer(pairs...).Replace(r.whole)
	if text == r.whole {
		r.t.Fatalf("the configuration has none of %q", pairs)
	}
	r.write("config.yaml", []byte(text))
}

// write puts a file in the place of another.
func (r *reloading) write(name string, content []byte) {
	err := os.WriteFile(r.h.path(name+".new"), content, 0o600)
	if err = errors.Join(err, os.Rename(r.h.path(name+".new"), r.h.path(name))); err != nil {
		r.t.Fatal(err)
	}
}

// breaks has a reload of a broken file, sees that the log says what is wrong where, and puts back what was there.
func (r *reloading) breaks(file string, content []byte, says string) {
	was := r.h.read(file)
	r.write(file, content)
	before := strings.Count(r.it.log(), says)
	r.broken++
	r.reload(`cardstile_config_reloads_total{result="failed"}`)
	eventually(r.t, "the log says "+says, func() bool { return strings.Count(r.it.log(), says) > before })
	r.write(file, was)
	r.good()
}

// changes are what reloads are made for.
var changes = []struct {
	name string
	make func(*reloading)
}{
	{"a limit", func(r *reloading) {
		r.config("card: 100000/m", fmt.Sprintf("card: %d/m", 100_000+r.n))
		r.good()
	}},
	{"a partner", func(r *reloading) {
		id := fmt.Sprintf("p-%d", r.n%7)
		r.config("\npartners:\n", fmt.Sprintf("\npartners:\n  - {id: %q, rate: %d/m}\n", id, r.n+1))
		r.good()
		if r.sample(fmt.Sprintf("cardstile_partner_disabled{partner=%q}", id)) != 0 {
			r.t.Errorf("partner %s is not there", id)
		}
	}},
	{"a certificate", func(r *reloading) {
		r.serial++
		if err := issueCertificate(r.h.dir, certificateOrder{name: "server", ca: "ca", subject: "CN=localhost", usage: "server", dns: "localhost", serial: r.serial, notBefore: -time.Hour, notAfter: time.Hour}); err != nil {
			r.t.Fatal(err)
		}
		r.good()
		conn, err := tls.Dial("tcp", r.g.addr["public"], &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			r.t.Fatal(err)
		}
		defer conn.Close()
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64(); got != r.serial {
			r.t.Errorf("certificate %d is shown, not %d", got, r.serial)
		}
	}},
	{"a revocation list", func(r *reloading) { r.revoke(); r.good() }},
	{"a policy", func(r *reloading) {
		r.write(fmt.Sprintf("policies/more-%d.cedar", r.n%3), fmt.Appendf(nil, "@id(\"more-%d\") forbid (principal, action == Action::\"card.status\", resource) when { context.face == \"n%d\" };\n", r.n%3, r.n))
		r.good()
	}},
	{"an issuer", func(r *reloading) {
		r.config("    kind: rain\n", fmt.Sprintf("    kind: rain\n    timeout: %dms\n", 10_000+r.n))
		r.good()
	}},
	{"hosts", func(r *reloading) {
		r.config("hosts: [a.example.com]", fmt.Sprintf("hosts: [a.example.com, b%d.example.com]", r.n))
		r.good()
	}},
	{"a broken configuration", func(r *reloading) {
		r.breaks("config.yaml", []byte(r.whole+"limits2: {}\n"), "limits2: unknown key")
	}},
	{"half a configuration", func(r *reloading) {
		half := r.whole[:strings.Index(r.whole, "partner: 100000/m")]
		r.breaks("config.yaml", []byte(half), "config.yaml:")
	}},
	{"a broken certificate", func(r *reloading) {
		r.breaks("server.pem", r.h.read("partner.pem"), "listeners.public.tls.certificate: certificate and key do not load")
	}},
	{"half a revocation list", func(r *reloading) {
		list := r.h.read("partners.crl")
		r.breaks("partners.crl", list[:len(list)/2], "listeners.partners.tls.revocation.crl[0]: ")
	}},
	{"a broken policy", func(r *reloading) {
		r.breaks("policies/more-0.cedar", []byte("@id(\"broken\") forbid (principal, action, resource) when { context.nobody };\n"), "policies/more-0.cedar")
	}},
}

// revoke writes a list of the partners' CA that revokes somebody else.
func (r *reloading) revoke() {
	r.serial++
	pair, err := tls.LoadX509KeyPair(r.h.path("partners-ca.pem"), r.h.path("partners-ca-key.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	der, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(r.serial), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: time.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: big.NewInt(r.serial), RevocationTime: time.Now().Add(-time.Hour)}},
	}, pair.Leaf, pair.PrivateKey.(*ecdsa.PrivateKey))
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("partners.crl", bytes.TrimSpace(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})))
}
