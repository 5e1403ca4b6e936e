package store_test

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// TestFiles holds a tree of files in Redis to a map of them.
func TestFiles(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	paths := []string{"a", "ab", "a/b", "a/bc", "a/b/c", "b/a*", "b/[a-z]%", "b"}
	rapid.Check(t, func(t *rapid.T) {
		model := map[string][]byte{}
		s.Do("FLUSHALL")
		path := rapid.SampledFrom(paths)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				p, v := path.Draw(t, "path"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
				before := time.Now().Truncate(time.Millisecond)
				if err := r.PutFile(t.Context(), p, v); err != nil {
					t.Fatal(err)
				}
				if f, err := r.GetFile(t.Context(), p); err != nil || f.Modified.Before(before) || f.Modified.After(time.Now()) {
					t.Fatalf("put at %v, not before %v: %v", f.Modified, before, err)
				}
				model[p] = v
			},
			"remove": func(t *rapid.T) {
				p := path.Draw(t, "path")
				if err := r.RemoveFiles(t.Context(), p); err != nil {
					t.Fatal(err)
				}
				maps.DeleteFunc(model, func(q string, _ []byte) bool { return q == p || strings.HasPrefix(q, p+"/") })
			},
			"": func(t *rapid.T) {
				listed, err := r.ListFiles(t.Context())
				if want := slices.Sorted(maps.Keys(model)); err != nil || !slices.Equal(slices.Sorted(slices.Values(listed)), want) {
					t.Fatalf("%q, %v, want %q", listed, err, want)
				}
				for _, p := range paths {
					f, err := r.GetFile(t.Context(), p)
					if v, ok := model[p]; !ok && err != store.ErrUnknown || ok && (err != nil || !bytes.Equal(f.Value, v)) {
						t.Fatalf("%s: %q, %v, want %q", p, f.Value, err, v)
					}
				}
			},
		})
	})
}

func TestFilesRefuses(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	long := strings.Repeat("x", store.MaxFilePathBytes+1)
	for _, p := range []string{"", "/a", "a/", "a//b", "./a", "a/..", "..", long} {
		_, err := r.GetFile(t.Context(), p)
		for what, err := range map[string]error{"get": err, "put": r.PutFile(t.Context(), p, nil), "remove": r.RemoveFiles(t.Context(), p)} {
			if !errors.Is(err, store.ErrInvalid) {
				t.Errorf("%s %.20q: %v", what, p, err)
			}
		}
	}
	must(t, r.PutFile(t.Context(), "most", make([]byte, store.MaxFileBytes)))
	for what, err := range map[string]error{
		"a value too long": r.PutFile(t.Context(), "more", make([]byte, store.MaxFileBytes+1)),
		"no name":          r.Hold(t.Context(), "", store.Holder{1}, time.Second),
		"no lease":         r.Hold(t.Context(), "a", store.Holder{1}, 0),
		"a name too long":  r.Release(t.Context(), long, store.Holder{1}),
	} {
		if !errors.Is(err, store.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s.Do("HSET", "cardstile:files:{files}", "strange", "not ours")
	if _, err := r.GetFile(t.Context(), "strange"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("something strange: %v", err)
	}
}

// TestLock: one holder has it, for as long as it says so, and nobody else can give it back. Its end comes by itself.
func TestLock(t *testing.T) {
	s := testredis.Start(t)
	r := newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}})
	one, other := store.Holder{1}, store.Holder{2}
	want := func(what string, err, want error) {
		t.Helper()
		if err != want {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	want("taken", r.Hold(t.Context(), "a", one, time.Hour), nil)
	want("taken again, by the same", r.Hold(t.Context(), "a", one, 2*time.Hour), nil)
	if left := s.Do("PTTL", "cardstile:lock:{files}:a").(int64); left < time.Hour.Milliseconds() {
		t.Errorf("%d ms are left", left)
	}
	want("by another", r.Hold(t.Context(), "a", other, time.Hour), store.ErrExists)
	want("another lock", r.Hold(t.Context(), "b", other, time.Hour), nil)
	want("given back by another", r.Release(t.Context(), "a", other), store.ErrUnknown)
	want("still held", r.Hold(t.Context(), "a", other, time.Hour), store.ErrExists)
	want("given back", r.Release(t.Context(), "a", one), nil)
	want("given back twice", r.Release(t.Context(), "a", one), store.ErrUnknown)
	want("free", r.Hold(t.Context(), "a", other, 20*time.Millisecond), nil)
	for r.Hold(t.Context(), "a", one, time.Hour) == store.ErrExists { // until the lease has ended
		time.Sleep(time.Millisecond)
	}
	want("its holder has lost it", r.Release(t.Context(), "a", other), store.ErrUnknown)
}

// TestFilesRights: without these two a user can do everything but keep certificates.
func TestFilesRights(t *testing.T) {
	rules := store.AccessRules("")
	s := testredis.StartWith(t, testredis.Options{Users: []string{"enough on >pw " + rules, "old on >pw " + rules + " -hkeys -hdel"}})
	as := func(user string) *store.Redis {
		return newRedis(t, store.RedisConfig{Addresses: []string{s.Addr}, Username: user, PasswordFile: passwordFile(t, "pw")})
	}
	enough, old := as("enough"), as("old")
	must(t, enough.PutFile(t.Context(), "a/b", []byte("v")))
	must(t, enough.Hold(t.Context(), "a", store.Holder{1}, time.Hour))
	must(t, enough.Release(t.Context(), "a", store.Holder{1}))
	wantReason(t, "remove", old.RemoveFiles(t.Context(), "a"), store.ReasonPermission)
	_, err := old.ListFiles(t.Context())
	wantReason(t, "list", err, store.ReasonPermission)
	must(t, old.Ready(t.Context()))
	must(t, enough.RemoveFiles(t.Context(), "a"))
	if paths, err := enough.ListFiles(t.Context()); err != nil || len(paths) != 0 {
		t.Errorf("%q, %v", paths, err)
	}
}
