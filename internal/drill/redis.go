package drill

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/cardstile/cardstile/policy/store"
)

// deployment is a Redis as it is seen beside the gateways, over connections that no fault touches: how many keys it has,
// who is a primary and since when, which shard has which slots. It needs no right that the store does not need, but in
// Cluster that of naming its slots, which every client of one has.
type deployment struct {
	config  store.RedisConfig
	client  redis.UniversalClient
	history *History

	mu        sync.Mutex
	sentinels map[string]bool
	watches   map[string]*Watch // by address
	shards    []shard           // all that were ever seen
	watching  sync.WaitGroup
	ctx       context.Context
	end       context.CancelFunc
}

// shard is a range of slots and the addresses of those that have it.
type shard struct {
	first, last int
	addresses   []string
}

// newDeployment does not dial.
func newDeployment(c store.RedisConfig, h *History) *deployment {
	d := &deployment{config: c, history: h, sentinels: map[string]bool{}, watches: map[string]*Watch{}}
	d.ctx, d.end = context.WithCancel(context.Background())
	o := d.options()
	o.Addrs, o.MasterName, o.DB = c.Addresses, c.MasterName, c.DB
	o.SentinelUsername = c.SentinelUsername
	if c.SentinelPasswordFile != "" {
		o.SentinelPassword, _ = password(c.SentinelPasswordFile) // the store read it before
	}
	d.client = redis.NewUniversalClient(o)
	if c.MasterName != "" {
		for _, address := range c.Addresses {
			d.sentinels[address] = true
		}
	}
	return d
}

func (d *deployment) options() *redis.UniversalOptions {
	dialTimeout, timeout := d.config.DialTimeout, d.config.Timeout
	o := &redis.UniversalOptions{
		Protocol: 2, DisableIdentity: true, PipelinePoolSize: -1,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
		MaxRetries:               -1, DialerRetries: 1, ContextTimeoutEnabled: true, PoolSize: 4,
		DialTimeout: dialTimeout, ReadTimeout: timeout, WriteTimeout: timeout, PoolTimeout: timeout,
	}
	if c := d.config.TLS; c != nil {
		o.TLSConfig = c.Clone()
		o.TLSConfig.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	}
	if file := d.config.PasswordFile; file != "" {
		username := d.config.Username
		o.CredentialsProviderContext = func(context.Context) (string, string, error) {
			p, err := password(file)
			return username, p, err
		}
	}
	return o
}

// password reads a file of one. Its error names the file alone.
func password(file string) (string, error) {
	b, err := os.ReadFile(file)
	return strings.TrimRight(string(b), "\r\n"), err
}

// close ends the watching. Closing again does nothing.
func (d *deployment) close() {
	d.end()
	d.watching.Wait()
	d.client.Close()
}

// primaries calls f for each, or for the one that there is.
func (d *deployment) primaries(ctx context.Context, f func(context.Context, *redis.Client) error) error {
	switch c := d.client.(type) {
	case *redis.ClusterClient:
		var one sync.Mutex
		return c.ForEachMaster(ctx, func(ctx context.Context, node *redis.Client) error {
			one.Lock()
			defer one.Unlock()
			return f(ctx, node)
		})
	case *redis.Client:
		return f(ctx, c)
	}
	panic("drill: internal error: a client of another kind")
}

// keys counts them in every database of every primary. Where INFO is not permitted it counts those of the one database.
func (d *deployment) keys(ctx context.Context) (n int64, err error) {
	err = d.primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		text, err := node.Info(ctx, "keyspace").Result()
		if _, replied := errors.AsType[redis.Error](err); replied {
			one, err := node.DBSize(ctx).Result()
			n += one
			return err
		}
		for line := range strings.SplitSeq(text, "\r\n") { // db0:keys=1,expires=0,avg_ttl=0
			_, rest, _ := strings.Cut(line, ":keys=")
			digits, _, _ := strings.Cut(rest, ",")
			one, _ := strconv.ParseInt(digits, 10, 64)
			n += one
		}
		return err
	})
	return n, err
}

// describe says what it is. What cannot be read is empty.
func (d *deployment) describe(ctx context.Context) Deployment {
	all := Deployment{Addresses: d.config.Addresses, Mode: "one address"}
	switch {
	case d.config.MasterName != "":
		all.Mode = "sentinel"
	case len(d.config.Addresses) > 1:
		all.Mode = "cluster"
	}
	_ = d.primaries(ctx, func(ctx context.Context, node *redis.Client) error {
		all.Primaries++
		all.Version = field(node.Info(ctx, "server").Val(), "redis_version")
		n, _ := strconv.Atoi(field(node.Info(ctx, "replication").Val(), "connected_slaves"))
		all.Replicas += n
		return nil
	})
	return all
}

// field is a line of INFO.
func field(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	return ""
}

// roundTrip is how long an answer takes, at most of a few.
func (d *deployment) roundTrip(ctx context.Context) (most time.Duration) {
	for i := range 6 {
		start := time.Now()
		_ = d.client.Ping(ctx).Err()
		if i > 0 { // the first one dials
			most = max(most, time.Since(start))
		}
	}
	return most
}

// remove removes what the tokens left and returns how many keys there were. Where servers are known that were primaries
// once, and may be yet, it asks them as well: nobody else will.
func (d *deployment) remove(ctx context.Context, tokens []*Token) (removed int64, err error) {
	removed, err = d.removeFrom(ctx, d.client, tokens)
	if _, ok := d.client.(*redis.ClusterClient); ok {
		return removed, err
	}
	d.mu.Lock()
	others := slices.Collect(maps.Keys(d.watches))
	d.mu.Unlock()
	if len(others) < 2 {
		return removed, err
	}
	for _, address := range others {
		o := d.options().Simple()
		o.Addr, o.DB = address, d.config.DB
		c := redis.NewClient(o)
		n, _ := d.removeFrom(ctx, c, tokens) // one that is down has nothing to remove; a replica refuses, and follows
		removed += n
		c.Close()
	}
	return removed, err
}

func (d *deployment) removeFrom(ctx context.Context, client redis.UniversalClient, tokens []*Token) (removed int64, err error) {
	prefix := cmp.Or(d.config.Prefix, "cardstile")
	for some := range slices.Chunk(tokens, 256) {
		p := client.Pipeline()
		for _, k := range some {
			p.Del(ctx, fmt.Sprintf("%s:token:%s:{%s}", prefix, k.Kind, base64.RawURLEncoding.EncodeToString(k.Digest[:])))
		}
		replies, e := p.Exec(ctx)
		for _, r := range replies {
			removed += r.(*redis.IntCmd).Val()
		}
		if e != nil {
			return removed, e
		}
	}
	return removed, nil
}

// follow begins to watch the tenure of all that are known to have one, and of those that become known.
func (d *deployment) follow(ctx context.Context) {
	c, isCluster := d.client.(*redis.ClusterClient)
	switch {
	case isCluster:
		d.readShards(ctx, c)
		d.watching.Go(func() {
			for wait(d.ctx, 500*time.Millisecond) {
				d.readShards(d.ctx, c)
			}
		})
	case d.config.MasterName != "":
		d.readSentinels(ctx)
	default:
		d.watch(d.config.Addresses[0])
	}
}

// readShards notes which shard has which slots at the moment.
func (d *deployment) readShards(ctx context.Context, c *redis.ClusterClient) {
	//lint:ignore SA1019 the store's own client asks by it: this needs no right besides
	slots, err := c.ClusterSlots(ctx).Result()
	if err != nil {
		return
	}
	for _, s := range slots {
		now := shard{first: s.Start, last: s.End}
		for _, n := range s.Nodes {
			now.addresses = append(now.addresses, n.Addr)
			d.watch(n.Addr)
		}
		d.mu.Lock()
		if !slices.ContainsFunc(d.shards, func(s shard) bool {
			return s.first == now.first && s.last == now.last && slices.Equal(s.addresses, now.addresses)
		}) {
			d.shards = append(d.shards, now)
		}
		d.mu.Unlock()
	}
}

// readSentinels learns the names of the Sentinels that the configured ones know: they have no tenure.
func (d *deployment) readSentinels(ctx context.Context) {
	o := d.options().Simple()
	o.CredentialsProviderContext = nil
	o.Username = d.config.SentinelUsername
	if d.config.SentinelPasswordFile != "" {
		o.Password, _ = password(d.config.SentinelPasswordFile)
	}
	for _, address := range d.config.Addresses {
		o.Addr = address
		s := redis.NewSentinelClient(o)
		others, _ := s.Sentinels(ctx, d.config.MasterName).Result()
		for _, other := range others {
			d.mu.Lock()
			d.sentinels[other["ip"]+":"+other["port"]] = true
			d.mu.Unlock()
		}
		if host, err := s.GetMasterAddrByName(ctx, d.config.MasterName).Result(); err == nil && len(host) == 2 {
			d.watch(host[0] + ":" + host[1])
		}
		s.Close()
	}
}

// watch returns what is seen of the server at this address, from now on.
func (d *deployment) watch(address string) *Watch {
	d.mu.Lock()
	defer d.mu.Unlock()
	if w, ok := d.watches[address]; ok || d.sentinels[address] {
		return w
	}
	w := &Watch{Name: address}
	d.watches[address] = w
	if d.ctx.Err() != nil {
		return w
	}
	d.watching.Go(func() {
		o := d.options().Simple()
		o.Addr, o.PoolSize, o.ConnMaxIdleTime = address, 1, -1
		kept := redis.NewClient(o)
		defer kept.Close()
		for i := 0; ; i++ {
			d.sight(d.ctx, w, kept)
			if i%40 == 39 { // what a name or a load balancer leads to may be another server by now
				fresh := redis.NewClient(o)
				d.sight(d.ctx, w, fresh)
				fresh.Close()
			}
			if !wait(d.ctx, 25*time.Millisecond) {
				d.sight(context.WithoutCancel(d.ctx), w, kept) // what came before it is known by it
				return
			}
		}
	})
	return w
}

// sight looks once.
func (d *deployment) sight(ctx context.Context, w *Watch, c *redis.Client) {
	asked := d.history.Now()
	text, err := c.Info(ctx, "replication").Result()
	tenure := ""
	switch {
	case ctx.Err() != nil:
		return
	case errors.Is(err, syscall.ECONNREFUSED): // nobody is there
	case err != nil:
		tenure = Unseen
	case field(text, "role") == "master":
		tenure = field(text, "master_replid")
		if tenure == "" {
			tenure = Unseen
		}
	}
	w.Saw(asked, d.history.Now(), tenure)
}

// wait returns true after a while, false when ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// reach returns what was seen of those that a call for this token may have come to.
func (d *deployment) reach(k *Token) (all []*Watch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.shards) == 0 {
		for _, w := range d.watches {
			all = append(all, w)
		}
		return all
	}
	slot := Slot(k.Digest)
	for _, s := range d.shards {
		for _, a := range s.addresses {
			if w := d.watches[a]; slot >= s.first && slot <= s.last && !slices.Contains(all, w) {
				all = append(all, w)
			}
		}
	}
	return all
}

// tenures are all that were seen, in order.
func (d *deployment) tenures() (all []Tenure) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, w := range d.watches {
		all = append(all, w.tenures()...)
	}
	slices.SortFunc(all, func(a, b Tenure) int { return int(a.Since - b.Since) })
	seen := map[string]bool{} // by another address of the same server
	return slices.DeleteFunc(all, func(t Tenure) bool {
		again := seen[t.ID]
		seen[t.ID] = true
		return again
	})
}
