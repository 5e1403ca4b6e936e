package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test's binary play the other processes, as the program does.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role, os.Args[1:]); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestSmoke goes through everything, for a moment each: all operations on all servers, the report, the file, the
// profiles. nginx takes part where it is installed.
func TestSmoke(t *testing.T) {
	dir := t.TempDir()
	binary := filepath.Join(dir, "cardstile")
	build := exec.Command("go", "build", "-o", binary, "github.com/cardstile/cardstile")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	_, without := findNginx(nginxNames)
	o, err := parseOptions([]string{
		"-binary", binary, "-round", "200ms", "-rounds", "2", "-connections", "4", "-profile", "1s", "-pairs", "200",
		"-json", filepath.Join(dir, "out.json"), "-dir", dir,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	o.nginx = without == nil
	var out bytes.Buffer
	if err := bench(t.Context(), o, &out); err != nil {
		t.Fatal(err)
	}
	var r report
	content, err := os.ReadFile(o.json)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(content, &r); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"handshake Cardstile", "handshake ReverseProxy", "handshake-hybrid Cardstile", "handshake-hybrid ReverseProxy", "mint Cardstile",
		"refused Cardstile", "reveal Cardstile", "pin Cardstile", "forward Cardstile", "forward ReverseProxy", "forward " + proxyH1Name, "profile Cardstile", "rsa crypto/rsa",
	}
	if o.nginx {
		want = append(want, "handshake nginx", "forward nginx")
	}
	var got []string
	for _, row := range r.Rows {
		got = append(got, row.Operation+" "+row.Server)
		if !slices.Contains(operations, row.Operation) {
			t.Errorf("%s is none of those that -only knows", row.Operation)
		}
		if row.Exchanges == 0 || row.Throughput.Median <= 0 || row.Busy.Max <= 0 {
			t.Errorf("%s by %s: %d exchanges, %v a second, processor %v", row.Operation, row.Server, row.Exchanges, row.Throughput, row.Busy)
		}
		if row.Server != "Cardstile" {
			continue
		}
		// Every exchange is recorded, and several may share a sync; a handshake alone is not an exchange.
		recorded := row.Operation != opHandshake && row.Operation != opHybrid
		if row.Objects == nil || row.Objects.Median <= 0 || row.Syncs == nil || (row.Syncs.Max > 0) != recorded {
			t.Errorf("%s: allocations %v, syncs %v", row.Operation, row.Objects, row.Syncs)
		}
		if row.Operation == opReveal && row.Connections == 1 && math.Abs(row.Syncs.Median-1) > .05 {
			t.Errorf("reveal on one connection: %v syncs each, want 1", row.Syncs)
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("no row %q", name)
		}
		if operation, server, _ := strings.Cut(name, " "); !strings.Contains(out.String(), "\n| "+operation+" | "+server+" |") {
			t.Errorf("the report lacks %q", name)
		}
	}
	if r.Store == nil || !strings.Contains(out.String(), "### The store") {
		t.Error("no store")
	} else {
		checkStore(t, r.Store, 200)
	}
	if len(r.Ratios) < 7 {
		t.Errorf("%d ratios", len(r.Ratios))
	}
	held := []string{"Cardstile", "ReverseProxy"}
	if o.nginx {
		held = append(held, "nginx")
	}
	for i, row := range r.Idle {
		if i >= len(held) || row.Server != held[i] || row.Connections != idleConnections || row.Resident < 4<<10 || row.Server != "nginx" && (row.Live < 8<<10 || row.Live > 256<<10) {
			t.Errorf("idle connections: %+v", row)
		}
	}
	if len(r.Idle) != len(held) || r.Idle[0].Goal != idleGoal || !strings.Contains(out.String(), "| KiB of an idle mTLS connection |") {
		t.Errorf("idle connections of %d servers", len(r.Idle))
	}
	if len(r.Profiles) != 4 || !strings.Contains(out.String(), bucketRSA) {
		t.Errorf("%d profiles", len(r.Profiles))
	}
	if strings.Contains(out.String(), dir) || bytes.Contains(content, []byte(dir)) {
		t.Error("the report names a directory of this machine")
	}
	left, err := filepath.Glob(filepath.Join(dir, "cardstile-bench-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if children, err := childrenOf(os.Getpid()); err != nil || len(children) > 0 {
		t.Errorf("still running: %v, %v", children, err)
	}
}

func TestWrongAnswerEndsIt(t *testing.T) {
	calls := 0
	_, err := drive(t.Context(), []worker{{exchange: func() error {
		if calls++; calls == 3 {
			return io.ErrUnexpectedEOF
		}
		return nil
	}}}, time.Minute)
	if err != io.ErrUnexpectedEOF || calls != 3 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestExhaustedEndsARoundEarly(t *testing.T) {
	left := 5
	taken, err := drive(t.Context(), []worker{{exchange: func() error {
		if left--; left < 0 {
			return errExhausted
		}
		return nil
	}}}, time.Hour)
	if err != nil || len(taken) != 5 {
		t.Errorf("%d exchanges, %v", len(taken), err)
	}
}

func TestLimitEndsIt(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := drive(ctx, []worker{{exchange: func() error { return nil }}}, time.Hour); err == nil {
		t.Error("no error after the end")
	}
}

func TestParseStat(t *testing.T) {
	const fields = "S 17 4242 4242 0 -1 4194560 100 0 0 0 250 75 900 800 20 0 8 0 12345 1 2 3"
	for _, name := range []string{"cardstile", "a b", "a) S 1 (b", "("} {
		got, err := parseStat([]byte("4242 (" + name + ") " + fields))
		if err != nil || got.parent != 17 || got.cpu != 3250*time.Millisecond {
			t.Errorf("%q: %+v, %v", name, got, err)
		}
	}
	for _, bad := range []string{"", "1 (x", "1 (x) S 1", "1 (x) S y 1 1 0 -1 0 0 0 0 0 1 1", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 1 -1", "1 (x) S 1 1 1 0 -1 0 0 0 0 0 x 1"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
}

func TestResidentBytes(t *testing.T) {
	if got, err := residentBytes("VmPeak:\t  9 kB\nVmRSS:\t   1234 kB\nRssAnon:\t 1 kB\n"); got != 1234<<10 || err != nil {
		t.Errorf("%d, %v", got, err)
	}
	for _, bad := range []string{"", "VmPeak:\t9 kB\n", "VmRSS:\tx kB\n"} {
		if got, err := residentBytes(bad); err == nil {
			t.Errorf("%q: %d", bad, got)
		}
	}
}

func TestIdleMarkdown(t *testing.T) {
	var b strings.Builder
	idleMarkdown(&b, []idleRow{{"a", 1000, 30 << 10, 40 << 10, idleGoal}, {"b", 1000, 31 << 10, 1, idleGoal}, {"c", 1000, 0, 10 << 10, 0}})
	for _, want := range []string{"| a | 1000 | **30.0** | ≤ 30, met | 40.0 |", "| b | 1000 | **31.0** | ≤ 30, not met |", "| c | 1000 | – |  | 10.0 |"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
}

func TestCPUTimeOfThisProcessGrows(t *testing.T) {
	self := []int{os.Getpid()}
	before, err := cpuTime(self)
	if err != nil {
		t.Fatal(err)
	}
	for n, after := 0, before; after < before+5*tick; n++ {
		if after, err = cpuTime(self); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cpuTime([]int{-1}); err == nil {
		t.Error("a process that is not there has used time")
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]int, 100)
	for i := range hundred {
		hundred[i] = i + 1
	}
	for _, c := range []struct {
		of   []int
		q    float64
		want int
	}{
		{hundred, .5, 50}, {hundred, .99, 99}, {hundred, .999, 100}, {hundred, 1, 100}, {hundred, .001, 1},
		{hundred[:1], .5, 1}, {hundred[:2], .5, 1}, {hundred[:3], .5, 2}, {nil, .5, 0},
	} {
		if got := percentile(c.of, c.q); got != c.want {
			t.Errorf("%v of %d: %d, want %d", c.q, len(c.of), got, c.want)
		}
	}
}

func TestSpread(t *testing.T) {
	given := []float64{5, 1, 4}
	if got := spreadOf(given); got != (spread{4, 1, 5}) {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(given, []float64{5, 1, 4}) {
		t.Error("the values were moved")
	}
	if got := spreadOf([]float64{2, 8, 4, 6}); got != (spread{5, 2, 8}) {
		t.Errorf("%+v", got)
	}
	if got := spreadOf(nil); got != (spread{}) {
		t.Errorf("%+v", got)
	}
}

func TestMetric(t *testing.T) {
	text := []byte("# HELP a x\n# TYPE a counter\na 3\nab 100\nb{x=\"1 {\"} 1.5e+06\nb{x=\"2\"} 1\nc NaNs\n")
	for name, want := range map[string]float64{"a": 3, "b": 1500001} {
		if got, err := metric(text, name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for _, name := range []string{"c", "d", "HELP"} {
		if got, err := metric(text, name); err == nil {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestReadHead(t *testing.T) {
	status, length, err := readHead(bufio.NewReader(strings.NewReader("HTTP/1.1 401 Unauthorized\r\nX: y\r\ncontent-LENGTH:  12 \r\n\r\nbody")))
	if status != 401 || length != 12 || err != nil {
		t.Errorf("%d, %d, %v", status, length, err)
	}
	for _, bad := range []string{
		"", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/2 200\r\nContent-Length: 1\r\n\r\n",
		"HTTP/1.1 abc OK\r\nContent-Length: 1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
	} {
		if status, length, err := readHead(bufio.NewReader(strings.NewReader(bad))); err == nil {
			t.Errorf("%q: %d, %d", bad, status, length)
		}
	}
}

// TestSignCookie is the vector of Exa's contract.
func TestSignCookie(t *testing.T) {
	got := signCookie("0x"+strings.Repeat("0", 64), "0x1234567890AbcdEF1234567890aBcdef12345678")
	if got != "0x1234567890AbcdEF1234567890aBcdef12345678.JNDaVahyvSYEAWyqsZ65od76768Cx3CgZ8QMIgAKmxQ%3D" {
		t.Error(got)
	}
}

func someRows() []row {
	return []row{
		{Operation: opForward, Server: "Cardstile", Calls: 1, Connections: 16, CPU: spreadOf([]float64{100, 300, 120}), cpu: []float64{100, 300, 120}, Includes: "everything", Syncs: &spread{Median: .125}},
		{Operation: opForward, Server: "ReverseProxy", Calls: 1, CPU: spreadOf([]float64{100, 150, 80}), cpu: []float64{100, 150, 80}, P999: 1500},
		{Operation: opProfile, Server: "Cardstile", Calls: 2, cpu: []float64{200, 300, 160}},
		{Operation: opReveal, Server: "Cardstile", Connections: 1, cpu: []float64{9000, 9000, 9000}},
		{Operation: opReveal, Server: "Cardstile", Connections: 16, cpu: []float64{900, 1000, 880}},
		{Operation: opRSA, Server: "crypto/rsa", cpu: []float64{700, 700, 720}},
	}
}

// TestRatios: a ratio is of one round, per issuer call where it says so, and without RSA where it says so.
func TestRatios(t *testing.T) {
	rows := someRows()
	for i := range rows {
		rows[i].cpu = append(rows[i].cpu, 0) // a round that is none to the processor's clock is in no ratio
	}
	got := map[string]spread{}
	for _, r := range ratios(rows) {
		got[r.Of+" / "+r.To] = r.Is
	}
	want := map[string]spread{
		"forward with all stages / ReverseProxy forward":                                    {1.5, 1, 2},
		"profile (2 issuer calls) / ReverseProxy forward (1 call)":                          {2, 2, 2},
		"the same, per issuer call / ReverseProxy forward":                                  {1, 1, 1}, // of the reveal, which is the last of this name
		"reveal without its RSA operation (2 issuer calls) / ReverseProxy forward (1 call)": {2, 2, 2},
		"RSA operation / whole reveal":                                                      {700. / 900, .7, 720. / 880},
	}
	if len(got) != len(want) {
		t.Errorf("%d ratios, want %d: %v", len(got), len(want), got)
	}
	for name, w := range want {
		if g := got[name]; math.Abs(g.Median-w.Median) > 1e-9 || math.Abs(g.Min-w.Min) > 1e-9 || math.Abs(g.Max-w.Max) > 1e-9 {
			t.Errorf("%s: %+v, want %+v", name, g, w)
		}
	}
}

func TestMarkdown(t *testing.T) {
	r := report{Date: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Options: "3 rounds of 1s", Machine: machine{Processor: "Abacus", Processors: 2}, Rows: someRows()}
	r.Ratios = ratios(r.Rows)
	r.Profiles = []profile{{Operation: "reveal", Samples: 10, Buckets: []share{{"store", .25}}, Functions: []share{{"main.main", .125}}}}
	var out bytes.Buffer
	if err := r.markdown(&out); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"2026-01-02 · Abacus · 2 processors",
		"| forward | Cardstile | 16 | 1 | **120** (100–300) | 0 | 0 % | – | – | – | – | – | 0.12 |",
		"| forward | ReverseProxy | 0 | 1 | **100** (80–150) | 0 | 0 % | – | – | 1.50 | – | – | – |",
		"- forward, Cardstile: everything",
		"| forward with all stages | ReverseProxy forward | **1.50** (1.00–2.00) | ≤ 1.00 |",
		"| RSA operation | whole reveal | **0.78** (0.70–0.82) |  |",
		"| store | 25.0 % |", "| `main.main` | 12.5 % |",
	} {
		if !strings.Contains(out.String(), line) {
			t.Errorf("no %q in\n%s", line, out.String())
		}
	}
}

const someTraces = `File: cardstile
Type: cpu
Duration: 1s, Total samples = 100ms (10.00%)
-----------+-------------------------------------------------------
      40ms   math/big.addMulVVW (inline)
             crypto/rsa.DecryptOAEP
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      30ms   runtime.memclrNoHeapPointers
             runtime.mallocgc
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      20ms   main.again
             main.again
             net/http.(*conn).serve
-----------+-------------------------------------------------------
      10ms   runtime.futex
`

func TestProfile(t *testing.T) {
	stacks, err := parseTraces([]byte(someTraces))
	if err != nil {
		t.Fatal(err)
	}
	p := summarize("reveal", stacks)
	if p.Samples != 25 {
		t.Errorf("%d samples", p.Samples)
	}
	wantBuckets := []share{{bucketRSA, .4}, {"allocation", .3}, {"net/http: server", .2}, {"scheduler and the rest of the runtime", .1}}
	if !slices.Equal(p.Buckets, wantBuckets) {
		t.Errorf("%v", p.Buckets)
	}
	// The outermost is left out, one of each chain is named, and who calls itself counts once.
	wantFunctions := []share{{"math/big.addMulVVW", .4}, {"runtime.mallocgc", .3}, {"main.again", .2}, {"runtime.futex", .1}}
	if !slices.Equal(p.Functions, wantFunctions) {
		t.Errorf("%v", p.Functions)
	}
	for _, bad := range []string{"", "nothing", "-----------+--\n  soon  main.main\n", "-----------+--\n  10ms\n"} {
		if got, err := parseTraces([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestBuckets(t *testing.T) {
	for name, frames := range map[string][]string{
		"garbage collection":                      {"runtime.scanobject", "runtime.gcBgMarkWorker.func2", "runtime.gcBgMarkWorker"},
		"allocation":                              {"runtime.nextFreeFast", "runtime.mallocgc", "encoding/json.Unmarshal"},
		"JSON":                                    {"encoding/json.Unmarshal", "runtime.mallocgc"},
		"audit: record, write, fdatasync":         {"internal/runtime/syscall/linux.Syscall6", "syscall.Fdatasync", "github.com/cardstile/cardstile/gateway/audit.(*Log).sync"},
		"sockets: read, write, accept, close":     {"syscall.write", "internal/poll.(*FD).Write", "crypto/tls.(*Conn).Write", "net/http.(*conn).serve"},
		"certificates: crypto/ecdsa, crypto/x509": {"crypto/internal/fips140/nistec.(*P256Point).Add", "crypto/ecdsa.VerifyASN1", "crypto/tls.(*Conn).serverHandshake"},
		"store":                                 {"github.com/cardstile/cardstile/policy/store.(*Memory).Redeem", "github.com/cardstile/cardstile/policy/credential.(*Tokens).Redeem"},
		"net/http: client to the issuer":        {"net/http.(*Transport).RoundTrip", "github.com/cardstile/cardstile/gateway.(*Issuer).do", "net/http.(*conn).serve"},
		"access tokens: JWT":                    {"crypto/ecdsa.VerifyASN1", "github.com/cardstile/cardstile/policy/credential.(*jwtIssuer).verify", "net/http.(*conn).serve"},
		"scheduler and the rest of the runtime": {"runtime.futex", "runtime.mcall"},
	} {
		if got := bucketOf(frames); got != name {
			t.Errorf("%v: %q, want %q", frames, got, name)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range [][]string{{"-round", "1ms"}, {"-rounds", "0"}, {"-connections", "0"}, {"-profile", "-1s"}, {"-only", "("}, {"-only", "none"}, {"-pairs", "19"}, {"more"}, {"-unknown"}} {
		if _, err := parseOptions(bad, io.Discard); err == nil {
			t.Errorf("%v: accepted", bad)
		}
	}
}

// TestMissing: what is not there is said before anything starts, with what to type.
func TestMissing(t *testing.T) {
	o, err := parseOptions([]string{"-binary", filepath.Join(t.TempDir(), "none"), "-dir", t.TempDir()}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := bench(t.Context(), o, io.Discard); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("no binary: %v", err)
	}
	if _, err := findNginx([]string{filepath.Join(t.TempDir(), "nginx")}); err == nil || !strings.Contains(err.Error(), "apt-get install") {
		t.Errorf("no nginx: %v", err)
	}
}

func TestNginxVersion(t *testing.T) {
	got := nginxVersion("nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.17 1 Jul 2025\nTLS SNI support enabled\nconfigure arguments: --prefix=/usr\n")
	if got != "nginx 1.22.1, OpenSSL 3.0.17 1 Jul 2025" {
		t.Error(got)
	}
}
