package revocation_test

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/revocation"
)

const (
	files  = "cardstile_revocation_files_total"
	noGain = "a revocation list in a file is no better than the last one"
)

// TestFilesThatGoBack: a list in a file takes no newer one of its CA out of force, wherever it stands, until that is taken from the
// configuration.
func TestFilesThatGoBack(t *testing.T) {
	root := newAuthority("root", ecKey(), nil)
	between := newAuthority("between", ecKey(), root) // whose certificate handshakes bring
	rekeyed := newAuthority("between", ecKey(), root)
	for name, ca := range map[string]*authority{"a CA of the configuration": root, "one below": between} {
		bad, worse, good := ca.client(), ca.client(), ca.client()
		rest := [][]byte{between.list(1, nil), rekeyed.list(1, nil)}
		if ca == between {
			rest = [][]byte{root.list(1, nil), rekeyed.list(1, nil)}
		}
		ended := from(-3*time.Hour, -time.Hour)
		twenty := ca.list(20, []*x509.Certificate{bad[0]})
		nine, ten, four := ca.list(9, nil, from(-2*time.Hour, 2*time.Hour)), ca.list(10, nil, from(-2*time.Hour, 3*time.Hour)), ca.list(4, nil, ended)
		late := ca.list(21, []*x509.Certificate{worse[0]}, ended)
		early := ca.list(21, []*x509.Certificate{worse[0]}, from(10*time.Minute, 2*time.Hour))
		next := ca.list(22, nil)
		type step struct {
			what       string
			lists      [][]byte
			bad, worse bool // whether they are revoked
			result     string
		}
		restart := step{what: "restart"}
		begin := step{"the first", [][]byte{twenty}, true, false, "ok"}
		for _, steps := range [][]step{
			{begin, {"an older one", [][]byte{nine}, true, false, "rollback"}, {"the same again", [][]byte{nine}, true, false, ""}, {"another older one", [][]byte{ten}, true, false, "rollback"},
				{"one that has ended besides", [][]byte{four}, true, false, "rollback"}, {"a newer one", [][]byte{next}, false, false, "ok"}},
			{begin, {"an older one", [][]byte{nine}, true, false, "rollback"}, {"none", nil, false, false, ""}, {"deleted", [][]byte{nine}, false, false, "ok"}},
			{begin, {"an older one", [][]byte{nine}, true, false, "rollback"}, restart, {"after a restart", [][]byte{nine}, false, false, "ok"}},
			{begin, {"an older one besides", [][]byte{twenty, nine}, true, false, "ok"}},
			{{"an older one is there", [][]byte{nine, twenty}, true, false, "ok"}, {"the newer one is deleted", [][]byte{nine}, false, false, ""}},
			{{"two", [][]byte{nine, twenty}, true, false, "ok"}, {"both are older", [][]byte{ten, four}, true, false, "rollback"}, {"in another order", [][]byte{four, ten}, true, false, ""}},
			{begin, {"a newer one that has ended", [][]byte{late}, true, true, "ended"}, {"the same again", [][]byte{late}, true, true, ""}, {"a newer one", [][]byte{next}, false, false, "ok"}},
			{begin, {"a newer one that has not begun", [][]byte{early}, true, true, "ok"}, {"the same again", [][]byte{early}, true, true, ""}, {"a newer one", [][]byte{next}, false, false, "ok"}},
			{{"one that has ended", [][]byte{late, twenty}, true, true, "ok"}, {"an older one that is current", [][]byte{nine}, false, true, "rollback"}},
		} {
			b := newBench(t, revocation.Config{})
			for i, s := range steps {
				if s.what == "restart" {
					b.checker = nil
					continue
				}
				c := byLists(false, []*authority{root}, append(s.lists, rest...)...)
				if i%2 == 1 {
					c = byLists(false, []*authority{root}, append(append([][]byte{}, rest...), s.lists...)...) // in other places
				}
				c.Soft = s.lists == nil
				for i := range c.Lists {
					c.Lists[i].Name = "some.crl"
				}
				before, lines := b.count(files, s.result), b.said(noGain)
				b.configure(c)
				for who, chain := range map[*bool][]*x509.Certificate{&s.bad: bad, &s.worse: worse, new(bool): good} {
					var want error
					if *who {
						want = revocation.ErrRevoked
					}
					if err := b.judge(chain); !errors.Is(err, want) {
						t.Errorf("%s, %s: %v, want %v", name, s.what, err, want)
					}
				}
				told := s.result == "rollback" || s.result == "ended"
				if s.result != "" && b.count(files, s.result) == before || told == (b.said(noGain) == lines) {
					t.Errorf("%s, %s: %v more %q, %d lines", name, s.what, b.count(files, s.result)-before, s.result, b.said(noGain)-lines)
				}
				for place, l := range b.checker.Lists(b.now()) {
					if s.lists != nil && !l.Current && len(c.Lists) == len(rest)+1 {
						t.Errorf("%s, %s: list %d is not current", name, s.what, place)
					}
					if len(s.lists) == 1 && s.bad && !s.worse && place == i%2*len(rest) && l.Entries != 1 {
						t.Errorf("%s, %s: %d entries are shown, not those of the newer list", name, s.what, l.Entries)
					}
				}
			}
			if told := b.logs.FilterMessageSnippet(noGain).All(); len(told) > 0 && steps[1].result == "rollback" && steps[0].what == "the first" {
				for _, field := range []zap.Field{zap.String("file", "some.crl"), zap.String("number", "9"), zap.String("number_in_force", "20"), zap.String("result", "rollback")} {
					if told[0].ContextMap()[field.Key] != field.String {
						t.Errorf("%s: %v", name, told[0].ContextMap())
					}
				}
			}
		}
	}
}

// TestAListThatBeginsWhileItIsThere: until a newer list begins the last one counts, and then the newer one, which outlives it.
func TestAListThatBeginsWhileItIsThere(t *testing.T) {
	ca := newAuthority("partners", ecKey(), nil)
	chain := ca.client()
	config := func(list []byte) revocation.Config { return byLists(false, []*authority{ca}, list) }
	early := ca.list(2, nil, from(10*time.Minute, 2*time.Hour))
	b := newBench(t, config(ca.list(1, nil, from(-time.Hour, 20*time.Minute))))
	b.configure(config(early))
	for _, at := range []time.Duration{0, 15 * time.Minute, 30 * time.Minute, time.Hour} {
		b.turned.Store(int64(at))
		if err := b.judge(chain); err != nil || !b.checker.Lists(b.now())[0].Current {
			t.Errorf("after %s: %v", at, err)
		}
	}
	b.configure(config(early))
	b.turned.Store(int64(3 * time.Hour))
	if err := b.judge(chain); !errors.Is(err, revocation.ErrUnknown) {
		t.Errorf("after its end: %v", err)
	}
}
