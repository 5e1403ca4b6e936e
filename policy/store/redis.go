package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/logging"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cardstile/cardstile/policy"
)

// RedisConfig configures Redis. Addresses alone are enough.
type RedisConfig struct {
	// Addresses of the server, host:port or the absolute path of a unix socket. Several: the nodes of a Cluster, or with
	// MasterName the Sentinels.
	Addresses []string
	// MasterName is the name under which Sentinels know the primary. Empty: no Sentinel.
	MasterName string
	// SentinelUsername and SentinelPasswordFile are for the Sentinels, which have users of their own. The file is read once.
	SentinelUsername, SentinelPasswordFile string
	// Username is the ACL user. Empty: the default user. See AccessRules for what it must be allowed.
	Username string
	// PasswordFile holds the password; one newline at its end does not count. It is read anew for each connection, so
	// that a password can be changed without a restart. Empty: no password.
	PasswordFile string
	// TLS, where not nil, is spoken on every connection, at least version 1.2. ServerName is the address's host unless set.
	TLS *tls.Config
	// DB is the number of the database. Cluster has 0 only.
	DB int
	// Prefix begins every key. Letters, digits, '.', '_', '-', ':', at most 64; empty: "cardstile".
	Prefix string
	// PoolSize bounds the connections that operations may use at once, to each server. 0: 10 for each CPU, at least 16.
	// Logins and idempotent calls have a pool of the same bound besides.
	PoolSize int
	// DialTimeout bounds the making of a connection, TLS included. 0: 2 s.
	DialTimeout time.Duration
	// Timeout bounds each wait: for a free connection, for a write, for a reply. 0: 1 s. A context's deadline that is
	// earlier counts.
	Timeout time.Duration
	// Quorum, where it is set, is what stands in for the fence by tenure.
	Quorum *Quorum
	// Dial, where it is not nil, makes the connections, below TLS: for a drill, whose wires break.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Quorum has every mint, redemption, mark and idempotent call acknowledged by replicas before it counts: WAIT, on the
// connection that wrote. It is for servers that do not let scripts read INFO, so that the tenure cannot be known.
//
// It holds as long as whichever replica is promoted is among those that acknowledged: with as many Replicas as there are,
// always; with fewer, if the most advanced one is promoted. It does not hold against a server that comes back with older
// data than it acknowledged (a restart from a snapshot), which the tenure does notice. What was not acknowledged in time
// fails closed: nothing is released, and whether the token is used up is open.
//
// A token that was minted by tenure is fenced here, and the other way round. https://redis.io/docs/latest/commands/wait/
type Quorum struct {
	// Replicas is how many must acknowledge: 1 to 100.
	Replicas int
	// Timeout is how long they have: 1 ms up to less than RedisConfig.Timeout. 0: 500 ms.
	Timeout time.Duration
}

// quorumTenure stands in the place of a tenure.
const quorumTenure = "0000000000000000000000000000000000000000"

// AccessRules returns what an ACL user needs, in Redis's notation: the commands and the keys under prefix.
func AccessRules(prefix string) string {
	return "~" + prefixOrDefault(prefix) + ":* +ping +eval +evalsha +info +time +get +set +setrange +pttl +del +hget +hset +hgetall +hkeys +hdel +wait +select +hello +cluster|slots +asking"
}

func prefixOrDefault(prefix string) string {
	if prefix == "" {
		return "cardstile"
	}
	return prefix
}

// Redis is the store that several instances share: one server of Redis 7.0 or later (Sentinel and Cluster are
// configured here too).
//
// It does not authenticate what it reads: whoever can write to the server can delete and withhold. Its fence holds
// against failover, restart and split brain; it does not hold against a snapshot or clone of the server's host that
// keeps its replication id [9].
type Redis struct {
	prefix string
	// once runs what must not be sent a second time by itself: go-redis's retries would redeem, lose the reply, redeem
	// again and be told "spent".
	once redis.UniversalClient
	// again runs what may be repeated: Records and Idempotent.
	again  redis.UniversalClient
	meter  *meter
	closed atomic.Bool

	username, passwordFile string
	addresses              string // for operators

	quorum *Quorum // nil: fenced by tenure

	replay, spentFor int64 // ms
}

var _ Store = (*Redis)(nil)

// NewRedis returns a store. It reads the password file once, to say early if it cannot; it does not dial.
//
// It silences go-redis's own logger, which is one for the whole process: what it would print is in the errors.
func NewRedis(c RedisConfig) (*Redis, error) {
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("redis store: %w", err)
	}
	logging.Disable()
	if c.Quorum != nil {
		c.Quorum = &Quorum{Replicas: c.Quorum.Replicas, Timeout: cmp.Or(c.Quorum.Timeout, defaultQuorumTimeout)}
	}
	return &Redis{
		quorum:       c.Quorum,
		prefix:       prefixOrDefault(c.Prefix),
		once:         c.client(-1),
		again:        c.client(1),
		meter:        newMeter("redis"),
		username:     c.Username,
		passwordFile: c.PasswordFile,
		addresses:    strings.Join(c.Addresses, ", "),
		replay:       ReplayWindow.Milliseconds(),
		spentFor:     SpentFor.Milliseconds(),
	}, nil
}

func (c *RedisConfig) check() error {
	if len(c.Addresses) == 0 {
		return errors.New("no address")
	}
	for _, a := range c.Addresses {
		if isSocket(a) {
			continue
		}
		host, port, err := net.SplitHostPort(a)
		if err != nil || host == "" || port == "" {
			return fmt.Errorf("address %q: want host:port or the path of a socket", a)
		}
	}
	switch {
	case c.DB < 0:
		return fmt.Errorf("database %d: want 0 or more", c.DB)
	case c.DB != 0 && len(c.Addresses) > 1 && c.MasterName == "":
		return fmt.Errorf("database %d: Redis Cluster, which several addresses mean, has 0 only", c.DB)
	case c.PoolSize < 0:
		return fmt.Errorf("pool size %d: want 0 or more", c.PoolSize)
	case c.DialTimeout < 0 || c.Timeout < 0:
		return errors.New("a time-out is negative")
	case c.Username != "" && c.PasswordFile == "":
		return fmt.Errorf("user %q: a password file is missing", c.Username)
	case c.SentinelUsername != "" && c.SentinelPasswordFile == "":
		return fmt.Errorf("user %q of the Sentinels: a password file is missing", c.SentinelUsername)
	case c.SentinelPasswordFile != "" && c.MasterName == "":
		return errors.New("a password for Sentinels, and no name of their primary")
	case c.MasterName == "" && len(c.Addresses) > 1 && slices.ContainsFunc(c.Addresses, isSocket):
		return errors.New("Redis Cluster, which several addresses mean, has no sockets")
	case len(c.Prefix) > 64 || strings.Trim(c.Prefix, prefixCharacters) != "":
		return fmt.Errorf("prefix %q: want at most 64 letters, digits, '.', '_', '-', ':'", c.Prefix)
	}
	if err := c.checkQuorum(); err != nil {
		return err
	}
	if _, err := readPassword(c.SentinelPasswordFile); err != nil {
		return err
	}
	_, err := readPassword(c.PasswordFile)
	return err
}

func (c *RedisConfig) checkQuorum() error {
	if c.Quorum == nil {
		return nil
	}
	if c.Quorum.Replicas < 1 || c.Quorum.Replicas > 100 {
		return fmt.Errorf("quorum of %d replicas: want 1 to 100", c.Quorum.Replicas)
	}
	limit := cmp.Or(c.Timeout, defaultTimeout)
	if t := cmp.Or(c.Quorum.Timeout, defaultQuorumTimeout); t < time.Millisecond || t >= limit {
		return fmt.Errorf("quorum's time-out %v: want 1ms or more, and less than the store's, %v", t, limit)
	}
	return nil
}

func isSocket(address string) bool { return strings.HasPrefix(address, "/") }

const prefixCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-:"

// client returns go-redis's for what is configured, with this many tries beyond the first (-1: none). It does not dial.
func (c *RedisConfig) client(retries int) redis.UniversalClient {
	o := c.options(retries)
	if len(c.Addresses) == 1 || c.MasterName != "" {
		return redis.NewUniversalClient(o)
	}
	cluster := o.Cluster()
	cluster.ClusterStateReloadInterval = time.Second // go-redis's minute leaves a failed-over shard unreachable for as long
	client := redis.NewClusterClient(cluster)
	if retries < 0 {
		client.AddHook(sentOnce{})
	}
	return client
}

// sentOnce keeps go-redis's Cluster client from sending a command again whose reply was lost: it does not look at
// MaxRetries there, and a mint would be told that its own token exists. What a node refuses to another one, by MOVED or
// ASK, still goes there.
type sentOnce struct{}

// onceOnly is a command that says of itself that it is not to be repeated.
type onceOnly struct{ redis.Cmder }

// NoRetry is asked by go-redis when a reply was lost.
func (onceOnly) NoRetry() bool { return true }

// DialHook changes nothing.
func (sentOnce) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessHook marks the command.
func (sentOnce) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return next(ctx, onceOnly{cmd}) }
}

// ProcessPipelineHook changes nothing: the store has no pipelines.
func (sentOnce) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// The time-outs where none is configured.
const (
	defaultDialTimeout   = 2 * time.Second
	defaultTimeout       = time.Second
	defaultQuorumTimeout = 500 * time.Millisecond
)

// options returns go-redis's options.
func (c *RedisConfig) options(retries int) *redis.UniversalOptions {
	poolSize := c.PoolSize
	if poolSize == 0 {
		poolSize = max(16, 10*runtime.GOMAXPROCS(0))
	}
	dialTimeout, timeout := cmp.Or(c.DialTimeout, defaultDialTimeout), cmp.Or(c.Timeout, defaultTimeout)
	o := &redis.UniversalOptions{
		Addrs: c.Addresses, MasterName: c.MasterName, DB: c.DB,
		// RESP2, and nothing that listens for pushes, sends identities or opens pools besides.
		Protocol: 2, DisableIdentity: true, PipelinePoolSize: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},

		MaxRetries: retries, MinRetryBackoff: time.Millisecond, MaxRetryBackoff: 10 * time.Millisecond,
		DialerRetries: 1,
		DialTimeout:   dialTimeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
		ContextTimeoutEnabled: true,
		PoolSize:              poolSize,
		ConnMaxIdleTime:       5 * time.Minute,
		ReadBufferSize:        4 << 10, WriteBufferSize: 4 << 10, // our replies are small; go-redis's default is 32 KiB, twice
		Dialer: c.dialer(dialTimeout),
	}
	if c.SentinelPasswordFile != "" {
		o.SentinelUsername = c.SentinelUsername
		o.SentinelPassword, _ = readPassword(c.SentinelPasswordFile) // check read it a moment ago; without it they refuse
	}
	if c.PasswordFile != "" {
		username, file := c.Username, c.PasswordFile
		o.CredentialsProviderContext = func(context.Context) (string, string, error) {
			password, err := readPassword(file)
			return username, password, err
		}
	}
	return o
}

// dialer dials, and shakes hands where TLS is configured, within timeout and the context's deadline. go-redis's own
// would shake hands without looking at the context.
func (c *RedisConfig) dialer(timeout time.Duration) func(context.Context, string, string) (net.Conn, error) {
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: timeout, KeepAlive: time.Minute}).DialContext
	}
	if c.TLS == nil {
		return dial
	}
	config := c.TLS.Clone()
	config.MinVersion = max(config.MinVersion, tls.VersionTLS12)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		raw, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		own := config
		if own.ServerName == "" {
			own = config.Clone()
			own.ServerName, _, _ = net.SplitHostPort(address)
		}
		conn := tls.Client(raw, own)
		if err := conn.HandshakeContext(ctx); err != nil {
			raw.Close()
			if ctx.Err() != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%w: %w", errTLS, err)
		}
		return conn, nil
	}
}

// readPassword reads the password file; none has an empty password. Its errors name the file and never what is in it.
func readPassword(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("%w: %w", errPassword, err)
	}
	password := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	if password == "" || strings.ContainsAny(password, "\r\n") {
		return "", fmt.Errorf("%w %s: want one line", errPassword, file)
	}
	return password, nil
}

// key returns <prefix>:<family>[:<kind>]:{<digest>}. What follows the brace belongs to the same hash slot.
func (r *Redis) key(f family, kind Kind, d *Digest) string {
	var digest [43]byte
	base64.RawURLEncoding.Encode(digest[:], d[:])
	if kind == "" {
		return r.prefix + ":" + string(f) + ":{" + string(digest[:]) + "}"
	}
	return r.prefix + ":" + string(f) + ":" + string(kind) + ":{" + string(digest[:]) + "}"
}

// Mint is Tokens.Mint.
func (r *Redis) Mint(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error {
	start := time.Now()
	err := r.mint(ctx, kind, d, value, ttl)
	r.meter.done(opMint, err, start)
	return err
}

func (r *Redis) mint(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error {
	if err := r.begin(ctx, opMint, checkEntry(opMint, kind, value, ttl)); err != nil {
		return err
	}
	stays := milliseconds(ttl) + r.expiredFor(kind)
	args := []any{stays, value}
	if r.quorum != nil {
		args = append(args, quorumTenure)
	}
	reply, short, err := r.run(ctx, r.once, opMint, mintScript, []string{r.key(familyToken, kind, &d)}, args)
	if err != nil {
		return failed(ctx, opMint, err)
	}
	switch reply {
	case int64(1):
		return short
	case int64(0):
		return ErrExists
	}
	return unexpected(opMint)
}

// Redeem is Tokens.Redeem.
func (r *Redis) Redeem(ctx context.Context, kind Kind, d Digest, a Attempt) ([]byte, error) {
	start := time.Now()
	value, err := r.redeem(ctx, kind, d, a)
	r.meter.done(opRedeem, err, start)
	return value, err
}

// expiredFor is how long a token's key stays past its time, ms.
func (r *Redis) expiredFor(kind Kind) int64 {
	return kind.expiredFor(time.Duration(r.spentFor) * time.Millisecond).Milliseconds()
}

// redeem asks, and once more where no answer came: it is the same attempt, so that it gets the value that it may have
// redeemed already. Of a kind whose value is given away once there is nothing to gain.
func (r *Redis) redeem(ctx context.Context, kind Kind, d Digest, a Attempt) ([]byte, error) {
	if err := r.begin(ctx, opRedeem, checkRedeem(kind, a)); err != nil {
		return nil, err
	}
	value, err := r.redeemOnce(ctx, kind, d, a)
	if kind.replayWindow() != 0 && ctx.Err() == nil && isLost(err) {
		value, err = r.redeemOnce(ctx, kind, d, a)
	}
	return value, err
}

// isLost says whether the operation may have taken place, and what became of it may be had by asking again.
func isLost(err error) bool {
	u, ok := errors.AsType[*Unavailable](err)
	return ok && (u.Reason == ReasonConnection || u.Reason == ReasonTimeout)
}

// redeemErrors are the numbers that redis_redeem.lua answers.
var redeemErrors = [...]error{ErrUnknown, ErrFenced, ErrExpired}

func (r *Redis) redeemOnce(ctx context.Context, kind Kind, d Digest, a Attempt) ([]byte, error) {
	replay := r.replay
	if kind.replayWindow() == 0 {
		replay = 0
	}
	args := []any{a[:], replay, r.expiredFor(kind), r.spentFor}
	if r.quorum != nil {
		args = append(args, quorumTenure)
	}
	reply, short, err := r.run(ctx, r.once, opRedeem, redeemScript, []string{r.key(familyToken, kind, &d)}, args)
	if err != nil {
		return nil, failed(ctx, opRedeem, err)
	}
	switch v := reply.(type) {
	case string:
		if short != nil {
			return nil, short
		}
		return []byte(v), nil
	case int64:
		if v >= 0 && v < int64(len(redeemErrors)) {
			return nil, redeemErrors[v]
		}
	case []any:
		if spent, ok := spentReply(v); ok {
			if short != nil { // a failover may yet bring it back for somebody else
				return nil, short
			}
			return nil, spent
		}
	}
	return nil, unexpected(opRedeem)
}

// spentReply reads {attempt, milliseconds since then}.
func spentReply(reply []any) (*Spent, bool) {
	if len(reply) != 2 {
		return nil, false
	}
	attempt, ok := reply[0].(string)
	since, isNumber := reply[1].(int64)
	if !ok || !isNumber || len(attempt) != len(Attempt{}) {
		return nil, false
	}
	return &Spent{Attempt: Attempt([]byte(attempt)), At: time.Now().Add(-time.Duration(since) * time.Millisecond)}, true
}

// Once is Once.Once.
func (r *Redis) Once(ctx context.Context, kind Kind, d Digest, ttl time.Duration) error {
	start := time.Now()
	err := r.mark(ctx, kind, d, ttl)
	r.meter.done(opOnce, err, start)
	return err
}

func (r *Redis) mark(ctx context.Context, kind Kind, d Digest, ttl time.Duration) error {
	if err := r.begin(ctx, opOnce, checkEntry(opOnce, kind, nil, ttl)); err != nil {
		return err
	}
	key, args := r.key(familyOnce, kind, &d), redis.SetArgs{Mode: "NX", TTL: ttl}
	var short, err error
	if r.quorum == nil {
		err = r.once.SetArgs(ctx, key, "1", args).Err()
	} else {
		_, short, err = r.acknowledged(ctx, opOnce, key, func(p redis.Pipeliner) redis.Cmder { return p.SetArgs(ctx, key, "1", args) })
	}
	switch {
	case err == nil:
		return short
	case errors.Is(err, redis.Nil):
		return ErrSpent
	}
	return failed(ctx, opOnce, err)
}

// Put is Records.Put.
func (r *Redis) Put(ctx context.Context, kind Kind, d Digest, value []byte, ttl time.Duration) error {
	start := time.Now()
	err := r.begin(ctx, opPut, checkEntry(opPut, kind, value, ttl))
	if err == nil {
		if e := r.again.SetArgs(ctx, r.key(familyRecord, kind, &d), value, redis.SetArgs{TTL: ttl}).Err(); e != nil {
			err = failed(ctx, opPut, e)
		}
	}
	r.meter.done(opPut, err, start)
	return err
}

// Get is Records.Get.
func (r *Redis) Get(ctx context.Context, kind Kind, d Digest) ([]byte, error) {
	start := time.Now()
	value, err := r.get(ctx, kind, d)
	r.meter.done(opGet, err, start)
	return value, err
}

func (r *Redis) get(ctx context.Context, kind Kind, d Digest) ([]byte, error) {
	if err := r.begin(ctx, opGet, checkKind(opGet, kind)); err != nil {
		return nil, err
	}
	value, err := r.again.Get(ctx, r.key(familyRecord, kind, &d)).Bytes()
	switch {
	case err == nil:
		return value, nil
	case errors.Is(err, redis.Nil):
		return nil, ErrUnknown
	}
	return nil, failed(ctx, opGet, err)
}

// Delete is Records.Delete.
func (r *Redis) Delete(ctx context.Context, kind Kind, d Digest) error {
	start := time.Now()
	err := r.begin(ctx, opDelete, checkKind(opDelete, kind))
	if err == nil {
		if e := r.again.Del(ctx, r.key(familyRecord, kind, &d)).Err(); e != nil {
			err = failed(ctx, opDelete, e)
		}
	}
	r.meter.done(opDelete, err, start)
	return err
}

// Take is Limiter.Take.
func (r *Redis) Take(ctx context.Context, d Digest, rate policy.Rate) (Taken, error) {
	start := time.Now()
	taken, err := r.take(ctx, d, rate)
	res := resultOf(err)
	if err == nil && !taken.OK {
		res = resultLimited
	}
	r.meter.observe(opTake, res, err, start)
	return taken, err
}

func (r *Redis) take(ctx context.Context, d Digest, rate policy.Rate) (Taken, error) {
	var bad error
	if err := rate.Validate(); err != nil {
		bad = invalid(opTake, err.Error())
	}
	if err := r.begin(ctx, opTake, bad); err != nil {
		return Taken{}, err
	}
	reply, err := takeScript.run(ctx, r.once, []string{r.key(familyLimit, "", &d)}, rate.Interval(), rate.Burst())
	if err != nil {
		return Taken{}, failed(ctx, opTake, err)
	}
	n, ok := integers(reply)
	if !ok || len(n) != 4 {
		return Taken{}, unexpected(opTake)
	}
	return Taken{OK: n[0] == 1, RetryAfter: time.Duration(n[1]) * time.Microsecond, Remaining: int(n[2])}, nil
}

func integers(reply any) ([]int64, bool) {
	list, ok := reply.([]any)
	if !ok {
		return nil, false
	}
	n := make([]int64, len(list))
	for i, v := range list {
		if n[i], ok = v.(int64); !ok {
			return nil, false
		}
	}
	return n, true
}

// begin returns the error of an operation that need not be sent: a mistake of the caller, or a caller who is gone.
func (r *Redis) begin(ctx context.Context, op operation, mistake error) error {
	if mistake != nil {
		return mistake
	}
	if r.closed.Load() {
		return &Unavailable{Store: "redis", Operation: op.String(), Reason: ReasonClosed}
	}
	return ended(ctx, "redis", op)
}

// Close closes the connections. Operations on their way end with ErrUnavailable.
func (r *Redis) Close() error {
	if r.closed.Swap(true) {
		return nil
	}
	return errors.Join(r.once.Close(), r.again.Close())
}

// Collectors returns the store's metrics.
func (r *Redis) Collectors() []prometheus.Collector { return r.meter.collectors() }
