package drill

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cardstile/cardstile/policy/store"
)

// Config says what Run does. Redis and For are required.
type Config struct {
	// Redis is the gateway's configuration of it. Timeout is what the gateways here wait; 0: twenty round trips, 250 ms to 2 s.
	Redis store.RedisConfig
	// Open returns a gateway's way to tokens. nil: the store.
	Open func(store.RedisConfig) (Subject, error)
	// For is how long the workers are at work.
	For time.Duration
	// Workers is how many there are, at both gateways together: 2 at least.
	Workers int
	// Patience is how long asking for everything once more may take in the end, and then removing it. 0: as long as For, a
	// minute at least, and 15 s.
	Patience time.Duration
	// Seed draws the faults.
	Seed uint64
	// Fault, where not nil, does the operator's own harm, once each time it is called, and says what it did. It ends with
	// its context.
	Fault func(context.Context) (string, error)
	// Say is told what happens meanwhile, and when, by any goroutine.
	Say func(at time.Duration, what string)
}

// Subject is what is tried.
type Subject interface {
	store.Tokens
	Close() error
}

// unsharp is how far a call may lie from when its tenure was seen: a second between two looks through a new connection, and
// as much again.
const unsharp = 2 * time.Second

// Run tries the Redis, and returns what became of it, or an error where it could not be tried. It refuses one that has keys,
// and changes nothing there. It removes what it wrote, also when ctx ends early; what it saw until then it judges.
//
// Two gateways have a wire of their own to each server, which breaks, stalls, slows down and goes dark; what is seen of
// tenures is seen over other connections.
func Run(ctx context.Context, c Config) (*Report, error) {
	r, err := prepare(ctx, c)
	if err != nil {
		return nil, err
	}
	defer r.deployment.close()
	defer r.network.Close()
	return r.run(ctx)
}

// runner is one run.
type runner struct {
	Config
	deployment *deployment
	network    *Network
	load       *Load
	routes     []*Route
	closing    []Subject
	report     Report
	// calm is held by whoever spoils the first gateway's wires, and by the operator: while a fault is under way that gateway's calls
	// are answered, so that it is seen what the fault does.
	calm   sync.Mutex
	faults struct{ slow, stalls, dark, commands, failed atomic.Int64 }
}

// prepare finds out whether it can be tried. Only where it can something is left to be closed.
func prepare(ctx context.Context, c Config) (*runner, error) {
	c.Redis.DialTimeout = cmp.Or(c.Redis.DialTimeout, 2*time.Second)
	direct := c.Redis
	direct.Timeout = cmp.Or(c.Redis.Timeout, time.Second)
	real, err := store.NewRedis(direct)
	if err != nil {
		return nil, err
	}
	defer real.Close()
	if c.Open == nil {
		c.Open = func(c store.RedisConfig) (Subject, error) { return store.NewRedis(c) }
	}
	r := &runner{Config: c, network: NewNetwork(c.Seed)}
	history := NewHistory()
	r.deployment = newDeployment(direct, history)
	usable := false
	defer func() {
		if !usable {
			r.network.Close()
			r.deployment.close()
		}
	}()

	bounded, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	// Whether there is something is asked before anything is written; where that has no answer, Ready knows why.
	keys, unknown := r.deployment.keys(bounded)
	if unknown == nil && keys > 0 {
		return nil, fmt.Errorf("redis %s: it is not empty (keys: %d), and the drill is for one that is: nothing was touched", strings.Join(c.Redis.Addresses, ", "), keys)
	}
	if err := real.Ready(bounded); err != nil {
		return nil, err
	}
	if unknown != nil {
		return nil, fmt.Errorf("redis %s: whether it is empty could not be told: %w", strings.Join(c.Redis.Addresses, ", "), unknown)
	}
	r.report.Redis = r.deployment.describe(bounded)
	if r.Redis.Timeout == 0 {
		r.Redis.Timeout = min(max(20*r.deployment.roundTrip(bounded), 250*time.Millisecond), 2*time.Second).Round(time.Millisecond)
		if r.Redis.Quorum != nil { // whose own time-out has to fit
			r.Redis.Timeout = time.Second
		}
	}
	r.deployment.follow(bounded)
	r.load = &Load{
		History: history, Seed: c.Seed, Workers: max(1, c.Workers/2), Short: 10,
		Pause: 2 * time.Millisecond, PauseMore: 5 * time.Microsecond, Timeout: 4 * r.Redis.Timeout,
	}
	for _, name := range []string{"a", "b"} {
		if err := r.open(name); err != nil {
			return nil, errors.Join(err, r.closeGateways())
		}
	}
	usable = true
	return r, nil
}

// open adds a gateway, whose every connection goes over the network.
func (r *runner) open(name string) error {
	c := r.Redis
	c.PoolSize = cmp.Or(c.PoolSize, 2*sweepers+r.Workers)
	var mu sync.Mutex
	fronts := map[string]*Front{}
	c.Dial = func(ctx context.Context, _, address string) (net.Conn, error) {
		r.deployment.watch(address)
		mu.Lock()
		f, ok := fronts[address]
		if !ok {
			var err error
			if f, err = r.network.Listen(name, redisEnd); err != nil {
				mu.Unlock()
				return nil, err
			}
			f.Backend.Store(&address)
			fronts[address] = f
		}
		mu.Unlock()
		var d net.Dialer
		return d.DialContext(ctx, "tcp", f.Address)
	}
	s, err := r.Config.Open(c)
	if err != nil {
		return err
	}
	r.closing = append(r.closing, s)
	g := &Gateway{Name: name}
	g.Route.Store(&Route{Tokens: s})
	r.load.Gateways = append(r.load.Gateways, g)
	r.routes = append(r.routes, g.Route.Load())
	return nil
}

// redisEnd is the far end of every wire.
const redisEnd = "redis"

// sweepers is how many tokens are asked for at once in the end.
const sweepers = 32

func (r *runner) closeGateways() (err error) {
	for _, s := range r.closing {
		err = errors.Join(err, s.Close())
	}
	return err
}

func (r *runner) say(format string, args ...any) {
	if r.Say != nil {
		r.Say(time.Duration(r.load.History.Now()), fmt.Sprintf(format, args...))
	}
}

func (r *runner) run(ctx context.Context) (*Report, error) {
	d := r.report.Redis
	r.say("Redis %s at %s (%s; primaries: %d, replicas: %d) is empty and ready", d.Version, strings.Join(d.Addresses, ", "), d.Mode, d.Primaries, d.Replicas)
	r.say("two gateways, %d workers, for %v; a call waits %v; seed %d", r.load.Workers*len(r.load.Gateways), r.For, r.Redis.Timeout, r.Seed)
	during, cancel := context.WithTimeout(ctx, r.For)
	defer cancel()
	began := r.load.History.Now()
	r.load.Start()
	var harm sync.WaitGroup
	for i, g := range r.load.Gateways {
		draw := rand.New(rand.NewPCG(r.Seed, uint64(1<<32+i)))
		harm.Go(func() { r.weather(during, g, draw) })
	}
	if r.Fault != nil {
		harm.Go(func() { r.operator(ctx, during, rand.New(rand.NewPCG(r.Seed, 1<<33))) })
	}
	harm.Go(func() { r.progress(during) })
	<-during.Done()
	harm.Wait()
	r.load.Stop()
	r.report.Seconds = time.Duration(r.load.History.Now() - began).Seconds()

	// What follows is done for whoever is in a hurry, too, but not for as long.
	after := context.WithoutCancel(ctx)
	sweeping, patience := ctx, cmp.Or(r.Patience, max(time.Minute, r.For))
	how := "asks for each of %d tokens once more"
	if ctx.Err() != nil {
		sweeping, patience = after, 10*time.Second
		how = "interrupted; " + how
	}
	r.say(how, len(r.load.History.All()))
	sweeping, cancelSweep := context.WithTimeout(sweeping, patience)
	defer cancelSweep()
	r.report.Tokens.Unanswered = r.load.Sweep(sweeping, sweepers, r.routes...)
	r.report.Interrupted = ctx.Err() != nil
	_ = r.closeGateways() // connections alone
	r.network.Close()     // what was on its way is there, or never will be
	r.clean(after)
	if r.report.Keys.Left == 0 {
		r.say("removed %d keys; it is empty again", r.report.Keys.Removed)
	}
	r.deployment.close()
	r.judge()
	return &r.report, nil
}

// weather lets a gateway's wires be fair for a while, then not, and so on.
func (r *runner) weather(ctx context.Context, g *Gateway, draw *rand.Rand) {
	timeout := r.Redis.Timeout
	ms := func(least, most int) time.Duration {
		return time.Duration(least+draw.IntN(most-least)) * time.Millisecond
	}
	for wait(ctx, ms(150, 600)) {
		var rule Rule
		length := ms(100, 500)
		switch draw.IntN(5) {
		case 0:
			rule.Delay = ms(1, 20)
			r.faults.slow.Add(1)
		case 1:
			rule.Lag = ms(1, 100)
			r.faults.slow.Add(1)
		case 2:
			rule.Breaks = 4 + draw.IntN(28)
		case 3:
			rule.Lag, length = timeout+ms(1, 100), 2*timeout+ms(0, 100)
			r.faults.stalls.Add(1)
		case 4:
			rule.Cut, length = true, timeout+ms(0, 2*int(timeout.Milliseconds()))
			r.faults.dark.Add(1)
		}
		r.spoil(ctx, g, rule, length, rule.Cut && draw.IntN(2) == 0)
	}
}

// spoil has a gateway's wires be so for a while. With reset, what was sent meanwhile is lost; else it arrives late.
func (r *runner) spoil(ctx context.Context, g *Gateway, rule Rule, length time.Duration, reset bool) {
	if g == r.load.Gateways[0] {
		r.calm.Lock()
		defer r.calm.Unlock()
	}
	g.weather.Add(1)
	r.network.Set(g.Name, redisEnd, rule)
	wait(ctx, length)
	if reset {
		r.network.Reset(g.Name, redisEnd)
	}
	r.network.Set(g.Name, redisEnd, Rule{})
	g.weather.Add(1)
}

// operator does the operator's harm now and then, and lets it end. Tokens that were minted just before are redeemed while it is
// under way and shortly after, which is when a replica may not hear of it.
func (r *runner) operator(ctx, during context.Context, draw *rand.Rand) {
	for {
		gap := r.For/8 + time.Duration(draw.Int64N(int64(r.For)/8+1))
		if !wait(during, gap) {
			return
		}
		if deadline, _ := during.Deadline(); time.Until(deadline) < r.For/5 {
			return // what it does would not be seen any more
		}
		r.fault(ctx, during, draw)
	}
}

// fault does it once.
func (r *runner) fault(ctx, during context.Context, draw *rand.Rand) {
	r.calm.Lock()
	defer r.calm.Unlock()
	var spending sync.WaitGroup
	for _, g := range r.load.Gateways {
		kept := r.load.Keep(g, draw)
		spending.Go(func() { r.spend(during, g, kept) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.harm(ctx)
	}()
	spending.Wait()
	select {
	case <-done:
	case <-during.Done():
		select {
		case <-done:
		default:
			r.say("waits for the fault to end")
			<-done
		}
	}
}

func (r *runner) harm(ctx context.Context) {
	said, err := r.Fault(ctx)
	r.faults.commands.Add(1)
	if err != nil {
		r.faults.failed.Add(1)
		said = fmt.Sprintf("%s: %v", said, err)
	}
	r.say("%s", said)
}

// spend redeems what was kept, one token after another.
func (r *runner) spend(ctx context.Context, g *Gateway, kept []*Token) {
	for _, k := range kept {
		if !wait(ctx, 40*time.Millisecond) {
			return
		}
		r.load.Spend(g, []*Token{k})
	}
}

// progress says now and then that there is some.
func (r *runner) progress(ctx context.Context) {
	for wait(ctx, 10*time.Second) {
		calls, counts := r.load.History.Counts()
		r.say("%d tokens, %d calls, %d without an answer", len(r.load.History.All()), calls, counts["mint no answer"]+counts["redeem no answer"]+counts["revoke no answer"])
	}
}

// clean removes what the drill wrote. A failover may be under way, and a mint on its way to a server that stood still: it looks
// again until nothing is there, or three times in a row nothing of ours.
func (r *runner) clean(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(r.Patience, 15*time.Second))
	defer cancel()
	tokens := r.load.History.All()
	for idle := 0; idle < 3; {
		n, err := r.deployment.remove(ctx, tokens)
		left, unknown := r.deployment.keys(ctx)
		r.report.Keys.Removed += n
		r.report.Keys.Left = left
		switch {
		case err != nil || unknown != nil:
			r.report.Keys.Left = -1
		case left == 0:
			return
		case n == 0:
			idle++
		}
		if !wait(ctx, 200*time.Millisecond) {
			return
		}
	}
}
