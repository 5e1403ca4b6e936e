package revocation_test

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/revocation"
)

const (
	noneCurrent  = "no revocation list of a CA is current"
	currentAgain = "a revocation list of a CA is current again"
)

// about counts the log's lines with a message about a CA.
func (b *bench) about(message string, ca *x509.Certificate) int {
	return b.logs.FilterMessage(message).FilterField(zap.String("ca", ca.Subject.String())).
		FilterField(zap.String("ca_certificate", fmt.Sprintf("%x", sha256.Sum256(ca.Raw)))).FilterField(zap.String("listener", "partners")).Len()
}

// TestWhoseListIsMissing: the log names the CA once when somebody is refused, or passes, for want of its list, and once when there is one.
func TestWhoseListIsMissing(t *testing.T) {
	for _, soft := range []bool{false, true} {
		ca, other := newAuthority("partners", ecKey(), nil), newAuthority("others", ecKey(), nil)
		between := newAuthority("between", ecKey(), other)
		s := newShelf(t, ca.list(1, nil))
		c := byURL(ca, s)
		c.CAs, c.Soft = append(c.CAs, other.certificate), soft
		c.Lists = append(c.Lists, revocation.Source{Content: other.list(1, nil)})
		b := newBench(t, c)
		judge := func(who *authority, known bool) {
			t.Helper()
			for range 3 {
				if err := b.judge(who.client()); (err == nil) != (known || soft) || err != nil && !errors.Is(err, revocation.ErrUnknown) {
					t.Errorf("soft %v: %v", soft, err)
				}
			}
		}
		is := func(message string, who *authority, want int) {
			t.Helper()
			if n := b.about(message, who.certificate); n != want {
				t.Errorf("soft %v: %d lines %q, want %d", soft, n, message, want)
			}
		}
		judge(ca, false) // its list has not come
		judge(other, true)
		judge(between, false) // whose list nobody brings
		is(noneCurrent, ca, 1)
		is(noneCurrent, other, 0)
		is(noneCurrent, between, 1)
		if n := b.logs.FilterMessage(noneCurrent).FilterField(zap.Bool("refused", !soft)).Len(); n != 2 {
			t.Errorf("soft %v: refused is wrong in one of %d", soft, n)
		}
		b.run()
		eventually(t, "a line that it is current", func() bool { return b.about(currentAgain, ca.certificate) == 1 })
		judge(ca, true)
		s.put(ca.list(2, nil, from(-time.Hour, time.Minute)), nil)
		eventually(t, "a list that ends soon", func() bool { return b.count(fetches, "ok") == 2 })
		b.turned.Store(int64(2 * time.Minute))
		judge(ca, false)
		is(noneCurrent, ca, 2)
		if b.logs.FilterMessage(noneCurrent).All()[2].ContextMap()["next_update"] == nil {
			t.Error("it does not say when the last list has ended")
		}
		b.configure(c)
		judge(ca, false)
		judge(between, false)
		is(noneCurrent, ca, 2)
		is(noneCurrent, between, 1)
		b.run()
		eventually(t, "a line that the list has ended", func() bool { return b.said("a revocation list is not current") == 1 })
		is(currentAgain, ca, 1)
		s.put(ca.list(3, nil), nil)
		eventually(t, "a line that it is current again", func() bool { return b.about(currentAgain, ca.certificate) == 2 })
		is(currentAgain, between, 0)
		b.ends()
		b.ends = nil
	}
}

// TestCAsWithoutListsAreBounded: one that we have makes any number below it, which neither fill the log nor have it forget ours.
func TestCAsWithoutListsAreBounded(t *testing.T) {
	root, ours := newAuthority("root", ecKey(), nil), newAuthority("ours", ecKey(), nil)
	b := newBench(t, revocation.Config{CAs: []*x509.Certificate{root.certificate, ours.certificate}, Lists: []revocation.Source{{Content: root.list(1, nil)}}})
	key := ecKey()
	for i := range 80 {
		b.judge(newAuthority(fmt.Sprintf("%d%s", i, strings.Repeat("é", 200)), key, root).client())
	}
	if n := b.said(noneCurrent); n != 64 {
		t.Errorf("%d lines, want 64", n)
	}
	b.judge(ours.client())
	if n := b.about(noneCurrent, ours.certificate); n != 1 {
		t.Errorf("%d lines about a CA of the configuration", n)
	}
	for _, entry := range b.logs.All() {
		if name := entry.ContextMap()["ca"].(string); len(name) > 256 || strings.ToValidUTF8(name, "") != name {
			t.Errorf("%q", name)
		}
	}
}

// TestNothingOfAHandshakeIsKeptOfCAs is TestNothingButTheCertificateIsKept of those that no list is of.
func TestNothingOfAHandshakeIsKeptOfCAs(t *testing.T) {
	root := newAuthority("root", ecKey(), nil)
	between := newAuthority("between", ecKey(), root)
	b := newBench(t, revocation.Config{CAs: []*x509.Certificate{root.certificate}, Lists: []revocation.Source{{Content: root.list(1, nil)}}})
	if message := inOneMessage(b, between.client()); message.Value() != nil || b.about(noneCurrent, between.certificate) != 1 {
		t.Errorf("the message is kept: %v", message.Value() != nil)
	}
}
