package revocation_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cardstile/cardstile/gateway/revocation"
	"github.com/cardstile/cardstile/internal/durable"
)

const cached = "cardstile_revocation_cache_total"

// keeping is byURL with a cache, and one fetch an hour.
func keeping(ca *authority, s *shelf, dir string) revocation.Config {
	c := byURL(ca, s)
	c.Cache, c.Refresh = dir, time.Hour
	return c
}

// kept are the lists in a directory, by name.
func kept(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.crl"))
	must(err)
	all := map[string][]byte{}
	for _, name := range names {
		all[filepath.Base(name)], err = os.ReadFile(name)
		must(err)
	}
	return all
}

// theOne is the name and content of the only list in a directory.
func theOne(t *testing.T, dir string) (name string, content []byte) {
	t.Helper()
	all := kept(t, dir)
	if len(all) != 1 {
		t.Fatalf("%d lists, want one", len(all))
	}
	for name, content = range all {
		break
	}
	return filepath.Join(dir, name), content
}

// fill runs a Checker until what its server has is in its cache.
func fill(t *testing.T, c revocation.Config) {
	t.Helper()
	b := newBench(t, c)
	b.run()
	eventually(t, "a list on disk", func() bool { return b.count(cached, "partners", "0", "written") == 1 })
	b.ends()
	b.ends = nil
}

// TestListsOutliveAStart: what was fetched is in force when the next process starts, while the CA's server is gone.
func TestListsOutliveAStart(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one, two := ca.client(), ca.client()
	list := ca.list(7, []*x509.Certificate{one[0]})
	for name, served := range map[string][]byte{"DER": list, "PEM": pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: list})} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "above", "cache")
			s := newShelf(t, served)
			c := keeping(ca, s, dir)
			fill(t, c)
			s.Close()
			file, content := theOne(t, dir)
			if !bytes.Equal(content, list) {
				t.Error("it is not as the CA signed it")
			}
			for name, want := range map[string]os.FileMode{file: 0o600, dir: 0o700 | os.ModeDir} {
				if info, err := os.Stat(name); err != nil || info.Mode() != want {
					t.Errorf("%s: %v, %v, want %v", name, err, info.Mode(), want)
				}
			}
			if strings.Contains(file, "secret") || strings.Contains(file, "127.0.0.1") {
				t.Errorf("%s: it has the URL", file)
			}
			b := newBench(t, c)
			if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
				t.Errorf("revoked: %v", err)
			}
			if err := b.judge(two); err != nil {
				t.Errorf("not revoked: %v", err)
			}
			if b.checker.Waiting() {
				t.Error("it waits for its list")
			}
			b.run()
			eventually(t, "a fetch that failed", func() bool { return b.count(fetches, "unreachable") > 0 })
			if err := b.judge(two); err != nil || b.said("the last one stays in force") != 1 {
				t.Errorf("not revoked, after a fetch that failed: %v", err)
			}
			if b.count(cached, "read") != 1 || b.count(cached) != 1 || b.said("kept from before") != 1 {
				t.Errorf("%v reads and writes, %d lines", b.count(cached), b.said("kept from before"))
			}
			for _, entry := range b.logs.All() {
				for _, f := range entry.Context {
					if strings.Contains(f.String, "secret") || strings.Contains(f.String, "127.0.0.1") {
						t.Errorf("the log has the URL: %v", entry)
					}
				}
			}
		})
	}
}

// TestEndedListOutlivesAStart: it makes nobody current, and what it revokes is revoked.
func TestEndedListOutlivesAStart(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one, two := ca.client(), ca.client()
	for _, soft := range []bool{false, true} {
		c := keeping(ca, newShelf(t, ca.list(7, []*x509.Certificate{one[0]}, from(-2*time.Hour, -time.Hour))), t.TempDir())
		c.Soft = soft
		fill(t, c)
		b := newBench(t, c)
		if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("soft %v: revoked: %v", soft, err)
		}
		if err := b.judge(two); soft != (err == nil) || !soft && !errors.Is(err, revocation.ErrUnknown) {
			t.Errorf("soft %v: not revoked: %v", soft, err)
		}
		if b.checker.Waiting() == soft {
			t.Errorf("soft %v: it waits: %v", soft, !soft)
		}
	}
}

// TestReplayAfterAStart: a list that is older than the one of the process before is refused as it was then.
func TestReplayAfterAStart(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one := ca.client()
	for _, test := range []struct {
		name, result string
		replayed     []byte
		end          time.Duration // of the list that is kept
	}{
		{"older", "rollback", ca.list(6, nil), time.Hour},
		{"older, and both have ended", "ended", ca.list(6, nil, from(-3*time.Hour, -time.Hour)), -time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newShelf(t, ca.list(7, []*x509.Certificate{one[0]}, from(-2*time.Hour, test.end)))
			c := keeping(ca, s, t.TempDir())
			fill(t, c)
			_, before := theOne(t, c.Cache)
			s.put(test.replayed, nil)
			b := newBench(t, c)
			b.run()
			eventually(t, test.result, func() bool { return b.count(fetches, test.result) > 0 })
			if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) || b.count(fetches, "ok") != 0 {
				t.Errorf("revoked by the list that was kept: %v", err)
			}
			if _, now := theOne(t, c.Cache); !bytes.Equal(now, before) {
				t.Error("the file is another one")
			}
		})
	}
}

// TestNoVersionIsKept: what a server calls the list is signed by nobody, so that the first fetch of a process asks for the list itself.
func TestNoVersionIsKept(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newShelf(t, ca.list(7, nil))
	c := keeping(ca, s, t.TempDir())
	fill(t, c)
	b := newBench(t, c)
	b.run()
	eventually(t, "a fetch", func() bool { return b.count(fetches, "unchanged") == 1 })
	if requests, conditional := s.asked(); requests != 2 || conditional != 0 {
		t.Errorf("%d requests, %d of them answered with a version", requests, conditional)
	}
}

// TestFilesThatAreIgnored: what is no list of the URL's CA is none in the cache, which the log says once; the next list that is fetched
// takes its place.
func TestFilesThatAreIgnored(t *testing.T) {
	ca, other := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil)
	stranger := newAuthority("partners", ecKey(), nil)
	one := ca.client()
	good := ca.list(7, []*x509.Certificate{one[0]})
	delta := ca.list(9, nil, func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, deltaOf(1))
	})
	long := ca.list(9, nil, func(l *x509.RevocationList) {
		l.ExtraExtensions = append(l.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: make([]byte, revocation.MaxListBytes)})
	})
	write := func(content []byte) func(string) {
		return func(name string) { must(os.WriteFile(name, content, 0o600)) }
	}
	for what, put := range map[string]func(name string){
		"nothing": write(nil), "half of it": write(good[:len(good)/2]), "text": write([]byte("<html>")), "more than it": write(append(bytes.Clone(good), 0)),
		"a flipped bit": write(flipped(good)), "a stranger's": write(stranger.list(9, nil)), "another of our CAs'": write(other.list(9, nil)), "a delta": write(delta),
		"too much": write(long),
		"a pipe": func(name string) {
			must(os.Remove(name))
			must(syscall.Mkfifo(name, 0o600))
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newShelf(t, good)
			c := keeping(ca, s, t.TempDir())
			c.CAs = append(c.CAs, other.certificate)
			fill(t, c)
			file, _ := theOne(t, c.Cache)
			put(file)
			b := newBench(t, c)
			if err := b.judge(one); !errors.Is(err, revocation.ErrUnknown) || !b.checker.Waiting() {
				t.Errorf("%v, it waits: %v", err, b.checker.Waiting())
			}
			b.configure(c)
			if n := b.said("is ignored"); n != 1 || b.count(cached, "ignored") != 2 {
				t.Errorf("%d lines, %v times", n, b.count(cached, "ignored"))
			}
			for _, entry := range b.logs.FilterMessageSnippet("is ignored").All() {
				if entry.ContextMap()["file"] != file {
					t.Errorf("the log names %v", entry.ContextMap()["file"])
				}
			}
			b.run()
			eventually(t, "a list in its place", func() bool { return b.count(cached, "written") == 1 })
			if _, now := theOne(t, c.Cache); !bytes.Equal(now, good) {
				t.Error("the file is not the list")
			}
		})
	}
}

// TestCacheThatCannotBeWritten: the list is in force, the log says once that it is not kept, and once that it is again.
func TestCacheThatCannotBeWritten(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one := ca.client()
	for what, place := range map[string]func(dir string) (remove string){
		"it is a file": func(dir string) string {
			must(os.WriteFile(dir, nil, 0o600))
			return dir
		},
		"a directory is in the place of the file": func(dir string) string {
			name, _ := theOne(t, filepath.Join(filepath.Dir(dir), "model"))
			name = filepath.Join(dir, filepath.Base(name))
			must(os.MkdirAll(filepath.Join(name, "below"), 0o700))
			return name
		},
	} {
		t.Run(what, func(t *testing.T) {
			above := t.TempDir()
			s := newShelf(t, ca.list(1, []*x509.Certificate{one[0]}))
			c := keeping(ca, s, filepath.Join(above, "model"))
			c.Refresh = 20 * time.Millisecond
			fill(t, c)
			c.Cache = filepath.Join(above, "cache")
			remove := place(c.Cache)
			b := newBench(t, c)
			b.run()
			eventually(t, "failures", func() bool { return b.count(cached, "partners", "0", "failed") >= 2 })
			if err := b.judge(one); !errors.Is(err, revocation.ErrRevoked) {
				t.Errorf("revoked by the list that is in force: %v", err)
			}
			b.configure(c)
			b.run()
			more := b.count(cached, "failed")
			eventually(t, "more failures", func() bool { return b.count(cached, "failed") > more })
			if n := b.said("cannot be kept"); n != 1 {
				t.Errorf("the log has %d lines about it", n)
			}
			if left, _ := filepath.Glob(filepath.Join(c.Cache, ".new-*")); len(left) > 0 {
				t.Errorf("%v was left", left)
			}
			must(os.RemoveAll(remove))
			eventually(t, "it is written", func() bool { return b.count(cached, "written") == 1 })
			eventually(t, "a line about it", func() bool { return b.said("are kept again") == 1 })
			theOne(t, c.Cache)
		})
	}
}

// TestOlderListsStayOut: who has fetched an older list leaves a newer one in the cache that another process put there, unless that has ended.
func TestOlderListsStayOut(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	s := newShelf(t, nil)
	for result, newer := range map[string][]byte{"newer": ca.list(5, nil), "written": ca.list(5, nil, from(-2*time.Hour, -time.Minute))} {
		c := keeping(ca, s, t.TempDir())
		s.put(newer, nil)
		fill(t, c)
		older := ca.list(4, nil)
		s.put(older, nil)
		late := c
		late.Cache = ""
		b := newBench(t, late)
		b.run()
		eventually(t, "the older list", func() bool { return b.count(fetches, "ok") == 1 })
		b.configure(c) // it writes what it has
		b.run()
		eventually(t, result, func() bool { return b.count(cached, result) == 1 })
		want := newer
		if result == "written" {
			want = older
		}
		if _, now := theOne(t, c.Cache); !bytes.Equal(now, want) || b.count(cached) != 1 {
			t.Errorf("%s: the file is another one, or there were %v reads and writes", result, b.count(cached))
		}
	}
}

// TestManyWriters: of many that write at once, the newest list stays, whole.
func TestManyWriters(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	const writers = 8
	for range 5 {
		dir := t.TempDir()
		s := newShelf(t, nil)
		last := int64(0)
		var newest []byte
		s.put(nil, func(w http.ResponseWriter, _ *http.Request) {
			last++
			newest = ca.list(last, nil)
			w.Write(newest)
		})
		var all []*bench
		for range writers {
			all = append(all, newBench(t, keeping(ca, s, dir)))
		}
		for _, b := range all {
			b.run()
		}
		for _, b := range all {
			eventually(t, "its write", func() bool { return b.count(cached, "written")+b.count(cached, "newer") == 1 })
			b.ends()
			b.ends = nil
		}
		if _, now := theOne(t, dir); !bytes.Equal(now, newest) {
			t.Error("an older list stayed")
		}
		if others, err := os.ReadDir(dir); err != nil || len(others) != 2 {
			t.Errorf("%v, %v, want the list and the lock", others, err)
		}
	}
}

// TestDiskThatHangs: lists are fetched and in force while one cannot be written, and a Checker ends.
func TestDiskThatHangs(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one := ca.client()
	s := newShelf(t, ca.list(1, nil))
	c := keeping(ca, s, t.TempDir())
	c.Refresh = 20 * time.Millisecond
	unlock, err := durable.Lock(filepath.Join(c.Cache, "lock"), false)
	must(err)
	defer unlock()
	b := newBench(t, c)
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	next := ca.list(2, []*x509.Certificate{one[0]})
	s.put(next, nil)
	eventually(t, "the next list", func() bool { return errors.Is(b.judge(one), revocation.ErrRevoked) })
	b.ends()
	b.ends = nil
	if len(kept(t, c.Cache)) != 0 || b.count(cached) != 0 {
		t.Errorf("something was written: %v", b.count(cached))
	}
	unlock()
	eventually(t, "a write that is late", func() bool { return b.count(cached, "written") == 2 })
	if _, now := theOne(t, c.Cache); !bytes.Equal(now, next) {
		t.Error("the file is not the last list")
	}
}

// TestReloadAndCache: one that a reload brings gets what is in force, at once; what it has of another URL is in force at once; and
// nothing is written twice.
func TestReloadAndCache(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	one, two := ca.client(), ca.client()
	s, another := newShelf(t, ca.list(1, []*x509.Certificate{one[0]})), newShelf(t, ca.list(2, []*x509.Certificate{two[0]}))
	first, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
	fill(t, keeping(ca, another, second))
	another.Close()

	c := keeping(ca, s, "")
	b := newBench(t, c)
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	c.Cache = first
	for range 2 {
		b.configure(c)
		b.run()
		eventually(t, "a list on disk", func() bool { return b.count(cached, "written") == 1 })
	}
	name, _ := theOne(t, first)
	must(os.Remove(name))
	b.configure(c)
	b.run()
	eventually(t, "the list that somebody removed", func() bool { return b.count(cached, "written") == 2 })
	theOne(t, first)
	epoch := b.checker.Epoch()
	c.Cache = second
	c.Lists = append([]revocation.Source{{URL: keeping(ca, another, "").Lists[0].URL}}, c.Lists...)
	b.configure(c)
	for _, chain := range [][]*x509.Certificate{one, two} {
		if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) {
			t.Errorf("after the reload: %v", err)
		}
	}
	if b.checker.Epoch() == epoch {
		t.Error("what was judged before stands")
	}
	b.run()
	eventually(t, "the other list beside it", func() bool { return b.count(cached, "1", "written") == 1 && len(kept(t, second)) == 2 })
	if b.count(cached, "written") != 3 || b.count(cached, "read") != 1 || b.count(cached) != 4 {
		t.Errorf("%v reads and writes", b.count(cached))
	}
	if requests, _ := s.asked(); requests != 1 {
		t.Errorf("%d fetches", requests)
	}
}

// TestListsOfSeveralCAsOutliveAStart: whoever answered in a server's place with another known CA's list has taken none out of force.
func TestListsOfSeveralCAsOutliveAStart(t *testing.T) {
	ca, other := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil)
	bad, foreign := ca.client(), other.client()
	s := newShelf(t, ca.list(10, []*x509.Certificate{bad[0]}))
	c := keeping(ca, s, t.TempDir())
	c.CAs, c.Soft = append(c.CAs, other.certificate), true
	fill(t, c)
	s.put(other.list(9, []*x509.Certificate{foreign[0]}), nil)
	fill(t, c)
	if n := len(kept(t, c.Cache)); n != 2 {
		t.Fatalf("%d lists", n)
	}
	b := newBench(t, c)
	for _, chain := range [][]*x509.Certificate{bad, foreign} {
		if err := b.judge(chain); !errors.Is(err, revocation.ErrRevoked) {
			t.Error(err)
		}
	}
	c.CAs = c.CAs[1:] // the first is ours no more
	b.configure(c)
	must(os.RemoveAll(c.Cache))
	b.run()
	eventually(t, "what is on disk again", func() bool { return b.count(cached, "written") == 1 })
	b.ends()
	b.ends = nil
	if _, content := theOne(t, c.Cache); !bytes.Equal(content, s.list) {
		t.Error("it is another CA's list")
	}
	b = newBench(t, c)
	if err := b.judge(foreign); !errors.Is(err, revocation.ErrRevoked) || b.count(cached) != 1 {
		t.Errorf("%v, %v reads", err, b.count(cached))
	}
}

// TestRestOfAWriteIsRemoved: a process that ended in the middle of one leaves nothing for ever.
func TestRestOfAWriteIsRemoved(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	dir := t.TempDir()
	left := filepath.Join(dir, ".new-1")
	must(os.WriteFile(left, []byte("half"), 0o600))
	fill(t, keeping(ca, newShelf(t, ca.list(1, nil)), dir))
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	theOne(t, dir)
}

// TestListsTakeTurns: of two CAs whose lists come from one place by turns, no more than the last of each is in memory.
func TestListsTakeTurns(t *testing.T) {
	ca, other := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil)
	s := newShelf(t, ca.list(1, nil))
	c := byURL(ca, s)
	c.CAs = append(c.CAs, other.certificate)
	b := newBench(t, c)
	b.run()
	eventually(t, "a list", func() bool { return b.count(fetches, "ok") == 1 })
	there := b.checker.LastList()
	for i := range 4 {
		by := []*authority{other, ca}[i%2]
		s.put(by.list(int64(2+i), nil), nil)
		eventually(t, fmt.Sprintf("list %d", 2+i), func() bool { return b.count(fetches, "ok") == float64(2+i) })
	}
	eventually(t, "the first list is gone", func() bool {
		runtime.GC()
		return !there()
	})
}
