package credential

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// storeStanding is the store's kind of partners' standings: Shared.
const storeStanding store.Kind = "standing"

// standingLabel begins the associated data of a sealed standing; its version and
// the partner's id follow.
const standingLabel = "cardstile standing v1"

// standingNameLabel begins what a standing's name in the store is the hash of;
// the partner's id follows.
const standingNameLabel = "cardstile standing name v1"

const (
	// StandingFresh is how old what is known of partners may be where a
	// credential is used up, or minted.
	StandingFresh = time.Second
	// StandingStale is how old it may be where the store is not touched [20].
	StandingStale = 5 * time.Second

	standingInterval = 250 * time.Millisecond // between two readings
	standingTimeout  = time.Second            // of one
	standingConfirm  = time.Second            // after which a change is looked at again
	standingTries    = 16
)

// Causes of a change of a standing.
const (
	CauseOperator      = "operator"      // who used the command
	CauseConfiguration = "configuration" // a reload or start that took from the partner a way to come in
)

var standingCauses = [...]string{"", CauseOperator, CauseConfiguration}

// Standing is how a partner stands: what all instances agree on, beside what
// each one's configuration says. The zero value is that of a partner of whom
// nothing has been said.
type Standing struct {
	Disabled   bool
	Generation uint64    // what was minted under an older one is dead
	Since      time.Time // the last change, by the clock of whoever made it; zero: none
	Cause      string    // of the last change: one of the constants, or ""
}

// ErrStanding says that what the store has of a partner is not one of ours: a
// key was retired too early, or somebody wrote to the store. Nothing is done for
// the partner until it is gone.
var ErrStanding = errors.New("the partner's standing in the store is not one of ours")

// StandingName is the name of a partner's standing in the store.
func StandingName(partner string) string {
	sum := sha256.Sum256([]byte(standingNameLabel + partner))
	return textEncoding.EncodeToString(sum[:16])
}

// standing is what an instance knows of a partner.
type standing struct {
	Standing
	ways []policy.Way // what some configuration gave the partner last, in order; none where none was said

	version uint64
	sealed  []byte // as it stands in the store; nil where the store has something else
	invalid bool   // what the store has is not ours, and what is beside is what was known before
}

// The encoding of a standing: version(1), flags(1): 1 disabled; cause(1), generation(8), since(8, Unix ms), then each way.
const standingEncoding = 1

func (s *standing) encode() []byte {
	var flags byte
	if s.Disabled {
		flags |= 1
	}
	b := []byte{standingEncoding, flags, byte(max(slices.Index(standingCauses[:], s.Cause), 0))}
	b = binary.BigEndian.AppendUint64(b, s.Generation)
	since := int64(0)
	if !s.Since.IsZero() {
		since = s.Since.UnixMilli()
	}
	b = binary.BigEndian.AppendUint64(b, uint64(since))
	for i := range s.ways {
		b = append(b, s.ways[i][:]...)
	}
	return b
}

func (s *standing) decode(b []byte) bool {
	const fixed = 3 + 8 + 8
	if len(b) < fixed || b[0] != standingEncoding || b[1]&^1 != 0 || int(b[2]) >= len(standingCauses) || (len(b)-fixed)%len(policy.Way{}) != 0 {
		return false
	}
	s.Disabled, s.Cause = b[1]&1 != 0, standingCauses[b[2]]
	s.Generation = binary.BigEndian.Uint64(b[3:])
	if since := int64(binary.BigEndian.Uint64(b[11:])); since != 0 {
		s.Since = time.UnixMilli(since)
	}
	for b = b[fixed:]; len(b) > 0; b = b[len(policy.Way{}):] {
		s.ways = append(s.ways, policy.Way(b))
	}
	return true
}

// StandingSeals seal standings: keys of use storage, label "standing".
type StandingSeals interface {
	SealRing
	// Current reports whether a value was sealed with the primary key.
	Current(sealed []byte) bool
}

// StandingsConfig configures Standings. All but the store may be left out.
type StandingsConfig struct {
	Store store.Shared

	// Changed is told of each change that is seen, and at first, with twice the
	// same, of each partner that is switched off; and Invalid of what is not
	// ours when it is seen first. They are called by the goroutine that reads,
	// and must not block.
	Changed func(partner string, from, to Standing)
	Invalid func(partner string)

	Now func() time.Time // time.Now by default
}

// Standings know how partners stand, on this instance: within a second of any
// change, as long as the store answers.
//
// All standings are read every 250 ms, with one command; an exchange asks none
// of its own unless what is known has become too old. A standing is kept sealed,
// with partner and version as associated data: whoever writes to the store can
// take one away or put back an older one, but forge none [7]. What is gone, or
// older than what this instance knows, it raises again; so that a change that a
// failover lost comes back, unless no instance had seen it. An instance that was
// started since does not know.
//
// A generation is a number that only grows; the instance's own view of it never
// goes back.
type Standings struct {
	config StandingsConfig
	began  time.Time
	view   atomic.Pointer[standingsView]
	nudged chan struct{}
	epoch  atomic.Uint64 // of what Configure said; changed under mu

	mu       sync.Mutex
	seals    StandingSeals             // guarded by mu, as all that follows
	ids      []string                  // the configured partners
	pending  map[string][][]policy.Way // what configurations gave partners, one after the other, where the store may not know yet
	reseal   map[string]bool           // standings that are to be sealed with the primary key, where they are not
	reading  *standingsReading
	reported map[string]bool // partners whose invalid standing was told of
}

// standingsView is immutable.
type standingsView struct {
	at       time.Time // when its reading began
	epoch    uint64
	partners map[string]*standing // of all that were configured; nil where nothing was said
	raise    []string             // those of whom the store knows less than we do
}

// standingsReading is a reading that is under way.
type standingsReading struct {
	done chan struct{}
	err  error // set before done is closed
}

// NewStandings returns what knows nothing yet. Configure it before it is asked.
func NewStandings(config StandingsConfig) (*Standings, error) {
	if config.Store == nil {
		return nil, errors.New("standings: a store is required")
	}
	if config.Now == nil {
		config.Now = time.Now
	}
	s := &Standings{config: config, nudged: make(chan struct{}, 1), pending: map[string][][]policy.Way{}, reported: map[string]bool{}}
	s.began = config.Now()
	return s, nil
}

// Configure says who the partners are. Where a configuration takes a way to come
// in from a partner that an earlier one had, on whichever instance, the
// partner's generation advances with the next reading: see policy.Narrowed. So
// it does with partners of this instance's last configuration that are gone.
func (s *Standings) Configure(seals StandingSeals, partners []*policy.Partner) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.ids
	s.seals, s.ids, s.reseal = seals, nil, map[string]bool{}
	for _, p := range partners {
		s.ids = append(s.ids, p.ID)
		s.reseal[p.ID] = true
		s.await(p.ID, p.Ways())
	}
	for _, id := range before {
		if !slices.Contains(s.ids, id) {
			s.await(id, nil)
		}
	}
	s.epoch.Add(1)
	select {
	case s.nudged <- struct{}{}:
	default:
	}
}

// await has the store know of ways, after those that it does not know of yet: what was taken away meanwhile counts. The caller
// holds mu.
func (s *Standings) await(id string, ways []policy.Way) {
	waiting := s.pending[id]
	if len(waiting) > 0 && slices.Equal(waiting[len(waiting)-1], ways) {
		return
	}
	if len(waiting) >= standingTries {
		waiting = [][]policy.Way{nil} // among so many, something was
	}
	s.pending[id] = append(slices.Clone(waiting), ways)
}

// Run reads until ctx ends.
func (s *Standings) Run(ctx context.Context) {
	tick := time.NewTicker(standingInterval)
	defer tick.Stop()
	for {
		for range standingTries { // what was raised is known at once
			if s.refresh(ctx) != nil || !s.settle(ctx) {
				break
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-s.nudged:
		}
	}
}

// At returns how a partner stands, as it was known not longer ago than within.
// Where what is known is older, or is of before the partner was configured, it
// reads, until ctx ends. It fails closed: the error is ErrStanding, or one of
// the store's or the context's.
func (s *Standings) At(ctx context.Context, partner string, within time.Duration) (Standing, error) {
	for range 2 { // a reading that was under way may have begun too early
		if v := s.view.Load(); s.suffices(v, partner, within) {
			return v.of(partner)
		}
		if err := s.refresh(ctx); err != nil {
			return Standing{}, fmt.Errorf("standing of a partner: %w", err)
		}
	}
	if v := s.view.Load(); s.suffices(v, partner, within) {
		return v.of(partner)
	}
	return Standing{}, fmt.Errorf("standing of a partner: %w", &store.Unavailable{Store: "standing", Operation: "shared", Reason: store.ReasonTimeout})
}

// suffices reports whether a view tells of a partner, and is new enough.
func (s *Standings) suffices(v *standingsView, partner string, within time.Duration) bool {
	if v == nil || s.config.Now().Sub(v.at) > within {
		return false
	}
	_, covered := v.partners[partner]
	return covered || v.epoch == s.epoch.Load() // nobody's, then
}

func (v *standingsView) of(partner string) (Standing, error) {
	known := v.partners[partner]
	switch {
	case known == nil:
		return Standing{}, nil
	case known.invalid:
		return Standing{}, ErrStanding
	}
	return known.Standing, nil
}

// Known is At for what was asked a moment ago: it reads nothing, and what it
// returns may be old.
func (s *Standings) Known(partner string) (Standing, error) {
	if v := s.view.Load(); v != nil {
		return v.of(partner)
	}
	return Standing{}, nil
}

// Overview is what is known, for metrics.
type Overview struct {
	Age      time.Duration // of what is known; since the beginning where nothing is
	Disabled map[string]bool
	Invalid  int // partners of whom the store has something that is not ours
}

// Overview tells what is known.
func (s *Standings) Overview() Overview {
	o := Overview{Disabled: map[string]bool{}}
	v := s.view.Load()
	if v == nil {
		o.Age = max(s.config.Now().Sub(s.began), 0)
		return o
	}
	o.Age = max(s.config.Now().Sub(v.at), 0)
	for id, known := range v.partners {
		if known == nil {
			continue
		}
		o.Disabled[id] = known.Disabled
		if known.invalid {
			o.Invalid++
		}
	}
	return o
}

// refresh reads all standings, together with whoever else wants to.
func (s *Standings) refresh(ctx context.Context) error {
	s.mu.Lock()
	r := s.reading
	if r == nil {
		r = &standingsReading{done: make(chan struct{})}
		s.reading = r
		go s.read(r) // its own time-out: whoever asked first may go before the others
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Standings) read(r *standingsReading) {
	ctx, cancel := context.WithTimeout(context.Background(), standingTimeout)
	defer cancel()
	for {
		begun := s.config.Now()
		epoch := s.epoch.Load()
		fields, err := s.config.Store.Shared(ctx, storeStanding)
		s.mu.Lock()
		if err == nil && s.epoch.Load() != epoch && ctx.Err() == nil {
			s.mu.Unlock()
			continue
		}
		var tell []func()
		if err == nil {
			var v *standingsView
			v, tell = s.merge(fields)
			v.at = begun
			s.view.Store(v)
		}
		r.err, s.reading = err, nil
		s.mu.Unlock()
		for _, t := range tell {
			t()
		}
		close(r.done)
		return
	}
}

// merge makes a view of what the store has and what is known already. The caller holds mu.
func (s *Standings) merge(fields map[string]store.Versioned) (*standingsView, []func()) {
	old, first := s.view.Load(), false
	if old == nil {
		old, first = &standingsView{}, true
	}
	v := &standingsView{epoch: s.epoch.Load(), partners: make(map[string]*standing, len(s.ids))}
	var tell []func()
	for _, id := range s.ids {
		was := old.partners[id]
		field, there := fields[StandingName(id)]
		now := s.judge(id, was, field, there, old.epoch == s.epoch.Load())
		v.partners[id] = now
		if now == nil {
			continue
		}
		if now.sealed == nil && now.version > 0 && !now.invalid {
			v.raise = append(v.raise, id)
		}
		if now.invalid && !s.reported[id] && s.config.Invalid != nil {
			tell = append(tell, func() { s.config.Invalid(id) })
		}
		s.reported[id] = now.invalid
		from, to := Standing{}, now.Standing
		if was != nil {
			from = was.Standing
		} else if first {
			from = to
		}
		if (first && to.Disabled || from.Disabled != to.Disabled || from.Generation != to.Generation) && s.config.Changed != nil && !now.invalid {
			tell = append(tell, func() { s.config.Changed(id, from, to) })
		}
	}
	return v, tell
}

// judge weighs what the store has of a partner against what is known.
func (s *Standings) judge(id string, was *standing, field store.Versioned, there, sameSeals bool) *standing {
	if was != nil && !was.invalid && there && sameSeals && field.Version == was.version && bytes.Equal(field.Value, was.sealed) {
		return was // as nearly always
	}
	var now standing
	if was != nil {
		now = *was
	}
	now.invalid, now.sealed = false, nil
	if !there {
		if was == nil || was.version == 0 {
			return nil
		}
		return &now
	}
	read, ok := openStanding(s.seals, id, field)
	switch {
	case !ok:
		now.invalid = true
		return &now
	case was == nil || was.version == 0:
		return read
	case read.version < was.version:
		return &now
	}
	// A newer one, or two that were made of the same one while a failover lost either: then both count.
	joined := *read
	joined.Generation = max(read.Generation, was.Generation)
	if read.version == was.version {
		joined.Disabled = read.Disabled || was.Disabled
	}
	if joined.Standing != read.Standing {
		joined.version, joined.sealed = read.version+1, nil
	}
	return &joined
}

func openStanding(seals StandingSeals, id string, field store.Versioned) (*standing, bool) {
	if field.Version == 0 {
		return nil, false
	}
	plain, err := seals.Open(nil, standingData(id, field.Version), field.Value)
	read := &standing{version: field.Version, sealed: field.Value}
	if err != nil || !read.decode(plain) {
		return nil, false
	}
	return read, true
}

func standingData(id string, version uint64) []byte {
	b := append(make([]byte, 0, len(standingLabel)+8+len(id)), standingLabel...)
	return append(binary.BigEndian.AppendUint64(b, version), id...)
}

// raiseTo puts a standing into the store, sealed with the primary key.
func (s *Standings) raiseTo(ctx context.Context, seals StandingSeals, id string, to *standing) error {
	sealed, err := seals.Seal(nil, standingData(id, to.version), to.encode())
	if err != nil {
		return fmt.Errorf("seal standing: %w", err)
	}
	return s.config.Store.Raise(ctx, storeStanding, StandingName(id), store.Versioned{Value: sealed, Version: to.version})
}

// settle raises what the store does not know, and what the configuration
// changes, and reports whether something was raised. What fails is tried again
// after the next reading, and what it meets there is weighed then.
func (s *Standings) settle(ctx context.Context) (raised bool) {
	ctx, cancel := context.WithTimeout(ctx, standingTimeout)
	defer cancel()
	v := s.view.Load()
	s.mu.Lock()
	seals, current, pending := s.seals, s.epoch.Load() == v.epoch, maps.Clone(s.pending)
	s.mu.Unlock()
	if !current {
		return true // the next reading is of what is configured now
	}
	for _, id := range v.raise {
		err := s.raiseTo(ctx, seals, id, v.partners[id])
		if err != nil && !errors.Is(err, store.ErrExists) {
			return false
		}
		raised = true
	}
	for id, ways := range pending {
		left, done := s.declare(ctx, v, id, ways)
		raised = raised || done
		s.mu.Lock()
		if s.epoch.Load() == v.epoch {
			if s.pending[id] = left; len(left) == 0 {
				delete(s.pending, id)
				delete(s.reseal, id)
			}
		}
		s.mu.Unlock()
	}
	return raised
}

// declare has the store know what configurations gave a partner, one after the
// other. What is left is none when a reading shows the last.
func (s *Standings) declare(ctx context.Context, v *standingsView, id string, ways [][]policy.Way) (left [][]policy.Way, raised bool) {
	s.mu.Lock()
	seals, reseal, configured := s.seals, s.reseal[id], slices.Contains(s.ids, id)
	s.mu.Unlock()
	known := v.partners[id]
	if !configured {
		var err error
		if known, err = s.readOne(ctx, seals, id); err != nil {
			return ways, false
		}
	}
	if known == nil {
		known = &standing{}
	}
	if known.invalid || known.version > 0 && known.sealed == nil {
		return ways, false // the store is not where we are
	}
	last := ways[len(ways)-1]
	if len(ways) == 1 && slices.Equal(known.ways, last) && !(reseal && known.version > 0 && !seals.Current(known.sealed)) {
		return nil, false
	}
	next, narrowed := *known, false
	for before := known.ways; len(ways) > 0; before, ways = ways[0], ways[1:] {
		narrowed = narrowed || policy.Narrowed(before, ways[0])
	}
	if narrowed {
		s.advance(&next.Standing, CauseConfiguration)
	}
	next.ways, next.version = last, known.version+1
	if s.raiseTo(ctx, seals, id, &next) != nil {
		return s.waiting(id), false
	}
	return [][]policy.Way{last}, true
}

// waiting is what is pending for a partner.
func (s *Standings) waiting(id string) [][]policy.Way {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending[id]
}

// readOne reads the standing of one partner, the zero one where there is none.
func (s *Standings) readOne(ctx context.Context, seals StandingSeals, id string) (*standing, error) {
	fields, err := s.config.Store.Shared(ctx, storeStanding)
	if err != nil {
		return nil, fmt.Errorf("read standing: %w", err)
	}
	field, there := fields[StandingName(id)]
	if !there {
		return &standing{}, nil
	}
	read, ok := openStanding(seals, id, field)
	if !ok {
		return nil, fmt.Errorf("partner %q: %w", id, ErrStanding)
	}
	return read, nil
}

// advance begins the partner's next generation. It is the time where that is
// higher, so that it is none that was before, even if the store forgot.
func (s *Standings) advance(to *Standing, cause string) {
	now := s.config.Now()
	to.Generation = max(to.Generation+1, uint64(max(now.UnixMilli(), 0)))
	to.Since, to.Cause = time.UnixMilli(now.UnixMilli()), cause
}

// Disable switches a partner off, and ends all that was minted for it. One that
// is off already stays as it is.
func (s *Standings) Disable(ctx context.Context, partner string) (from, to Standing, err error) {
	return s.change(ctx, partner, func(st *Standing) {
		if !st.Disabled {
			st.Disabled = true
			s.advance(st, CauseOperator)
		}
	})
}

// Enable switches a partner on again. What was minted for it before stays dead.
// One that is on already stays as it is. Of a Disable within the same second
// Disable wins, whichever came first: then this is an error.
func (s *Standings) Enable(ctx context.Context, partner string) (from, to Standing, err error) {
	return s.change(ctx, partner, func(st *Standing) {
		if st.Disabled {
			st.Disabled = false
			s.advance(st, CauseOperator)
		}
	})
}

// RevokeTokens ends all that was minted for a partner, which may mint anew.
func (s *Standings) RevokeTokens(ctx context.Context, partner string) (from, to Standing, err error) {
	return s.change(ctx, partner, func(st *Standing) { s.advance(st, CauseOperator) })
}

// All reads the standings of the configured partners, by their ids. One that is
// not ours is ErrStanding, beside those that are.
func (s *Standings) All(ctx context.Context) (map[string]Standing, error) {
	fields, err := s.config.Store.Shared(ctx, storeStanding)
	if err != nil {
		return nil, err
	}
	all, problems := map[string]Standing{}, []error(nil)
	for _, id := range s.ids {
		field, there := fields[StandingName(id)]
		read, ok := openStanding(s.seals, id, field)
		switch {
		case !there:
			all[id] = Standing{}
		case !ok:
			problems = append(problems, fmt.Errorf("partner %q: %w", id, ErrStanding))
		default:
			all[id] = read.Standing
		}
	}
	return all, errors.Join(problems...)
}

// change raises a partner's standing, and looks a second later whether it
// stands: where a failover has lost it, or an instance that knew a higher one
// has put that in its place, it is raised again.
func (s *Standings) change(ctx context.Context, partner string, mutate func(*Standing)) (from, to Standing, err error) {
	s.mu.Lock()
	seals := s.seals
	s.mu.Unlock()
	raised := false
	for try := range standingTries {
		known, err := s.readOne(ctx, seals, partner)
		if err != nil {
			return Standing{}, Standing{}, err
		}
		if try == 0 {
			from = known.Standing
		}
		if raised && known.Generation >= to.Generation && known.Disabled == to.Disabled {
			return from, known.Standing, nil
		}
		next := *known
		next.Generation = max(known.Generation, to.Generation)
		mutate(&next.Standing)
		if raised && known.Disabled && !next.Disabled && known.Generation > to.Generation {
			return from, known.Standing, errors.New("somebody switched the partner off meanwhile")
		}
		if next.Standing == known.Standing {
			return from, known.Standing, nil
		}
		next.version = known.version + 1
		err = s.raiseTo(ctx, seals, partner, &next)
		if errors.Is(err, store.ErrExists) {
			continue
		}
		if err != nil {
			return Standing{}, Standing{}, fmt.Errorf("raise standing: %w", err)
		}
		to, raised = next.Standing, true
		select {
		case <-ctx.Done():
			return Standing{}, Standing{}, ctx.Err()
		case <-time.After(standingConfirm):
		}
	}
	return Standing{}, Standing{}, errors.New("change standing: others change it all the time")
}
