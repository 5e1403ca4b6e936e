package store_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

const kindStanding store.Kind = "standing"

func wantShared(t interface {
	Helper()
	Fatalf(string, ...any)
}, got, want map[string]store.Versioned) {
	t.Helper()
	if !maps.EqualFunc(got, want, func(a, b store.Versioned) bool { return a.Version == b.Version && bytes.Equal(a.Value, b.Value) }) {
		t.Fatalf("shared values %v, want %v", got, want)
	}
}

// TestSharedIsTheHighestOfEach: values are raised in any order, and what is there is the highest version of each name.
func TestSharedIsTheHighestOfEach(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		run := 0
		rapid.Check(t, func(t *rapid.T) {
			run++
			kinds := []store.Kind{store.Kind(fmt.Sprintf("a%d", run)), store.Kind(fmt.Sprintf("b%d", run))}
			model := map[store.Kind]map[string]store.Versioned{kinds[0]: {}, kinds[1]: {}}
			t.Repeat(map[string]func(*rapid.T){
				"raise": func(t *rapid.T) {
					kind, name := rapid.SampledFrom(kinds).Draw(t, "kind"), rapid.SampledFrom([]string{"p", "q", "P", "{p}"}).Draw(t, "name")
					v := store.Versioned{
						Value:   rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value"),
						Version: rapid.OneOf(rapid.Uint64Range(1, 12), rapid.Uint64Range(store.MaxVersion-3, store.MaxVersion)).Draw(t, "version"),
					}
					var want error
					if old, ok := model[kind][name]; ok && old.Version >= v.Version {
						want = store.ErrExists
					}
					given := store.Versioned{Value: bytes.Clone(v.Value), Version: v.Version}
					if err := s.Raise(t.Context(), kind, name, given); !errors.Is(err, want) || want == nil && err != nil {
						t.Fatalf("raise %s to %d: %v, want %v", name, v.Version, err, want)
					}
					clear(given.Value) // the store has kept nothing of it
					if want == nil {
						model[kind][name] = v
					}
				},
				"": func(t *rapid.T) {
					for _, kind := range kinds {
						got, err := s.Shared(t.Context(), kind)
						if err != nil {
							t.Fatal(err)
						}
						wantShared(t, got, model[kind])
						for _, v := range got {
							clear(v.Value) // the caller's own
						}
					}
				},
			})
		})
	})
}

// TestOneRaiseOfAVersionWins: of many at once.
func TestOneRaiseOfAVersionWins(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		const callers = 16
		won := make([]bool, callers)
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				err := s.Raise(t.Context(), kindStanding, "p", store.Versioned{Value: []byte{byte(i)}, Version: 7})
				won[i] = err == nil
				if err != nil && !errors.Is(err, store.ErrExists) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		winner := slices.Index(won, true)
		if winner < 0 || slices.Contains(won[winner+1:], true) {
			t.Fatalf("raised by %v", won)
		}
		got, err := s.Shared(t.Context(), kindStanding)
		must(t, err)
		wantShared(t, got, map[string]store.Versioned{"p": {Value: []byte{byte(winner)}, Version: 7}})
	})
}

func TestRaiseRefusesWhatIsNoValue(t *testing.T) {
	onEach(t, func(t *testing.T, s subject) {
		good := store.Versioned{Version: 1}
		for what, err := range map[string]error{
			"no kind":    s.Raise(t.Context(), "", "p", good),
			"no name":    s.Raise(t.Context(), kindStanding, "", good),
			"long name":  s.Raise(t.Context(), kindStanding, strings.Repeat("p", store.MaxSharedNameBytes+1), good),
			"space":      s.Raise(t.Context(), kindStanding, "a b", good),
			"version 0":  s.Raise(t.Context(), kindStanding, "p", store.Versioned{}),
			"beyond":     s.Raise(t.Context(), kindStanding, "p", store.Versioned{Version: store.MaxVersion + 1}),
			"long value": s.Raise(t.Context(), kindStanding, "p", store.Versioned{Value: make([]byte, store.MaxSharedBytes+1), Version: 1}),
		} {
			wantError(t, what, err, store.ErrInvalid)
		}
		_, err := s.Shared(t.Context(), "")
		wantError(t, "no kind", err, store.ErrInvalid)
		must(t, s.Raise(t.Context(), kindStanding, strings.Repeat("p", store.MaxSharedNameBytes), store.Versioned{
			Value: make([]byte, store.MaxSharedBytes), Version: 1,
		}))
	})
}

// TestMemorySharesNotWithoutEnd: beyond its bound nothing is added, and what is there can still be raised.
func TestMemorySharesNotWithoutEnd(t *testing.T) {
	s := memorySubject(t)
	for i := range 1 << 16 {
		must(t, s.Raise(t.Context(), kindStanding, fmt.Sprint("p", i), store.Versioned{Version: 1}))
	}
	wantError(t, "one more", s.Raise(t.Context(), "other", "p", store.Versioned{Version: 1}), store.ErrFull)
	must(t, s.Raise(t.Context(), kindStanding, "p0", store.Versioned{Version: 2}))
}

// TestRedisSharedValues: they do not end, are raised in a server without memory, and what somebody else wrote is version 0
// and makes room.
func TestRedisSharedValues(t *testing.T) {
	server := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{server.Addr}})
	const key = "cardstile:shared:{standing}"
	must(t, r.Raise(t.Context(), kindStanding, "p", store.Versioned{Value: []byte("v"), Version: 12}))
	if got, ttl := server.Do("HGET", key, "p"), server.Do("PTTL", key); got != "0000000000000012v" || ttl != int64(-1) {
		t.Errorf("%v, with a time of %v", got, ttl)
	}
	foreign := []string{"", "v", "000000000000001", "000000000000000xv", "+000000000000013v", "0000000000000000v", "9999999999999999v"}
	for i, field := range foreign {
		server.Do("HSET", key, fmt.Sprint("foreign", i), field)
	}
	server.Do("CONFIG", "SET", "maxmemory", "1")
	got, err := r.Shared(t.Context(), kindStanding)
	must(t, err)
	for i, field := range foreign {
		name := fmt.Sprint("foreign", i)
		if v := got[name]; v.Version != 0 || string(v.Value) != field {
			t.Errorf("%q is %v", field, v)
		}
		if err := r.Raise(t.Context(), kindStanding, name, store.Versioned{Version: 1}); err != nil {
			t.Errorf("in place of %q: %v", field, err)
		}
	}
}
