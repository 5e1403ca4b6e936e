package gateway_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"runtime"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway"
)

// bounded runs an attack, and finds that the process never held much memory for it while it ran, and that somebody else's call is
// answered. What must not be is memory that grows with what is sent.
func (h *house) bounded(t *testing.T, name string, l login, attack func()) {
	t.Helper()
	c := h.anybody()
	h.expect("before", c, l.wallet(), called())
	runtime.GC()
	before := held()
	peak, stop := watchMemory()
	attack()
	stop()
	t.Logf("%s: %.1f MiB before, %.1f MiB more at most", name, float64(before)/(1<<20), float64(peak.Load()-int64(before))/(1<<20))
	if peak.Load() > int64(before)+floodBytes {
		t.Errorf("%s: it took %d MiB", name, (peak.Load()-int64(before))>>20)
	}
	for _, somebody := range []*caller{h.anybody(), c} { // on a new connection, and an open one
		if r := somebody.do(l.wallet()); r.status != 200 {
			t.Errorf("%s: somebody else is answered %d %s", name, r.status, r.body)
		}
	}
}

// floodBytes is what an attack may make the process hold, what the attacker itself holds and garbage included.
const floodBytes = 48 << 20

// held is what objects and stacks take, those included that the collector has not come to.
func held() (bytes uint64) {
	samples := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	metrics.Read(samples)
	for _, s := range samples {
		bytes += s.Value.Uint64()
	}
	return bytes
}

// watchMemory looks at what is held again and again, until it is stopped, and keeps the most.
func watchMemory() (peak *atomic.Int64, stop func()) {
	peak = &atomic.Int64{}
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			peak.Store(max(peak.Load(), int64(held())))
			select {
			case <-tick.C:
			case <-stopped:
				return
			}
		}
	}()
	return peak, func() { close(stopped); <-done }
}

// frames opens a connection that speaks HTTP/2, and has said so. What comes is read and thrown away, if read; done is told of its end.
func (h *house) frames(read bool) (conn net.Conn, done chan error) {
	c := h.dial("h2")
	_, err := c.Write(appendFrame([]byte(preface), frameSettings, 0, 0, nil))
	must(err)
	done = make(chan error, 1)
	if read {
		go func() {
			_, err := io.Copy(io.Discard, c)
			done <- err
		}()
	}
	return c, done
}

// TestSlowCallers: who sends a head, or a body, a little at a time is cut off, and nobody else waits for him.
func TestSlowCallers(t *testing.T) {
	const callers = 150
	h := newHouse(t, options{routes: wide, config: func(_ *house, c *gateway.Config) { c.Limits.Read = 3 * time.Second }})
	l := h.accountLogin(account)
	var conns []net.Conn
	h.bounded(t, "slow", l, func() {
		for i := range callers {
			c := h.dial("http/1.1")
			head := "GET /wallet HTTP/1.1\r\nHost: localhost\r\nX-A: "
			if i%2 == 1 {
				head = "POST /deals/payin HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 60000\r\nAuthorization: Bearer " + l.Access + "\r\n\r\n{"
			}
			_, err := io.WriteString(c, head)
			must(err)
			conns = append(conns, c)
		}
		// In HTTP/2: bodies of which nothing comes.
		c := h.dial("h2")
		out := appendFrame([]byte(preface), frameSettings, 0, 0, nil)
		for stream := range uint32(90) {
			out = appendFrame(out, frameHeaders, flagEndHeaders, 2*stream+1, blockOf(withPay, l))
		}
		_, err := c.Write(out)
		must(err)
		conns = append(conns, c)
		streamsEnd(t, c, 90)
	})
	for i, c := range conns[:callers] {
		if _, err := io.Copy(io.Discard, c); isTimeout(err) {
			t.Fatalf("connection %d stays", i)
		}
	}
	if h.payments.Total() != 3 { // those of bounded
		t.Errorf("the issuer saw %d requests", h.payments.Total())
	}
}

// streamsEnd waits until so many streams have been answered or reset, or their connection has ended.
func streamsEnd(t *testing.T, conn net.Conn, n int) {
	t.Helper()
	for ended := map[uint32]bool{}; len(ended) < n; {
		kind, _, stream, _, err := readFrame(conn)
		if isTimeout(err) {
			t.Errorf("of %d streams %d end", n, len(ended))
		}
		if err != nil || kind == frameGoAway {
			return // all at once
		}
		if kind == frameHeaders || kind == frameReset {
			ended[stream] = true
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func blockOf(fields []string, l login) (block []byte) {
	for i := 0; i < len(fields); i += 2 {
		block = appendField(block, fields[i], strings.ReplaceAll(fields[i+1], "{auth}", "Bearer "+l.Access))
	}
	return block
}

// TestRapidReset: requests that are taken back at once (CVE-2023-44487), of those that reach an issuer and of those that reach nobody.
func TestRapidReset(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	l := h.accountLogin(account)
	for name, fields := range map[string][]string{"forwarded": framed, "nobody's": instead(framed, ":path", "/nobody")} {
		goroutines := runtime.NumGoroutine()
		h.bounded(t, name, l, func() {
			block := blockOf(fields, l)
			conn, _ := h.frames(true)
			defer conn.Close()
			for i := range uint32(10_000) {
				out := appendFrame(nil, frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, block)
				out = appendFrame(out, frameReset, 0, 2*i+1, []byte{0, 0, 0, 8})
				if _, err := conn.Write(out); err != nil {
					return // it had enough
				}
			}
		})
		eventually(t, name+": what was begun ends", func() bool {
			return h.metric("cardstile_in_flight", "limit", "global") == 0 && runtime.NumGoroutine() <= goroutines+40
		})
	}
	before := len(h.records())
	h.bounded(t, "nothing", l, func() {})
	if got := len(h.records()) - before; got != 3 {
		t.Errorf("%d records of three calls", got)
	}
}

// TestContinuationFlood: a header block without an end (CVE-2023-45288) ends its connection, however it is cut; one that is small and
// means much (a field of the dynamic table, over and over) is not expanded.
func TestContinuationFlood(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	l := h.accountLogin(account)
	filler := appendField(nil, "x-a", strings.Repeat("a", 15_000))
	for name, part := range map[string][]byte{"fields": filler, "half a field": bytes.Repeat([]byte{0xff}, 15_000), "empty": nil} {
		h.bounded(t, name, l, func() {
			var all sync.WaitGroup
			for range 4 {
				conn, done := h.frames(true)
				all.Go(func() {
					defer conn.Close()
					// An empty frame takes nothing: the bound is on what is kept.
					out := appendFrame(nil, frameHeaders, flagEndStream, 1, blockOf(framed, l))
					for range 100 {
						out = appendFrame(out, frameContinuation, 0, 1, part)
					}
					for range 100 { // 150 MB
						if _, err := conn.Write(out); err != nil {
							<-done
							return
						}
						out = out[:0]
						for range 100 {
							out = appendFrame(out, frameContinuation, 0, 1, part)
						}
					}
					if part != nil {
						t.Errorf("%s: all of it was taken", name)
					}
				})
			}
			all.Wait()
		})
	}
	h.bounded(t, "bomb", l, func() {
		conn, _ := h.frames(false)
		defer conn.Close()
		bomb := append([]byte{0x40}, appendField(nil, "x-a", strings.Repeat("a", 3500))[1:]...)
		bomb = append(bomb, bytes.Repeat([]byte{0xbe}, 12_000)...) // 42 MB, if it were expanded (CVE-2016-6581)
		const streams = 20
		for i := range uint32(streams) {
			if _, err := conn.Write(appendFrame(nil, frameHeaders, flagEndHeaders|flagEndStream, 2*i+1, append(blockOf(framed, l), bomb...))); err != nil {
				return
			}
		}
		streamsEnd(t, conn, streams)
	})
}

// TestControlFloods: frames that each want an answer, from somebody who reads none (CVE-2019-9512, CVE-2019-9515), are not kept without end.
func TestControlFloods(t *testing.T) {
	h := newHouse(t, options{routes: wide})
	l := h.accountLogin(account)
	for name, frame := range map[string][]byte{
		"PING":     appendFrame(nil, framePing, 0, 0, make([]byte, 8)),
		"SETTINGS": appendFrame(nil, frameSettings, 0, 0, []byte{0, 3, 0, 0, 0, 100}), // net/http answers several at once
	} {
		h.bounded(t, name, l, func() {
			conn, _ := h.frames(false)
			defer conn.Close()
			many := bytes.Repeat(frame, 1000)
			for range 1000 {
				if _, err := conn.Write(many); err != nil {
					if isTimeout(err) {
						t.Errorf("%s: the connection hangs", name)
					}
					return
				}
			}
			if name == "PING" {
				t.Error("a million were taken")
			}
		})
	}
}
