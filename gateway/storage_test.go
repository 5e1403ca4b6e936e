package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"pgregory.net/rapid"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/internal/testredis"
	"github.com/cardstile/cardstile/policy/store"
)

// redisFiles is a store whose server is empty.
func redisFiles(t testing.TB) (*testredis.Server, *store.Redis) {
	t.Helper()
	s := testredis.Start(t)
	r, err := store.NewRedis(store.RedisConfig{Addresses: []string{s.Addr}})
	must(err)
	t.Cleanup(func() { r.Close() })
	return s, r
}

// TestCertificateStorage holds both storages to certmagic's own.
func TestCertificateStorage(t *testing.T) {
	server, redis := redisFiles(t)
	onDisk := t.TempDir()
	for name, s := range map[string]certmagic.Storage{
		"shared, sealed": gateway.NewSealedStorage(gateway.NewSharedStorage(redis, time.Minute), seals("certificate")),
		"disk, sealed":   gateway.NewSealedStorage(&certmagic.FileStorage{Path: onDisk}, seals("certificate")),
	} {
		t.Run(name, func(t *testing.T) {
			model := &certmagic.FileStorage{Path: t.TempDir()}
			rapid.Check(t, func(t *rapid.T) {
				server.Do("FLUSHALL")
				for _, dir := range []string{onDisk, model.Path} {
					must(os.RemoveAll(dir))
					must(os.Mkdir(dir, 0o700))
				}
				compareStorages(t, model, s, onDisk)
			})
		})
	}
}

// compareStorages does the same to both, at random, and compares all that they tell.
func compareStorages(t *rapid.T, model *certmagic.FileStorage, s certmagic.Storage, onDisk string) {
	ctx := t.Context()
	files := []string{"a/b.c", "a/b/c", "a/b/d", "a-b/c", "b/*@x.key", "ab/c", "top"}
	all := append([]string{"a", "a/b", "a-b", "b", "none", "a/none"}, files...) // none is a file and a directory: certmagic never has that
	file, key := rapid.SampledFrom(files), rapid.SampledFrom(all)
	t.Repeat(map[string]func(*rapid.T){
		"store": func(t *rapid.T) {
			k, v := file.Draw(t, "key"), rapid.SliceOf(rapid.Byte()).Draw(t, "value")
			if err := errors.Join(model.Store(ctx, k, v), s.Store(ctx, k, v)); err != nil {
				t.Fatal(err)
			}
		},
		"delete": func(t *rapid.T) {
			k := key.Draw(t, "key")
			if err := errors.Join(model.Delete(ctx, k), s.Delete(ctx, k)); err != nil {
				t.Fatal(err)
			}
			prune(model.Path) // a directory is only what leads to a file, certmagic says, and leaves empty ones behind
			prune(onDisk)
		},
		"": func(t *rapid.T) {
			compareKey(t, model, s, key.Draw(t, "compared"))
		},
	})
	for _, k := range all {
		compareKey(t, model, s, k)
	}
}

func compareKey(t *rapid.T, model, s certmagic.Storage, k string) {
	ctx := t.Context()
	want, wantErr := model.Stat(ctx, k)
	info, err := s.Stat(ctx, k)
	if errors.Is(err, fs.ErrNotExist) != (wantErr != nil) || info.Key != want.Key || info.IsTerminal != want.IsTerminal {
		t.Fatalf("stat %s: %+v, %v, want %+v, %v", k, info, err, want, wantErr)
	}
	if d := info.Modified.Sub(want.Modified).Abs(); want.IsTerminal && d > time.Minute {
		t.Fatalf("%s was modified %v apart", k, d)
	}
	if s.Exists(ctx, k) != model.Exists(ctx, k) {
		t.Fatalf("exists %s: %v", k, !model.Exists(ctx, k))
	}
	v, wantErr := model.Load(ctx, k)
	got, err := s.Load(ctx, k)
	if !bytes.Equal(got, v) || (err == nil) != (wantErr == nil) || errors.Is(wantErr, fs.ErrNotExist) && !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load %s: %q, %v, want %q, %v", k, got, err, v, wantErr)
	}
	for _, recursive := range []bool{false, true} {
		want, wantErr := model.List(ctx, k, recursive)
		got, err := s.List(ctx, k, recursive)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) || errors.Is(err, fs.ErrNotExist) != (wantErr != nil) {
			t.Fatalf("list %s, %v: %q, %v, want %q, %v", k, recursive, got, err, want, wantErr)
		}
	}
}

// prune removes empty directories below another.
func prune(dir string) {
	entries, err := os.ReadDir(dir)
	must(err)
	for _, e := range entries {
		if e.IsDir() {
			below := filepath.Join(dir, e.Name())
			prune(below)
			os.Remove(below) // it is not where it is not empty
		}
	}
}

// TestListIsInOrder: directories come before what is in them, as certmagic's own has it.
func TestListIsInOrder(t *testing.T) {
	_, redis := redisFiles(t)
	model, s := &certmagic.FileStorage{Path: t.TempDir()}, gateway.NewSharedStorage(redis, time.Minute)
	for _, k := range []string{"x/b/c", "x/a", "x/b.c", "x/b-c/d", "y"} {
		must(errors.Join(model.Store(t.Context(), k, nil), s.Store(t.Context(), k, nil)))
	}
	for _, prefix := range []string{"x", ""} {
		want, err := model.List(t.Context(), prefix, true)
		must(err)
		if got, err := s.List(t.Context(), prefix, true); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %q, %v, want %q", prefix, got, err, want)
		}
	}
}

// TestSealedStorage: a value opens at its name alone, as it was.
func TestSealedStorage(t *testing.T) {
	server, redis := redisFiles(t)
	inner := gateway.NewSharedStorage(redis, time.Minute)
	s := gateway.NewSealedStorage(inner, seals("certificate"))
	const secret = "-----BEGIN PRIVATE KEY----- of the tests"
	must(s.Store(t.Context(), "certificates/one.key", []byte(secret)))
	if v, err := s.Load(t.Context(), "certificates/one.key"); err != nil || string(v) != secret {
		t.Errorf("it comes back as %q, %v", v, err)
	}
	sealed, err := inner.Load(t.Context(), "certificates/one.key")
	must(err)
	for key, value := range map[string][]byte{
		"certificates/two.key":   sealed,
		"certificates/short.key": sealed[:10],
		"certificates/empty.key": nil,
		"certificates/clear.key": []byte(secret),
	} {
		must(inner.Store(t.Context(), key, value))
		if v, err := s.Load(t.Context(), key); err == nil || errors.Is(err, fs.ErrNotExist) || v != nil {
			t.Errorf("%s: %q, %v", key, v, err)
		}
		must(inner.Delete(t.Context(), key))
	}
	for i := range sealed {
		changed := bytes.Clone(sealed)
		changed[i] ^= 1
		must(inner.Store(t.Context(), "certificates/one.key", changed))
		if _, err := s.Load(t.Context(), "certificates/one.key"); err == nil {
			t.Fatalf("byte %d does not matter", i)
		}
	}
	for key, value := range server.Dump() {
		if strings.Contains(value, "PRIVATE") {
			t.Errorf("%s can be read", key)
		}
	}
}

// countedFiles counts how often a lock is taken or renewed.
type countedFiles struct {
	store.Files
	holds atomic.Int64
}

func (f *countedFiles) Hold(ctx context.Context, name string, h store.Holder, lease time.Duration) error {
	err := f.Files.Hold(ctx, name, h, lease)
	f.holds.Add(1)
	return err
}

// TestSharedLock: one has it at a time, for as long as it lives, and no longer.
func TestSharedLock(t *testing.T) {
	server, redis := redisFiles(t)
	counted := &countedFiles{Files: redis}
	one, other := gateway.NewSharedStorage(counted, time.Second), gateway.NewSharedStorage(redis, time.Second)
	must(one.Lock(t.Context(), "a"))
	must(other.Lock(t.Context(), "b"))
	must(other.Unlock(t.Context(), "b"))

	// It is renewed, so that it outlives its lease.
	eventually(t, "it is renewed", func() bool {
		if err := redis.Hold(t.Context(), "a", store.Holder{1}, time.Second); err != store.ErrExists {
			t.Fatalf("another has it: %v", err)
		}
		return counted.holds.Load() >= 5
	})
	// Nobody waits for longer than they want to, in one instance or another.
	for _, s := range []certmagic.Storage{one, other} {
		waiting, cancel := context.WithCancel(t.Context())
		got := make(chan error, 1)
		go func() { got <- s.Lock(waiting, "a") }()
		cancel()
		if err := <-got; !errors.Is(err, context.Canceled) {
			t.Errorf("waited in vain: %v", err)
		}
	}
	// Who waits gets it when it is given back.
	got := make(chan error, 1)
	go func() { got <- other.Lock(t.Context(), "a") }()
	must(one.Unlock(t.Context(), "a"))
	must(<-got)
	if err := one.Unlock(t.Context(), "a"); err == nil {
		t.Error("given back twice")
	}
	must(other.Unlock(t.Context(), "a"))
	if locks := server.Do("KEYS", "*:lock:*").([]any); len(locks) != 0 {
		t.Errorf("left behind: %v", locks)
	}

	// Of one that died nobody renews it.
	must(redis.Hold(t.Context(), "c", store.Holder{1}, 50*time.Millisecond))
	must(one.Lock(t.Context(), "c"))
	// One that lost it finds out, and takes nothing from who has it now.
	server.Do("SET", "cardstile:lock:{files}:c", "somebody else")
	must(one.Unlock(t.Context(), "c"))
	if held := server.Do("GET", "cardstile:lock:{files}:c"); held != "somebody else" {
		t.Errorf("%v has it", held)
	}
}
