package store_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/cardstile/cardstile/internal/testredis"
)

// BenchmarkPlainSetGetdel is the floor under a pair on Redis: the same bytes, two commands, no fence, no replay.
func BenchmarkPlainSetGetdel(b *testing.B) {
	c := redis.NewClient(&redis.Options{Addr: testredis.Start(b).Addr, Protocol: 2, MaxRetries: -1, PipelinePoolSize: -1})
	defer c.Close()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		d := digest()
		key := "cardstile:token:token:{" + string(d[:]) + "}"
		if err := c.SetArgs(ctx, key, grant, redis.SetArgs{Mode: "NX", TTL: time.Minute}).Err(); err != nil {
			b.Fatal(err)
		}
		if err := c.GetDel(ctx, key).Err(); err != nil {
			b.Fatal(err)
		}
	}
}
