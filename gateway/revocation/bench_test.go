package revocation_test

import (
	"crypto/x509"
	"testing"

	"github.com/cardstile/cardstile/gateway/revocation"
)

// BenchmarkJudge is what a handshake pays, and the redemption of a token, where lists are there and answers known: a chain of three, a list
// of each CA, one of them with 10 000 entries.
func BenchmarkJudge(b *testing.B) {
	ca := newAuthority("partners", ecKey(), nil)
	between := newAuthority("between", ecKey(), ca)
	s := newResponder(b, between)
	var many []*x509.Certificate
	for range 10_000 {
		many = append(many, &x509.Certificate{SerialNumber: template("revoked").SerialNumber})
	}
	lists := []revocation.Source{{Content: ca.list(1, nil)}, {Content: between.list(1, many)}}
	for name, c := range map[string]revocation.Config{
		"lists": {Lists: lists}, "OCSP": s.asks(false), "both": {Lists: lists, OCSP: s.asks(false).OCSP},
	} {
		c.CAs = []*x509.Certificate{ca.certificate}
		bench, chain := newBench(b, c), between.client()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := bench.judge(chain); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
