package store

import (
	"context"
	_ "embed" // the scripts
	"errors"

	"github.com/redis/go-redis/v9"
)

// The scripts, each one atomic on the server. Their keys share a hash tag, so that Redis Cluster can run them; their
// clock is the server's (TIME), which replication by effects, Redis 7's only way, allows.
var (
	//go:embed redis_mint.lua
	mintSource string
	//go:embed redis_redeem.lua
	redeemSource string
	//go:embed redis_begin.lua
	beginSource string
	//go:embed redis_finish.lua
	finishSource string
	//go:embed redis_abandon.lua
	abandonSource string
	//go:embed redis_take.lua
	takeSource string
	//go:embed redis_raise.lua
	raiseSource string
	//go:embed redis_hold.lua
	holdSource string
	//go:embed redis_release.lua
	releaseSource string
	//go:embed redis_remove.lua
	removeSource string
	//go:embed redis_probe.lua
	probeSource string
)

// script is a script with the name under which servers cache it.
//
// The name, the SHA-1 of the source, is written down rather than computed: SHA-1 panics in a process under fips140=only.
// Asking the server for it (redis.NewScriptServerSHA) would hold a lock over a round trip, so that one hung server makes
// the callers wait for each other past their deadlines. A test compares it with what a server says. A wrong one would
// still work, at the cost of a second round trip.
type script struct {
	source, sha string
}

var (
	mintScript    = script{mintSource, "73a8580b02c542c55e0674a394827b2ea8725705"}
	redeemScript  = script{redeemSource, "aa4d05a4069655bc7f36c8305afb94f4cb2cad7a"}
	beginScript   = script{beginSource, "d042d9f5f0177d93824421805a7086d13cbcc030"}
	finishScript  = script{finishSource, "74c5c3ae16fbd9786756addb8e093568a0a48df3"}
	abandonScript = script{abandonSource, "ac759c36c9b2a518a4297721752b9834ccb3b6b6"}
	takeScript    = script{takeSource, "b183129f0901108cc23960bfee8fe80910764a4e"}
	raiseScript   = script{raiseSource, "d8ebf32bbdde98de39abc29a9c3b6abef7149fab"}
	holdScript    = script{holdSource, "22e16ee0ed178780ba229c53a7ccaaf9e4e284bf"}
	releaseScript = script{releaseSource, "0d1c8d454e5e332aff95dca72598b688f49628d5"}
	removeScript  = script{removeSource, "029e6623d4955f91c1f47a2cf2cab0a2620167bd"}
	probeScript   = script{probeSource, "0a77a4ada44f11afa0e7b6c0a97e9a71a63652d5"}
)

// run runs the script once. A server that does not have it refuses its name without running anything; it then gets the
// source, and keeps it.
func (s script) run(ctx context.Context, c redis.Scripter, keys []string, args ...any) (any, error) {
	reply, err := c.EvalSha(ctx, s.sha, keys, args...).Result()
	if errors.Is(err, redis.ErrNoScript) {
		reply, err = c.Eval(ctx, s.source, keys, args...).Result()
	}
	return reply, err
}
