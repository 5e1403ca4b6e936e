package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/keys"
)

// The stores by their names in the report.
const (
	storeMemory = "store.Memory"
	storeFenced = "store.Redis"
	storePlain  = "plain SET NX, GETDEL"
)

// tokenStore is a place where tokens are minted and redeemed. Safe for concurrent use.
type tokenStore struct {
	name   string
	mint   func(context.Context, store.Digest) error
	redeem func(context.Context, store.Digest) error // an error too where the value is another one
}

var errOtherValue = errors.New("another value than was minted")

// ofTokens is a store as it ships.
func ofTokens(name string, s store.Tokens, value []byte) *tokenStore {
	return &tokenStore{
		name: name,
		mint: func(ctx context.Context, d store.Digest) error {
			return s.Mint(ctx, store.KindToken, d, value, storeTTL)
		},
		redeem: func(ctx context.Context, d store.Digest) error {
			got, err := s.Redeem(ctx, store.KindToken, d, store.Attempt(d[8:24])) // each digest has one attempt
			if err == nil && !bytes.Equal(got, value) {
				err = errOtherValue
			}
			return err
		},
	}
}

// memorySubject is a store in this process's memory. A nil clock is the usual one.
func memorySubject(value []byte, entries int, now func() time.Time) (s *tokenStore, done func(), err error) {
	m, err := store.NewMemory(store.MemoryConfig{MaxEntries: entries, Now: now})
	if err != nil {
		return nil, nil, err
	}
	return ofTokens(storeMemory, m, value), func() { m.Close() }, nil //nolint:errcheck // it has nothing to fail at
}

// redisTimeout is longer than anything takes: it ends a measurement that hangs.
const redisTimeout = 10 * time.Second

// The databases of the two that share a server.
const (
	fencedDB = 0
	plainDB  = 1
)

// redisSubjects are the fenced store and the plain commands, with the same options of go-redis.
func redisSubjects(ctx context.Context, address string, value []byte) (fenced, plain *tokenStore, done func(), err error) {
	s, err := store.NewRedis(store.RedisConfig{
		Addresses: []string{address}, DB: fencedDB, PoolSize: storeWorkers, DialTimeout: redisTimeout, Timeout: redisTimeout,
	})
	if err != nil {
		return nil, nil, nil, err
	}
	c := redis.NewClient(plainOptions(address, plainDB, storeWorkers))
	done = func() { s.Close(); c.Close() } //nolint:errcheck // what was measured is measured
	if err := s.Ready(ctx); err != nil {
		done()
		return nil, nil, nil, err
	}
	return ofTokens(storeFenced, s, value), ofCommands(c, value), done, nil
}

// ofCommands is what one would do without a fence, under keys as long as the store's.
func ofCommands(c *redis.Client, value []byte) *tokenStore {
	key := func(d *store.Digest) string {
		var text [43]byte
		base64.RawURLEncoding.Encode(text[:], d[:])
		return "cardstile:token:token:{" + string(text[:]) + "}"
	}
	return &tokenStore{
		name: storePlain,
		mint: func(ctx context.Context, d store.Digest) error {
			return c.Do(ctx, "set", key(&d), value, "nx", "px", storeTTL.Milliseconds()).Err()
		},
		redeem: func(ctx context.Context, d store.Digest) error {
			got, err := c.GetDel(ctx, key(&d)).Bytes()
			if err == nil && !bytes.Equal(got, value) {
				err = errOtherValue
			}
			return err
		},
	}
}

// plainOptions are the store's own (RedisConfig.options), since the fence is to be the only difference.
func plainOptions(address string, db, pool int) *redis.Options {
	return &redis.Options{
		Addr: address, DB: db, Protocol: 2, DisableIdentity: true, PipelinePoolSize: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		MaxRetries: -1, DialerRetries: 1,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout, PoolTimeout: redisTimeout,
		ContextTimeoutEnabled: true,
		PoolSize:              pool,
		ConnMaxIdleTime:       5 * time.Minute,
		ReadBufferSize:        4 << 10, WriteBufferSize: 4 << 10,
	}
}

// sealedGrants are the values that the gateway stores under two tokens of Gnosis Pay's face: one that was minted with an
// empty body, and one that is bound to a user, an operation, a card and a session.
func sealedGrants(ctx context.Context) (unbound, bound []byte, err error) {
	g := policy.Grant{Partner: "gp", Environment: "test", Face: "gnosispay"}
	_, _ = rand.Read(g.Certificate[:]) // never fails: crypto/rand
	if unbound, err = sealed(ctx, g); err != nil {
		return nil, nil, err
	}
	g.User, g.Operation, g.Card = exaUser, policy.CardReveal, cardID
	_, _ = rand.Read(g.SessionHash[:])
	bound, err = sealed(ctx, g)
	return unbound, bound, err
}

// sealed mints a token as the gateway does, and returns what the store was given.
func sealed(ctx context.Context, g policy.Grant) ([]byte, error) {
	digest, err := keys.Ephemeral("digest", keys.UseDigest)
	if err != nil {
		return nil, err
	}
	storage, err := keys.Ephemeral("storage", keys.UseStorage)
	if err != nil {
		return nil, err
	}
	digests, err := keys.NewMACRing("token", digest)
	if err != nil {
		return nil, err
	}
	grants, err := keys.NewSealRing("grant", storage)
	if err != nil {
		return nil, err
	}
	var kept keeper
	t, err := credential.NewTokens(credential.TokensConfig{Store: &kept, Digests: credential.Ring(digests), Grants: grants, Partners: []string{g.Partner}})
	if err != nil {
		return nil, err
	}
	_, _, err = t.Mint(ctx, g, credential.Minting{TTL: storeTTL})
	return kept.value, err
}

// keeper is a store that keeps the last value.
type keeper struct {
	store.Tokens // nil: nothing is redeemed
	value        []byte
}

// Mint keeps the value.
func (k *keeper) Mint(_ context.Context, _ store.Kind, _ store.Digest, value []byte, _ time.Duration) error {
	k.value = bytes.Clone(value)
	return nil
}
