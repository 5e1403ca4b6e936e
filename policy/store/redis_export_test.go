package store

import (
	"bytes"
	"context"
	"time"
	"unsafe"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/policy"
)

// ShortenWindows makes a Redis store wait less than it does, for tests that cannot turn a server's clock.
func (r *Redis) ShortenWindows(replay, spentFor time.Duration) {
	r.replay, r.spentFor = replay.Milliseconds(), spentFor.Milliseconds()
}

// Scripts are the scripts' sources with the names that the code knows for them.
func Scripts() map[string]string {
	all := make(map[string]string)
	for _, s := range []script{
		mintScript, redeemScript, beginScript, finishScript, abandonScript, takeScript, raiseScript, holdScript, releaseScript, removeScript, probeScript,
	} {
		all[s.source] = s.sha
	}
	return all
}

// HoldConnection takes one connection of the pool of single-use operations until release is called.
func (r *Redis) HoldConnection(ctx context.Context) (release func(), err error) {
	conn := r.once.(*redis.Client).Conn()
	if err := conn.Ping(ctx).Err(); err != nil {
		return nil, err
	}
	return func() { conn.Close() }, nil
}

// TakeScript runs the script of Take and returns its four numbers: ok, retry after and now in µs, remaining.
func (r *Redis) TakeScript(ctx context.Context, d Digest, rate policy.Rate) ([]int64, error) {
	reply, err := takeScript.run(ctx, r.once, []string{r.key(familyLimit, "", &d)}, rate.Interval(), rate.Burst())
	if err != nil {
		return nil, err
	}
	n, _ := integers(reply)
	return n, nil
}

// LimitKey is the key of a limit.
func (r *Redis) LimitKey(d Digest) string { return r.key(familyLimit, "", &d) }

// Held is how many bytes a memory store holds for records and the tables over them, and how many records.
func (m *Memory) Held() (size, records int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, p := range s.slab.pages {
			size += cap(p.buf)
		}
		size += int(unsafe.Sizeof(page{}))*cap(s.slab.pages) + 4*cap(s.slab.spare) + 4*cap(s.index)
		records += s.count
		s.mu.Unlock()
	}
	return size, records
}

// Count is how often b stands in a memory store's pages.
func (m *Memory) Count(b []byte) (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		for _, p := range s.slab.pages {
			n += bytes.Count(p.buf, b)
		}
		s.mu.Unlock()
	}
	return n
}
