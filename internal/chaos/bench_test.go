package chaos

import (
	"context"
	"crypto/rand"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// What the fence costs: every mint and every redemption of a gateway runs it. One op is a mint and its redemption, 64 at a
// time, on one server, the ways taking turns. Beside the time of a pair, which the network, this process and the machine's
// other work are most of, stand the server's own microseconds for it (INFO commandstats), and its processor time.
//
// INFO replication is the one command that tells a script the replication id (ROLE, HELLO, CONFIG and DEBUG are not allowed in
// one), and it writes a line for each replica.
func BenchmarkFence(b *testing.B) {
	noInfo := []change{{
		"local info = redis.call('INFO', 'replication')",
		"local info = 'role:master master_replid:" + strings.Repeat("0", 40) + "'",
	}}
	ways := []struct {
		name string
		New  func(b *testing.B, c store.RedisConfig) store.Tokens
	}{
		{"store", func(b *testing.B, c store.RedisConfig) store.Tokens { return Real.New(b, c) }},
		{"scripts", bySHA(nil)},
		{"scripts without INFO", bySHA(noInfo)},
		{"SET and GETDEL", func(b *testing.B, c store.RedisConfig) store.Tokens { return plain.New(b, c) }},
	}
	for _, replicas := range []int{0, 2} {
		s := testredis.Start(b)
		for range replicas {
			r := testredis.Start(b)
			r.Follow(s.Addr)
			r.Synced()
		}
		for _, way := range ways {
			b.Run(fmt.Sprintf("replicas=%d/%s", replicas, way.name), func(b *testing.B) {
				tokens := way.New(b, store.RedisConfig{Addresses: []string{s.Addr}, Timeout: 10 * time.Second, DialTimeout: 10 * time.Second, PoolSize: 64})
				pairs(b, s, tokens)
			})
			s.Do("FLUSHALL")
		}
	}
}

// bySHA runs the store's scripts with changes by their names, as the store does.
func bySHA(changes []change) func(*testing.B, store.RedisConfig) store.Tokens {
	return func(b *testing.B, c store.RedisConfig) store.Tokens {
		u := client(b, c, -1)
		mint, redeem := source(b, "redis_mint.lua", changes), source(b, "redis_redeem.lua", changes)
		ctx := context.Background()
		return named{u, u.ScriptLoad(ctx, mint).Val(), u.ScriptLoad(ctx, redeem).Val()}
	}
}

// named is a pair of scripts that the server has.
type named struct {
	client       redis.UniversalClient
	mint, redeem string
}

func (n named) Mint(ctx context.Context, kind store.Kind, d store.Digest, value []byte, ttl time.Duration) error {
	return n.client.EvalSha(ctx, n.mint, []string{key(kind, d)}, (ttl + store.SpentFor).Milliseconds(), value).Err()
}

func (n named) Redeem(ctx context.Context, kind store.Kind, d store.Digest, a store.Attempt) ([]byte, error) {
	v, err := n.client.EvalSha(ctx, n.redeem, []string{key(kind, d)}, a[:],
		store.ReplayWindow.Milliseconds(), store.SpentFor.Milliseconds(), store.SpentFor.Milliseconds()).Text()
	return []byte(v), err
}

func pairs(b *testing.B, s *testredis.Server, tokens store.Tokens) {
	const atOnce = 64
	value := make([]byte, 256)
	_, _ = rand.Read(value)
	var next atomic.Int64
	pair := func() error {
		var d store.Digest
		_, _ = rand.Read(d[:])
		if err := tokens.Mint(context.Background(), store.KindToken, d, value, time.Minute); err != nil {
			return err
		}
		v, err := tokens.Redeem(context.Background(), store.KindToken, d, id(1))
		if err == nil && len(v) != len(value) {
			err = fmt.Errorf("a value of %d bytes", len(v))
		}
		return err
	}
	if err := pair(); err != nil { // connections and scripts are there
		b.Fatal(err)
	}
	s.Do("CONFIG", "RESETSTAT")
	before := cpu(s)
	b.ReportAllocs()
	b.ResetTimer()
	var running sync.WaitGroup
	for range atOnce {
		running.Go(func() {
			for next.Add(1) <= int64(b.N) {
				if err := pair(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	running.Wait()
	b.StopTimer()
	b.ReportMetric((cpu(s)-before)*1e6/float64(b.N), "server-cpu-µs/op")
	inside := 0.0
	for _, name := range []string{"evalsha", "set", "getdel"} {
		// Within a script, commands count for themselves and for the script; outside there is one command or the other.
		if f := stat(s, name); f > 0 && (name == "evalsha" || stat(s, "evalsha") == 0) {
			inside += f
		}
	}
	b.ReportMetric(inside/float64(b.N), "server-call-µs/op")
}

// stat is the µs that a command took in all.
func stat(s *testredis.Server, command string) float64 {
	_, rest, _ := strings.Cut(s.Field("commandstats", "cmdstat_"+command), "usec=")
	digits, _, _ := strings.Cut(rest, ",")
	f, _ := strconv.ParseFloat(digits, 64)
	return f
}

// cpu is the server's processor time in seconds.
func cpu(s *testredis.Server) (sum float64) {
	for _, name := range []string{"used_cpu_sys", "used_cpu_user"} {
		f, _ := strconv.ParseFloat(s.Field("cpu", name), 64)
		sum += f
	}
	return sum
}
