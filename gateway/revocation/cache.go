package revocation

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/internal/durable"
)

// This file keeps lists from URLs on disk, for the next start: the last good one of each URL and CA, as it was signed. What a server
// calls its version is not kept, since nobody signed that, so that the first fetch of a process brings the list itself.

const (
	cacheLock  = "lock"          // of those who write into the directory: other listeners, other processes
	cacheGrace = 2 * time.Second // in which what was fetched last can still be written when a Checker ends
)

// Results of reads and writes of the cache, as labels: a closed set.
const (
	cacheRead    = "read"    // and put in force
	cacheIgnored = "ignored" // no list to go by
	cacheWritten = "written"
	cacheNewer   = "newer" // what is there already, of another's fetch
	cacheFailed  = "failed"
)

var cacheResults = []string{cacheRead, cacheIgnored, cacheWritten, cacheNewer, cacheFailed}

var errTooLarge = fmt.Errorf("it is longer than %d bytes", MaxListBytes)

// caching is what the log has been told of a directory. Checkers that follow each other share it.
type caching struct {
	ignored map[string]bool // files; of Adopt
	failing atomic.Bool
}

// cacheFile names the file of a URL's list of a CA. Both are digests: a URL may have a secret in it, and one URL lists of several CAs.
func (c *Checker) cacheFile(from *url.URL, ca *x509.Certificate) string {
	at, of := sha256.Sum256([]byte(from.String())), issuerID(ca)
	return filepath.Join(c.config.Cache, fmt.Sprintf("%x-%x.crl", at[:16], of[:16]))
}

// recall puts lists in force that were kept of URLs of which nothing is known: each is verified as one that is fetched, and one that
// has ended counts too, for it revokes, and nothing older comes in its place.
func (c *Checker) recall() {
	for _, s := range c.lists {
		if c.config.Cache == "" || s.url == nil || s.list.Load() != nil {
			continue
		}
		var found []*list
		for name, ca := range c.cacheFiles(s.url) {
			l, err := readCached(name, ca)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				c.ignore(s, name, err)
				continue
			}
			c.countCache(s, cacheRead)
			found = append(found, l)
		}
		if len(found) > 0 {
			c.reinstate(s, found)
		}
	}
}

// cacheFiles are the files of a URL, with whose list each is, in the order of the configuration.
func (c *Checker) cacheFiles(from *url.URL) iter.Seq2[string, *x509.Certificate] {
	return func(yield func(string, *x509.Certificate) bool) {
		known := map[string]bool{}
		for _, ca := range c.authorities() {
			name := c.cacheFile(from, ca)
			if !known[name] && !yield(name, ca) {
				return
			}
			known[name] = true
		}
	}
}

// reinstate puts lists in force that a URL's server gave before, the one that was made last in front.
func (c *Checker) reinstate(s *slot, found []*list) {
	now := c.services.Now()
	slices.SortStableFunc(found, func(a, b *list) int { return b.parsed.ThisUpdate.Compare(a.parsed.ThisUpdate) })
	l := &inForce{found[0], found[1:]}
	s.list.Store(l)
	s.cached.Store(l)
	current := !slices.ContainsFunc(found, func(l *list) bool { return !l.current(now) })
	if current {
		s.tried.Store(true)
	}
	c.services.Log.Info("a revocation list was kept from before: it is in force", zap.String("listener", c.config.Listener), zap.Int("list", s.index),
		zap.Time("next_update", l.parsed.NextUpdate), zap.Bool("current", current))
	c.move()
}

// ignore has the log say once that a file is no list to go by. The next list that is fetched takes its place.
func (c *Checker) ignore(s *slot, name string, err error) {
	c.countCache(s, cacheIgnored)
	if c.caching.ignored[name] {
		return
	}
	c.caching.ignored[name] = true
	c.services.Log.Warn("a revocation list that was kept is ignored", zap.String("listener", c.config.Listener), zap.Int("list", s.index),
		zap.String("file", name), zap.String("cause", causeOf(err)))
}

// readCached reads and verifies a CA's list.
func readCached(name string, ca *x509.Certificate) (*list, error) {
	content, err := readBounded(name)
	if err != nil {
		return nil, err
	}
	l, failed := verified(content, []*x509.Certificate{ca})
	if failed != "" {
		return nil, fmt.Errorf("as a fetched one it would be %s", failed)
	}
	return l, nil
}

func readBounded(name string) ([]byte, error) {
	if info, err := os.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() { // to open a pipe may take for ever
		return nil, errors.New("it is no file")
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxListBytes+1))
	if err == nil && len(content) > MaxListBytes {
		err = errTooLarge
	}
	return content, err
}

// causeOf is what went wrong with a file, without its name: those of files that wait are drawn by lot.
func causeOf(err error) string {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Op + ": " + path.Err.Error()
	case errors.As(err, &link):
		return link.Op + ": " + link.Err.Error()
	}
	return err.Error()
}

// save keeps lists that were fetched, until fetched is closed, and then once more. The disk may be slow: nobody waits for it.
func (c *Checker) save(fetched <-chan struct{}) {
	for {
		c.saveAll()
		select {
		case <-c.unsaved:
		case <-fetched:
			c.saveAll()
			return
		}
	}
}

// saveAll writes what is in force and was not written, and has the log say once that it cannot, and once that it can again.
func (c *Checker) saveAll() {
	tried := false
	var failed error
	for _, s := range c.lists {
		if l := s.list.Load(); s.url == nil || l == nil || s.cached.Load() == l {
			continue
		}
		tried = true
		failed = errors.Join(failed, c.saveSlot(s))
	}
	if !tried || c.caching.failing.Swap(failed != nil) == (failed != nil) {
		return
	}
	at := []zap.Field{zap.String("listener", c.config.Listener), zap.String("cache", c.config.Cache)}
	if failed != nil {
		c.services.Log.Warn("revocation lists cannot be kept for the next start: they are in force all the same", append(at, zap.String("cause", causeOf(failed)))...)
		return
	}
	c.services.Log.Info("revocation lists are kept again", at...)
}

func (c *Checker) saveSlot(s *slot) error {
	l := s.list.Load()
	for each := range l.all() {
		result, err := c.saveList(s.url, each)
		if result != "" {
			c.countCache(s, result)
		}
		if err != nil {
			return err
		}
	}
	s.cached.Store(l)
	return nil
}

// saveList writes a list, unless there is a newer one: the rule is that of a fetch, so that what is kept is what would be in force.
func (c *Checker) saveList(from *url.URL, l *list) (result string, err error) {
	i := slices.IndexFunc(c.authorities(), l.signedBy)
	if i < 0 {
		return "", nil // a reload took its CA away
	}
	ca := c.authorities()[i]
	if err := os.MkdirAll(c.config.Cache, 0o700); err != nil {
		return cacheFailed, err
	}
	unlock, err := durable.Lock(filepath.Join(c.config.Cache, cacheLock), false)
	if err != nil {
		return cacheFailed, err
	}
	defer unlock()
	name := c.cacheFile(from, ca)
	if content, err := readBounded(name); err == nil {
		if bytes.Equal(content, l.parsed.Raw) {
			return "", nil
		}
		if held, failed := verified(content, []*x509.Certificate{ca}); failed == "" && l.worse(held, c.services.Now()) != "" {
			return cacheNewer, nil
		}
	}
	if err := errors.Join(durable.Sweep(c.config.Cache), durable.Replace(name, l.parsed.Raw, 0o600)); err != nil {
		return cacheFailed, err
	}
	return cacheWritten, nil
}

// unsave has lists written that are not yet.
func (c *Checker) unsave() {
	select {
	case c.unsaved <- struct{}{}:
	default:
	}
}

func (c *Checker) countCache(s *slot, result string) {
	c.services.Metrics.cache.WithLabelValues(c.config.Listener, listLabel(s.index), result).Inc()
}
