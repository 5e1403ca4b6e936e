package gateway_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
)

// sightings are the requests that an issuer saw, as "METHOD target body", in order.
type sightings struct {
	mu  sync.Mutex
	all []string
}

func (s *sightings) add(line string) { s.mu.Lock(); defer s.mu.Unlock(); s.all = append(s.all, line) }

// take returns what was seen since, once there is as much as is expected.
func (s *sightings) take(t *testing.T, expected int) []string {
	t.Helper()
	var seen []string
	eventually(t, fmt.Sprintf("%d requests at the issuer", expected), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		seen = slices.Clone(s.all)
		return len(seen) >= expected
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = s.all[len(seen):]
	return seen
}

// ours are the header fields that an issuer, or what stands before it, may get.
var ours = strings.Fields("host user-agent accept authorization content-length content-type traceparent x-request-id x-api-key api-key connection")

// note notes a request, with what is wrong about it.
func (s *sightings) note(method, target string, names []string, body string) {
	line := strings.TrimSpace(method + " " + target + " " + body)
	for _, name := range names {
		if !slices.Contains(ours, strings.ToLower(name)) {
			line += " with " + name
		}
	}
	s.add(line)
}

// recordRaw is an issuer that takes requests byte by byte, as RFC 9112 has them and no other way.
func (s *sightings) recordRaw(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for s.readRaw(r) {
					if _, err := io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"); err != nil {
						return
					}
				}
			}()
		}
	}()
	return l.Addr().String()
}

var (
	requestLine = regexp.MustCompile(`^([A-Z]+) (/[!-~]*) HTTP/1\.[01]$`)
	fieldLine   = regexp.MustCompile(`^([!#$%&'*+.^_` + "`" + `|~0-9A-Za-z-]+):[ \t]*([!-~][ -~]*)?$`)
)

// readRaw reads one request; false is the connection's end, or one that is malformed.
func (s *sightings) readRaw(r *bufio.Reader) bool {
	var names []string
	var method, target string
	length := 0
	for first := true; ; first = false {
		line, err := r.ReadString('\n')
		if err != nil {
			if line != "" {
				s.add(fmt.Sprintf("half a line: %q", line))
			}
			return false
		}
		text, ok := strings.CutSuffix(line, "\r\n")
		if ok && text == "" && !first {
			break
		}
		if first {
			parts := requestLine.FindStringSubmatch(text)
			if ok = ok && parts != nil; ok {
				method, target = parts[1], parts[2]
			}
		} else {
			parts := fieldLine.FindStringSubmatch(text)
			if ok = ok && parts != nil; ok {
				names = append(names, parts[1])
				if strings.EqualFold(parts[1], "Content-Length") {
					length, err = strconv.Atoi(parts[2])
					ok = err == nil && length >= 0
				}
			}
		}
		if !ok {
			s.add(fmt.Sprintf("malformed: %q", line))
			return false
		}
	}
	body := make([]byte, length)
	if _, err := io.ReadFull(r, body); err != nil {
		s.add("half a body of " + method + " " + target)
		return false
	}
	s.note(method, target, names, string(body))
	return true
}

// process starts a program, and ends it with the test.
func process(t *testing.T, out io.Writer, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		name = filepath.Join("/usr/sbin", name) // where Debian has servers, and not everybody's PATH
	}
	c := exec.Command(name, args...)
	var errs bytes.Buffer
	c.Stdout, c.Stderr = out, &errs
	if err := c.Start(); err != nil {
		t.Fatalf("%v (make setup installs it)", err)
	}
	t.Cleanup(func() {
		c.Process.Kill()
		c.Wait() //nolint:errcheck // killed
		if t.Failed() {
			t.Logf("%s: %s", name, errs.Bytes())
		}
	})
}

// listens waits until somebody does.
func listens(t *testing.T, address string) string {
	t.Helper()
	eventually(t, address+" listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return address
}

// issuers are servers of four makes, by name; each returns where it listens.
var hygieneIssuers = []struct {
	name  string
	start func(*testing.T, *sightings) string
}{
	{"go", func(t *testing.T, s *sightings) string { return s.recordRaw(t) }},
	{"node", func(t *testing.T, s *sightings) string {
		r, w := io.Pipe()
		process(t, w, "node", "testdata/hygiene/issuer.js")
		t.Cleanup(func() { w.Close() })
		port := make(chan int, 1)
		go func() {
			for d := json.NewDecoder(r); ; {
				var v struct {
					Port                            int
					Method, Target, Body, Malformed string
					Header                          []string
				}
				if d.Decode(&v) != nil {
					return
				}
				var names []string
				for i := 0; i < len(v.Header); i += 2 {
					names = append(names, v.Header[i])
				}
				switch {
				case v.Port != 0:
					port <- v.Port
				case v.Malformed != "":
					s.add("malformed: " + v.Malformed)
				default:
					s.note(v.Method, v.Target, names, v.Body)
				}
			}
		}()
		select {
		case p := <-port:
			return fmt.Sprintf("127.0.0.1:%d", p)
		case <-time.After(20 * time.Second):
			t.Fatal("node does not listen")
		}
		return ""
	}},
	{"nginx", func(t *testing.T, s *sightings) string {
		dir, at := t.TempDir(), closedPort().Host
		var temp string
		for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
			temp += fmt.Sprintf("%s_temp_path %s/%s; ", kind, dir, kind)
		}
		file := filepath.Join(dir, "nginx.conf")
		must(os.WriteFile(file, fmt.Appendf(nil, `daemon off; master_process off; pid %s/pid; error_log stderr;
events {}
http { access_log off; %s server { listen %s; location / { proxy_pass http://%s; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass_request_headers on; } } }
`, dir, temp, at, s.recordRaw(t)), 0o600))
		process(t, io.Discard, "nginx", "-p", dir, "-c", file)
		return listens(t, at)
	}},
	{"haproxy", func(t *testing.T, s *sightings) string {
		at, file := closedPort().Host, filepath.Join(t.TempDir(), "haproxy.cfg")
		must(os.WriteFile(file, fmt.Appendf(nil, `global
    maxconn 100
defaults
    mode http
    timeout connect 10s
    timeout client 60s
    timeout server 60s
frontend in
    bind %s
    default_backend out
backend out
    server recorder %s
`, at, s.recordRaw(t)), 0o600))
		process(t, io.Discard, "haproxy", "-db", "-f", file)
		return listens(t, at)
	}},
}

// hygieneHouse has PaymentsGate's calls forwarded to an issuer at an address.
func hygieneHouse(t *testing.T, at string) *house {
	return newHouse(t, options{routes: wide, issuer: func(c *gateway.IssuerConfig) {
		if c.Name == "payments" {
			c.URL, c.TLS = &url.URL{Scheme: "http", Host: at}, nil
		}
	}})
}

// onTheWire is a case of testdata/hygiene/corpus.txt.
type onTheWire struct {
	name, raw string
	statuses  []int
	stays     bool
	sees      []string
}

func readCorpus(t *testing.T) (all []onTheWire) {
	t.Helper()
	content, err := os.ReadFile("testdata/hygiene/corpus.txt")
	must(err)
	unescape := strings.NewReplacer(`\r`, "\r", `\n`, "\n", `\t`, "\t", `\x00`, "\x00", `\x0b`, "\x0b", `\\`, `\`)
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "== "):
			all = append(all, onTheWire{name: line[3:]})
		case strings.HasPrefix(line, "-- "):
			words := strings.Fields(line[3:])
			c := &all[len(all)-1]
			for _, w := range words[:len(words)-1] {
				status, err := strconv.Atoi(w)
				must(err)
				c.statuses = append(c.statuses, status)
			}
			switch end := words[len(words)-1]; end {
			case "stays", "closes":
				c.stays = end == "stays"
			default:
				t.Fatalf("%s: %q", c.name, end)
			}
		case strings.HasPrefix(line, "> "):
			all[len(all)-1].sees = append(all[len(all)-1].sees, line[2:])
		default:
			all[len(all)-1].raw += unescape.Replace(line)
		}
	}
	return all
}

var manyA = regexp.MustCompile(`\{a(\d+)\}`)

// TestHygiene: of bytes that servers read in several ways, each of four issuers sees exactly the requests that we meant, or none.
func TestHygiene(t *testing.T) {
	corpus := readCorpus(t)
	if len(corpus) < 50 {
		t.Fatalf("%d cases", len(corpus))
	}
	for _, is := range hygieneIssuers {
		t.Run(is.name, func(t *testing.T) {
			s := &sightings{}
			h := hygieneHouse(t, is.start(t, s))
			l := h.accountLogin(account)
			s.take(t, 0)
			for _, c := range corpus {
				h.onTheWire(t, s, l, c)
			}
			for _, c := range inFrames {
				h.inFrames(t, s, l, c)
			}
			if r := h.anybody().do(l.call("GET", "/wallet?last", "")); r.status != 200 {
				t.Errorf("last: %d", r.status)
			}
			if seen := s.take(t, 1); len(seen) != 1 || seen[0] != "GET /wallet?last" {
				t.Errorf("last: the issuer saw %q", seen)
			}
		})
	}
}

// dial makes a connection to the public listener.
func (h *house) dial(protocol string) *tls.Conn {
	h.t.Helper()
	c, err := tls.Dial("tcp", h.gateway.Addr("public").String(), &tls.Config{RootCAs: shared().servers.pool(), ServerName: "localhost", NextProtos: []string{protocol}})
	must(err)
	must(c.SetDeadline(time.Now().Add(20 * time.Second)))
	h.t.Cleanup(func() { c.Close() })
	return c
}

func (h *house) onTheWire(t *testing.T, s *sightings, l login, c onTheWire) {
	t.Helper()
	conn := h.dial("http/1.1")
	defer conn.Close()
	fill := strings.NewReplacer("{host}", "localhost", "{auth}", "Bearer "+l.Access)
	raw := manyA.ReplaceAllStringFunc(fill.Replace(c.raw), func(m string) string {
		n, err := strconv.Atoi(manyA.FindStringSubmatch(m)[1])
		must(err)
		return strings.Repeat("a", n)
	})
	conn.Write([]byte(raw)) //nolint:errcheck // the other side may have had enough
	var statuses []int
	r := bufio.NewReader(conn)
	answer := func() bool {
		response, err := http.ReadResponse(r, nil)
		if err != nil {
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("%s: the connection stays open", c.name)
			}
			return false
		}
		io.Copy(io.Discard, response.Body) //nolint:errcheck // the end shows
		statuses = append(statuses, response.StatusCode)
		return true
	}
	for len(statuses) < len(c.statuses) && answer() {
	}
	want, sees := slices.Clone(c.statuses), slices.Clone(c.sees)
	if c.stays {
		fmt.Fprintf(conn, "GET /wallet?probe HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nConnection: close\r\n\r\n", l.Access)
		want, sees = append(want, 200), append(sees, "GET /wallet?probe")
	}
	for answer() {
	}
	if !slices.Equal(statuses, want) {
		t.Errorf("%s: answered %d, want %d", c.name, statuses, want)
	}
	if seen := s.take(t, len(sees)); !slices.Equal(seen, sees) {
		t.Errorf("%s: the issuer saw %q, want %q", c.name, seen, sees)
	}
}

// inFrame is a request in HTTP/2: its fields as they are, and its body. Status 0 is a stream or connection that ends without an answer.
type inFrame struct {
	name   string
	fields []string
	body   string
	status int
	sees   string
}

var (
	framed  = []string{":method", "GET", ":scheme", "https", ":authority", "localhost", ":path", "/wallet?frame", "authorization", "{auth}"}
	withPay = []string{":method", "POST", ":scheme", "https", ":authority", "localhost", ":path", "/deals/payin?frame", "authorization", "{auth}", "content-type", "application/json"}
)

func plus(fields []string, more ...string) []string { return append(slices.Clone(fields), more...) }

// instead replaces the value of a field, or takes it out.
func instead(fields []string, name, value string) []string {
	out := slices.Clone(fields)
	i := slices.Index(out, name)
	if value == "" {
		return slices.Delete(out, i, i+2)
	}
	out[i+1] = value
	return out
}

var inFrames = []inFrame{
	{"plain", framed, "", 200, "GET /wallet?frame"},
	{"with a body", withPay, `{"a":1}`, 200, `POST /deals/payin?frame {"a":1}`},
	{"with its length", plus(withPay, "content-length", "7"), `{"a":1}`, 200, `POST /deals/payin?frame {"a":1}`},
	{"a length that is short", plus(withPay, "content-length", "6"), `{"a":1}`, 0, ""},
	{"a length that is long", plus(withPay, "content-length", "8"), `{"a":1}`, 0, ""},
	{"two lengths", plus(withPay, "content-length", "7", "content-length", "8"), `{"a":1}`, 400, ""},
	{"a length with a sign", plus(withPay, "content-length", "+7"), `{"a":1}`, 0, ""},
	{"transfer-encoding", plus(withPay, "transfer-encoding", "chunked"), "0\r\n\r\nGET /wallet?smuggled HTTP/1.1\r\n\r\n", 400, ""},
	{"transfer-encoding in upper case", plus(framed, "Transfer-Encoding", "chunked"), "", 0, ""},
	{"transfer_encoding", plus(withPay, "transfer_encoding", "chunked"), `{"a":1}`, 200, `POST /deals/payin?frame {"a":1}`},
	{"connection", plus(framed, "connection", "close"), "", 400, ""},
	{"proxy-connection", plus(framed, "proxy-connection", "close"), "", 400, ""},
	{"upgrade", plus(framed, "upgrade", "h2c"), "", 400, ""},
	{"keep-alive", plus(framed, "keep-alive", "1"), "", 400, ""},
	{"te", plus(framed, "te", "chunked"), "", 400, ""},
	{"te trailers", plus(framed, "te", "trailers"), "", 200, "GET /wallet?frame"},
	{"CR LF in a value", plus(framed, "x-a", "b\r\nTransfer-Encoding: chunked"), "", 0, ""},
	{"LF in a value", plus(framed, "x-a", "b\nc: d"), "", 0, ""},
	{"NUL in a value", plus(framed, "x-a", "b\x00"), "", 0, ""},
	{"CR LF in a name", plus(framed, "x-a: b\r\nx-c", "d"), "", 0, ""},
	{"colon in a name", plus(framed, "x-a:b", "d"), "", 0, ""},
	{"space in a name", plus(framed, "x-a ", "d"), "", 0, ""},
	{"empty name", plus(framed, "", "d"), "", 0, ""},
	{"upper case", plus(framed, "X-A", "b"), "", 0, ""},
	{"a pseudo-header behind others", plus(framed, ":path", "/wallet?smuggled"), "", 0, ""},
	{"an unknown pseudo-header", append([]string{":a", "b"}, framed...), "", 0, ""},
	{"a response's pseudo-header", append([]string{":status", "200"}, framed...), "", 0, ""},
	{"two paths", append([]string{":path", "/wallet?smuggled"}, framed...), "", 0, ""},
	{"two methods", append([]string{":method", "POST"}, framed...), "", 0, ""},
	{"no path", instead(framed, ":path", ""), "", 0, ""},
	{"no method", instead(framed, ":method", ""), "", 0, ""},
	{"no scheme", instead(framed, ":scheme", ""), "", 0, ""},
	{"CR LF in the path", instead(framed, ":path", "/wallet?frame HTTP/1.1\r\nHost: a\r\n\r\nGET /wallet?smuggled"), "", 0, ""},
	{"a request line as the query", instead(framed, ":path", "/wallet?frame HTTP/1.1"), "", 400, ""},
	{"a request line as the path", instead(framed, ":path", "/deals/x HTTP/1.1"), "", 404, ""},
	{"bytes beyond ASCII in the query", instead(framed, ":path", "/wallet?\xff\xa0"), "", 400, ""},
	{"DEL in the query", instead(framed, ":path", "/wallet?\x7f"), "", 0, ""},
	{"a fragment", instead(framed, ":path", "/wallet?a#b"), "", 400, ""},
	{"a URL as the path", instead(framed, ":path", "https://another/wallet?frame"), "", 400, ""},
	{"a request line as the method", instead(framed, ":method", "GET /wallet?smuggled HTTP/1.1\r\nX-A:"), "", 0, ""},
	{"a method with a space", instead(framed, ":method", "GET /"), "", 405, ""},
	{"an authority with a path", instead(framed, ":authority", "localhost/x"), "", 400, ""},
}

// appendField adds a field to a header block: a literal without indexing, its name and value as they are (RFC 7541 section 6.2.2).
func appendField(b []byte, name, value string) []byte {
	text := func(b []byte, s string) []byte {
		n := len(s)
		if n < 127 {
			b = append(b, byte(n))
		} else {
			b = append(b, 127)
			for n -= 127; n >= 128; n >>= 7 {
				b = append(b, byte(n)|128)
			}
			b = append(b, byte(n))
		}
		return append(b, s...)
	}
	return text(text(append(b, 0), name), value)
}

// Types and flags of frames (RFC 9113 section 6).
const (
	frameData, frameHeaders, frameReset, frameSettings, framePing, frameGoAway, frameContinuation = 0, 1, 3, 4, 6, 7, 9

	flagEndStream, flagAck, flagEndHeaders = 1, 1, 4

	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
)

func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	b = append(b, byte(len(payload)>>16), byte(len(payload)>>8), byte(len(payload)), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// readFrame reads a frame.
func readFrame(r io.Reader) (kind, flags byte, stream uint32, payload []byte, err error) {
	var head [9]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, 0, 0, nil, err
	}
	payload = make([]byte, int(head[0])<<16|int(head[1])<<8|int(head[2]))
	_, err = io.ReadFull(r, payload)
	return head[3], head[4], binary.BigEndian.Uint32(head[5:]) & (1<<31 - 1), payload, err
}

// indexed are the statuses that have a place in the static table (RFC 7541 appendix A).
var indexed = map[byte]int{0x88: 200, 0x89: 204, 0x8b: 304, 0x8c: 400, 0x8d: 404, 0x8e: 500}

func (h *house) inFrames(t *testing.T, s *sightings, l login, c inFrame) {
	t.Helper()
	conn := h.dial("h2")
	defer conn.Close()
	var block []byte
	for i := 0; i < len(c.fields); i += 2 {
		block = appendField(block, c.fields[i], strings.ReplaceAll(c.fields[i+1], "{auth}", "Bearer "+l.Access))
	}
	out := appendFrame([]byte(preface), frameSettings, 0, 0, nil)
	if c.body == "" {
		out = appendFrame(out, frameHeaders, flagEndHeaders|flagEndStream, 1, block)
	} else {
		out = appendFrame(out, frameHeaders, flagEndHeaders, 1, block)
		out = appendFrame(out, frameData, flagEndStream, 1, []byte(c.body))
	}
	if _, err := conn.Write(out); err != nil {
		t.Errorf("frames, %s: %v", c.name, err)
	}
	status := -1
	for r := bufio.NewReader(conn); status < 0; {
		kind, _, stream, payload, err := readFrame(r)
		switch {
		case err != nil, kind == frameGoAway, kind == frameReset && stream == 1:
			var timeout net.Error
			if errors.As(err, &timeout) && timeout.Timeout() {
				t.Errorf("frames, %s: no answer", c.name)
			}
			status = 0
		case kind == frameHeaders:
			if status = indexed[payload[0]]; status == 0 {
				status = 405 // none of those that are expected here has a place of its own but this
			}
		}
	}
	if status != c.status {
		t.Errorf("frames, %s: answered %d, want %d", c.name, status, c.status)
	}
	var sees []string
	if c.sees != "" {
		sees = []string{c.sees}
	}
	if seen := s.take(t, len(sees)); !slices.Equal(seen, sees) {
		t.Errorf("frames, %s: the issuer saw %q, want %q", c.name, seen, sees)
	}
}
