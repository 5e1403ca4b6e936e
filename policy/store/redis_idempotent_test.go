package store_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// What lies in Redis of a call: keys of one hash slot with an end, and the answer goes when ttl is over.
func TestRedisKeepsNoAnswerLongerThanAsked(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	keys := func(want int) {
		t.Helper()
		dump := s.Dump()
		if len(dump) != want {
			t.Errorf("%d keys, want %d: %q", len(dump), want, dump)
		}
		tags := make(map[string]bool)
		for key := range dump {
			name := strings.TrimPrefix(key, "0/")
			if !strings.HasPrefix(name, "cardstile:idempotent:call:{") {
				t.Errorf("key %q", name)
			}
			tag, _, _ := strings.Cut(name, "}")
			tags[tag] = true
			if ttl := s.Do("PTTL", name).(int64); ttl <= 0 {
				t.Errorf("key %q has no end: %d", name, ttl)
			}
		}
		if len(tags) > 1 {
			t.Errorf("one call's keys do not share a hash tag: %v", tags)
		}
	}
	c := newCall(r)
	c.lease, c.ttl, c.tombstone = 200*time.Millisecond, 600*time.Millisecond, time.Hour
	c.wantOwner(t, "begin", attempt(1))
	keys(1)
	time.Sleep(202 * time.Millisecond)
	c.wantTakeOver(t, "take over", attempt(2))
	keys(1)
	must(t, c.abandon(t.Context(), attempt(2)))
	keys(1)
	c.wantTakeOver(t, "take over", attempt(3))
	must(t, c.finish(t.Context(), attempt(3), "canary"))
	time.Sleep(602 * time.Millisecond)
	keys(1)
	for key, value := range s.Dump() {
		if strings.Contains(value, "canary") {
			t.Errorf("key %q still has the answer", key)
		}
	}
	c.wantRefused(t, "a tombstone", attempt(4), store.ErrTombstone)
	s.Do("FLUSHALL")
	c = newCall(r)
	c.wantOwner(t, "begin", attempt(1))
	must(t, c.finish(t.Context(), attempt(1), "v"))
	keys(2)
	s.Do("FLUSHALL")
	c.wantOwner(t, "begin", attempt(1))
	must(t, c.abandon(t.Context(), attempt(1)))
	keys(0)
}

// An answer that somebody has deleted is gone, and the call does not run again for it.
func TestRedisAnswerIsDeleted(t *testing.T) {
	s := testredis.Start(t)
	c := newCall(newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}}))
	c.wantOwner(t, "begin", attempt(1))
	must(t, c.finish(t.Context(), attempt(1), "v"))
	for key := range s.Dump() {
		if strings.HasSuffix(key, ":answer") {
			s.Do("DEL", strings.TrimPrefix(key, "0/"))
		}
	}
	c.wantRefused(t, "begin", attempt(2), store.ErrTombstone)
}

// What a failover leaves of calls is answered, and what it has lost may run again: they are not fenced [9].
func TestCallsAreNotFenced(t *testing.T) {
	after := func(r *store.Redis) {
		for r.Ready(t.Context()) != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
	for name, args := range map[string][]string{
		"snapshot":         {"--save", "3600 1"},
		"append-only file": {"--appendonly", "yes", "--appendfsync", "always"},
	} {
		t.Run("restart with "+name, func(t *testing.T) {
			s := testredis.Start(t, args...)
			r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
			kept, inFlight := newCall(r), newCall(r)
			kept.wantOwner(t, "begin", attempt(1))
			must(t, kept.finish(t.Context(), attempt(1), "v"))
			inFlight.wantOwner(t, "begin", attempt(1))
			s.Restart()
			after(r)
			kept.wantKept(t, "the same body", attempt(2), "v")
			kept.other().wantRefused(t, "another body", attempt(2), store.ErrOtherBody)
			inFlight.wantRefused(t, "in flight", attempt(2), store.ErrInFlight)
			must(t, inFlight.finish(t.Context(), attempt(1), "w"))
			inFlight.wantKept(t, "finished after it", attempt(2), "w")
		})
	}
	t.Run("crash with nothing kept", func(t *testing.T) {
		s := testredis.Start(t)
		c := newCall(newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}}))
		c.wantOwner(t, "begin", attempt(1))
		s.Kill()
		s.Restart()
		after(c.Store.(*store.Redis))
		c.wantOwner(t, "again, and nobody can tell", attempt(2))
		wantError(t, "the first's finish", c.finish(t.Context(), attempt(1), "v"), store.ErrLost)
	})
	t.Run("promoted replica", func(t *testing.T) {
		primary, replica := testredis.Start(t), testredis.Start(t)
		r := newRedis(t, store.RedisConfig{Addresses: []string{primary.Addr}})
		follow(replica, primary)
		kept, taken := newCall(r), newCall(r)
		kept.wantOwner(t, "begin", attempt(1))
		must(t, kept.finish(t.Context(), attempt(1), "v"))
		taken.lease = time.Millisecond
		taken.wantOwner(t, "begin", attempt(1))
		time.Sleep(3 * time.Millisecond)
		taken.lease = time.Hour
		taken.wantTakeOver(t, "take over", attempt(2))
		caughtUp(replica, primary)

		other := newRedis(t, store.RedisConfig{Addresses: []string{replica.Addr}})
		kept.Store, taken.Store = other, other
		fresh := newCall(other)
		_, err := fresh.begin(t.Context(), attempt(1))
		wantReason(t, "begin on a replica", err, store.ReasonReadOnly)
		wantReason(t, "finish on a replica", taken.finish(t.Context(), attempt(2), "w"), store.ReasonReadOnly)
		wantReason(t, "abandon on a replica", taken.abandon(t.Context(), attempt(2)), store.ReasonReadOnly)
		replica.Do("REPLICAOF", "NO", "ONE")
		kept.wantKept(t, "kept", attempt(2), "v")
		taken.wantRefused(t, "in flight", attempt(3), store.ErrInFlight)
		must(t, taken.finish(t.Context(), attempt(2), "w"))
		fresh.wantOwner(t, "a new one", attempt(1))
	})
}

// A server without memory begins nothing; what has begun is finished or abandoned all the same.
func TestRedisOutOfMemoryEndsCalls(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	finished, abandoned, released := newCall(r), newCall(r), newCall(r)
	finished.wantOwner(t, "begin", attempt(1))
	abandoned.wantOwner(t, "begin", attempt(1))
	released.lease = time.Millisecond
	released.wantOwner(t, "begin", attempt(1))
	time.Sleep(3 * time.Millisecond)
	released.lease = time.Hour
	released.wantTakeOver(t, "take over", attempt(2))
	s.Do("CONFIG", "SET", "maxmemory", "1")
	_, err := newCall(r).begin(t.Context(), attempt(1))
	wantReason(t, "begin", err, store.ReasonFull)
	wantError(t, "begin", err, store.ErrFull)
	finished.wantRefused(t, "one that is there", attempt(2), store.ErrFull)
	must(t, finished.finish(t.Context(), attempt(1), "v"))
	must(t, abandoned.abandon(t.Context(), attempt(1)))
	must(t, released.abandon(t.Context(), attempt(2)))
	s.Do("CONFIG", "SET", "maxmemory", "0")
	finished.wantKept(t, "finished", attempt(2), "v")
	abandoned.other().wantOwner(t, "abandoned", attempt(2))
	released.wantTakeOver(t, "released", attempt(3))
}

// A server that hangs: the caller may be the owner without knowing it, and learns it by asking again.
func TestRedisTimeoutOfABegin(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Timeout: 50 * time.Millisecond, DialTimeout: 50 * time.Millisecond})
	must(t, r.Ready(t.Context()))
	c := newCall(r)
	s.Pause()
	_, err := c.begin(t.Context(), attempt(1))
	wantReason(t, "paused", err, store.ReasonTimeout)
	wantReason(t, "paused", c.finish(t.Context(), attempt(1), "v"), store.ReasonTimeout)
	wantReason(t, "paused", c.abandon(t.Context(), attempt(1)), store.ReasonTimeout)
	s.Resume()
	for r.Ready(t.Context()) != nil {
		time.Sleep(10 * time.Millisecond)
	}
	c.wantOwner(t, "the same attempt again", attempt(1))
	c.wantRefused(t, "another one", attempt(2), store.ErrInFlight)
}

// cutter stands before a server and, each time it is armed, breaks the connection instead of passing on the next reply:
// the command was carried out, and nobody learns it.
type cutter struct {
	addr  string
	armed atomic.Int64
}

func newCutter(t *testing.T, server string) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	c := &cutter{addr: l.Addr().String()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			backend, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			wg.Go(func() { io.Copy(backend, client); backend.Close() })
			wg.Go(func() { io.Copy(cutting{client, c}, backend); client.Close(); backend.Close() })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() }) // the store, made later, has closed its connections by then
	return c
}

type cutting struct {
	io.Writer
	c *cutter
}

func (w cutting) Write(b []byte) (int, error) {
	for n := w.c.armed.Load(); n > 0; n = w.c.armed.Load() {
		if w.c.armed.CompareAndSwap(n, n-1) {
			return 0, io.ErrClosedPipe
		}
	}
	return w.Writer.Write(b)
}

// A connection that breaks before the reply: Redis is asked again, and answers the attempt as it did before.
func TestLostReplyOfACall(t *testing.T) {
	s := testredis.Start(t)
	proxy := newCutter(t, s.Addr)
	r := newRedis(t, store.RedisConfig{Addresses: []string{proxy.addr}})
	warm := newCall(r) // the connection is there, and the scripts are
	warm.wantOwner(t, "begin", attempt(1))
	must(t, warm.abandon(t.Context(), attempt(1)))
	must(t, warm.abandon(t.Context(), attempt(1)))
	wantError(t, "finish", warm.finish(t.Context(), attempt(1), ""), store.ErrLost)
	lose := func() { proxy.armed.Store(1) }
	lost := func() {
		t.Helper()
		if proxy.armed.Load() != 0 {
			t.Error("no reply was lost: this test finds nothing")
		}
	}

	c := newCall(r)
	lose()
	c.wantOwner(t, "begin", attempt(1))
	lost()
	c.wantRefused(t, "another", attempt(2), store.ErrInFlight)
	lose()
	must(t, c.finish(t.Context(), attempt(1), "v"))
	lost()
	c.wantKept(t, "finished", attempt(2), "v")
	lose()
	c.wantKept(t, "replayed", attempt(3), "v")
	lost()

	c = newCall(r)
	c.wantOwner(t, "begin", attempt(1))
	lose()
	must(t, c.abandon(t.Context(), attempt(1)))
	lost()

	c.lease = time.Millisecond
	c.wantOwner(t, "begin", attempt(1))
	time.Sleep(3 * time.Millisecond)
	c.lease = time.Hour
	lose()
	c.wantTakeOver(t, "take over", attempt(2))
	lost()
	lose()
	must(t, c.abandon(t.Context(), attempt(2)))
	lost()
	c.wantTakeOver(t, "abandoned", attempt(3))
}

// A record that something else has written under our key makes nobody the owner, and is not touched.
func TestRedisForeignRecordOfACall(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	rapid.Check(t, func(t *rapid.T) {
		c := newCall(r)
		_, err := c.begin(t.Context(), attempt(1))
		if err != nil {
			t.Fatal(err)
		}
		key := ""
		for k := range s.Dump() {
			key = strings.TrimPrefix(k, "0/")
		}
		record := s.Do("GET", key).(string)
		foreign := rapid.OneOf(
			rapid.String(),
			rapid.Map(rapid.IntRange(0, len(record)-1), func(n int) string { return record[:n] }),
			rapid.Map(rapid.String(), func(more string) string { return record + "x" + more }),
			rapid.Map(rapid.IntRange(49, len(record)-1), func(n int) string { return record[:n] + "x" + record[n+1:] }), // its times
			rapid.Map(rapid.ByteRange('a', 'z'), func(state byte) string { return string(state) + record[1:] }),
		).Draw(t, "record")
		s.Do("SET", key, foreign, "PX", "3600000")
		begun, err := c.begin(t.Context(), attempt(1))
		if begun.Owner || begun.Value != nil {
			t.Fatalf("begin over %q: %+v", foreign, begun)
		}
		for what, err := range map[string]error{
			"begin": err, "finish": c.finish(t.Context(), attempt(1), "v"), "abandon": c.abandon(t.Context(), attempt(1)),
		} {
			u, ok := errors.AsType[*store.Unavailable](err)
			if !ok || u.Reason != store.ReasonReply {
				t.Fatalf("%s over %q: %v", what, foreign, err)
			}
		}
		if left := s.Do("GET", key); left != foreign {
			t.Fatalf("%q has become %q", foreign, left)
		}
		s.Do("DEL", key)
	})
	// One whose time is over, in the millisecond in which its key is still there, is as good as none.
	over := newCall(r)
	over.wantOwner(t, "begin", attempt(1))
	for key := range s.Dump() {
		key = strings.TrimPrefix(key, "0/")
		s.Do("SET", key, s.Do("GET", key).(string)[:49]+strings.Repeat("0", 45), "KEEPTTL")
	}
	wantError(t, "finish", over.finish(t.Context(), attempt(1), "v"), store.ErrLost)
	must(t, over.abandon(t.Context(), attempt(2)))
	over.other().wantOwner(t, "begin", attempt(2))
	s.Do("FLUSHALL")

	c := newCall(r)
	c.wantOwner(t, "begin", attempt(1))
	for key := range s.Dump() {
		s.Do("DEL", strings.TrimPrefix(key, "0/"))
		s.Do("RPUSH", strings.TrimPrefix(key, "0/"), "x")
	}
	_, err := c.begin(t.Context(), attempt(1))
	wantReason(t, "begin over a list", err, store.ReasonReply)
	wantReason(t, "finish over a list", c.finish(t.Context(), attempt(1), "v"), store.ReasonReply)
	wantReason(t, "abandon over a list", c.abandon(t.Context(), attempt(1)), store.ReasonReply)
}
