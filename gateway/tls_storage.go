package gateway

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// This file is where certificates are kept: on disk, or in the store that instances share.

// errSealedStorage is the error of a value that does not open. It is not that of one which is not there: for that, another
// certificate would be ordered and put in its place, by each instance in turn whose key is the wrong one.
var errSealedStorage = errors.New("does not open with the keys of use storage: it was sealed with another one, moved or changed")

// sealedStorage seals all that is kept under keys of use storage, with its name as associated data: private keys, so that they
// cannot be read [24], and the rest, so that whoever can write to the storage can delete and bring back what was, but not have
// this gateway answer another's challenge or serve another's certificate. Names and sizes are not hidden, locks not sealed.
type sealedStorage struct {
	certmagic.Storage
	seals atomic.Pointer[credential.StandingSeals]
}

func newSealedStorage(inner certmagic.Storage, seals credential.StandingSeals) *sealedStorage {
	s := &sealedStorage{Storage: inner}
	s.seals.Store(&seals)
	return s
}

// Store implements certmagic.Storage.
func (s *sealedStorage) Store(ctx context.Context, key string, value []byte) error {
	sealed, err := (*s.seals.Load()).Seal(nil, []byte(key), value)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	return s.Storage.Store(ctx, key, sealed)
}

// Load implements certmagic.Storage.
func (s *sealedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	sealed, err := s.Storage.Load(ctx, key)
	if err != nil {
		return nil, err
	}
	seals := *s.seals.Load()
	value, err := seals.Open(nil, []byte(key), sealed)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, errSealedStorage)
	}
	if !seals.Current(sealed) && lasting(key) {
		return value, s.Store(ctx, key, value)
	}
	return value, nil
}

// lasting reports whether a value is written once: keys of accounts and of the development CA. They are sealed anew when the
// primary key is another; all else is, when it is written the next time.
func lasting(key string) bool {
	return strings.HasSuffix(key, ".key") && !strings.HasPrefix(key, "certificates/")
}

// Stat implements certmagic.Storage. It does not tell the size.
func (s *sealedStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	info, err := s.Storage.Stat(ctx, key)
	info.Size = 0
	return info, err
}

// lockLease is how long a lock outlives an instance that dies. It is renewed three times in that time.
const lockLease = 9 * time.Second

// sharedStorage is certmagic's storage on store.Files.
type sharedStorage struct {
	files store.Files
	lease time.Duration
	log   *zap.Logger

	mu   sync.Mutex
	held map[string]*heldLock
}

// heldLock is a lock that we have.
type heldLock struct {
	holder store.Holder
	stop   context.CancelFunc
	done   chan struct{} // closed when it is renewed no more
}

func newSharedStorage(files store.Files, log *zap.Logger) *sharedStorage {
	return &sharedStorage{files: files, lease: lockLease, log: log, held: map[string]*heldLock{}}
}

// Store implements certmagic.Storage.
func (s *sharedStorage) Store(ctx context.Context, key string, value []byte) error {
	return s.files.PutFile(ctx, key, value)
}

// Load implements certmagic.Storage.
func (s *sharedStorage) Load(ctx context.Context, key string) ([]byte, error) {
	f, err := s.files.GetFile(ctx, key)
	return f.Value, notExist(key, err)
}

// notExist is an error as certmagic knows it.
func notExist(key string, err error) error {
	if errors.Is(err, store.ErrUnknown) {
		return &fs.PathError{Op: "load", Path: key, Err: fs.ErrNotExist}
	}
	return err
}

// Delete implements certmagic.Storage.
func (s *sharedStorage) Delete(ctx context.Context, key string) error {
	return s.files.RemoveFiles(ctx, key)
}

// Exists implements certmagic.Storage.
func (s *sharedStorage) Exists(ctx context.Context, key string) bool {
	_, err := s.Stat(ctx, key)
	return err == nil
}

// List implements certmagic.Storage: what is below, files and directories, each directory before what is in it.
func (s *sharedStorage) List(ctx context.Context, prefix string, recursive bool) ([]string, error) {
	all, err := s.files.ListFiles(ctx)
	if err != nil {
		return nil, err
	}
	var found []string
	known := slices.Contains(all, prefix) // a file has nothing below
	for _, file := range all {
		below, ok := strings.CutPrefix(file, prefix+"/")
		if prefix == "" {
			below, ok = file, true
		}
		if !ok {
			continue
		}
		known = true
		for end, c := range below + "/" {
			if c == '/' {
				found = append(found, strings.TrimPrefix(prefix+"/"+below[:end], "/"))
				if !recursive {
					break
				}
			}
		}
	}
	if !known {
		return nil, &fs.PathError{Op: "list", Path: prefix, Err: fs.ErrNotExist}
	}
	slices.SortFunc(found, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	return slices.Compact(found), nil
}

// Stat implements certmagic.Storage.
func (s *sharedStorage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	f, err := s.files.GetFile(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: f.Modified, Size: int64(len(f.Value)), IsTerminal: true}, nil
	}
	if !errors.Is(err, store.ErrUnknown) {
		return certmagic.KeyInfo{}, err
	}
	if _, err := s.List(ctx, key, false); err != nil {
		return certmagic.KeyInfo{}, err
	}
	return certmagic.KeyInfo{Key: key}, nil
}

// Lock implements certmagic.Locker. It waits for as long as another has the lock; that of an instance that died ends by itself.
func (s *sharedStorage) Lock(ctx context.Context, name string) error {
	h := &heldLock{done: make(chan struct{})}
	rand.Read(h.holder[:]) // it never fails
	for {
		err := s.files.Hold(ctx, name, h.holder, s.lease)
		if err == nil {
			break
		}
		if !errors.Is(err, store.ErrExists) {
			return err
		}
		select {
		case <-time.After(s.lease / 24):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	var renewing context.Context
	renewing, h.stop = context.WithCancel(context.Background()) // the lock is held until Unlock, whatever becomes of ctx
	s.mu.Lock()
	s.held[name] = h
	s.mu.Unlock()
	go s.renew(renewing, name, h)
	return nil
}

// renew holds a lock until it is told to stop, or another has it: then two do one thing twice, and the last one's result stays.
func (s *sharedStorage) renew(ctx context.Context, name string, h *heldLock) {
	defer close(h.done)
	tick := time.NewTicker(s.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := s.files.Hold(ctx, name, h.holder, s.lease)
		if errors.Is(err, store.ErrExists) {
			s.log.Warn("a lock on certificates was lost: another instance has it", zap.String("lock", name))
			return
		}
	}
}

// Unlock implements certmagic.Locker.
func (s *sharedStorage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	h := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if h == nil {
		return fmt.Errorf("lock %s is not held", name)
	}
	h.stop()
	<-h.done
	if err := s.files.Release(ctx, name, h.holder); err != nil && !errors.Is(err, store.ErrUnknown) {
		return err
	}
	return nil
}
