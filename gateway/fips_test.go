package gateway_test

import (
	"bytes"
	"crypto/fips140"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"
)

// Tests run in FIPS 140-3 mode too (GODEBUG=fips140=on, `make test-fips`), and hold TLS to what is right in the mode that they run in.

// groups are the key exchanges that Go has on, the post-quantum ones first.
func groups() []tls.CurveID {
	all := []tls.CurveID{tls.X25519MLKEM768, tls.SecP256r1MLKEM768, tls.SecP384r1MLKEM1024, tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	return slices.DeleteFunc(all, func(g tls.CurveID) bool { return g == tls.X25519 && fips140.Enabled() })
}

// classic is the key exchange of a client of today under TLS 1.2, which has no post-quantum ones.
func classic() tls.CurveID {
	if fips140.Enabled() {
		return tls.CurveP256
	}
	return tls.X25519
}

// TestHandshakesInTheOtherMode runs the tests of handshakes once more, in FIPS 140-3 mode, and where the tests run in that, without it:
// whoever runs one finds what is wrong in either.
func TestHandshakesInTheOtherMode(t *testing.T) {
	t.Parallel()
	const tests = "^Test(BeyondFIPS|Bypass|PostQuantum|Handshake(Failures|Versions|Accepts|Reasons)|Greeted|FewAreGreeted|KnownChains|FragmentedClientHello|NoResumption|VerifyConnection|TicketsOfHosts|RevokedHandshakes)"
	mode := "on"
	if fips140.Enabled() {
		mode = "off"
	}
	binary, err := os.Executable()
	must(err)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run="+tests, "-test.v")
	cmd.Env = append(os.Environ(), "GODEBUG=fips140="+mode)
	out, err := cmd.CombinedOutput()
	if passed := bytes.Count(out, []byte("\n--- PASS: ")); err != nil || passed < 35 {
		t.Errorf("fips140=%s: %v, %d tests passed\n%s", mode, err, passed, out)
	}
}

// TestBeyondFIPS: who has nothing but X25519, or ChaCha20-Poly1305, is served by default, and refused in FIPS 140-3 mode. The hellos
// are written by hand: a client of crypto/tls is in the same mode, and would not say them.
func TestBeyondFIPS(t *testing.T) {
	h := newHouse(t, options{})
	const aes, chaCha = tls.TLS_AES_128_GCM_SHA256, tls.TLS_CHACHA20_POLY1305_SHA256
	const aes12, chaCha12 = tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
	for _, test := range []struct {
		name    string
		version uint16
		suite   uint16
		group   tls.CurveID
		beyond  bool
	}{
		{"P-256", tls.VersionTLS13, aes, tls.CurveP256, false},
		{"P-256", tls.VersionTLS12, aes12, tls.CurveP256, false},
		{"X25519", tls.VersionTLS13, aes, tls.X25519, true},
		{"X25519", tls.VersionTLS12, aes12, tls.X25519, true},
		{"ChaCha20", tls.VersionTLS13, chaCha, tls.CurveP256, true},
		{"ChaCha20", tls.VersionTLS12, chaCha12, tls.CurveP256, true},
	} {
		for _, listener := range []string{"partners", "public"} {
			failed := func() float64 {
				return h.metric("cardstile_handshake_failures_total", "listener", listener, "reason", "no_common_parameters")
			}
			before, refused := failed(), test.beyond && fips140.Enabled()
			want := [2]byte{22, 2} // a handshake record, a ServerHello
			if refused {
				want = [2]byte{21, 40} // an alert record, handshake_failure
			}
			if got := h.greeting(listener, clientHello(test.version, test.suite, test.group)); got != want {
				t.Errorf("%s, %s at %s: answered by record %d, %d; want %v", test.name, tls.VersionName(test.version), listener, got[0], got[1], want)
			}
			if refused {
				eventually(t, "it is counted", func() bool { return failed() == before+1 })
			}
		}
	}
}

// greeting says a hello to a listener. It returns the type of the record that answers, and of the message in it, or the alert.
func (h *house) greeting(listener string, hello []byte) [2]byte {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.gateway.Addr(listener).String())
	must(err)
	defer conn.Close()
	must(conn.SetDeadline(time.Now().Add(20 * time.Second)))
	_, err = conn.Write(hello)
	must(err)
	var answer [7]byte
	_, err = io.ReadFull(conn, answer[:])
	must(err)
	if answer[0] == 21 {
		return [2]byte{answer[0], answer[6]}
	}
	return [2]byte{answer[0], answer[5]}
}

// clientHello is a record with a ClientHello (RFC 8446 section 4.1.2) that offers one of each. It has no key share, for which a server
// of TLS 1.3 asks in its ServerHello.
func clientHello(version, suite uint16, group tls.CurveID) []byte {
	u16 := binary.BigEndian.AppendUint16
	sized := func(b []byte) []byte { return append(u16(nil, uint16(len(b))), b...) }
	extensions := append([]byte{0, 43, 0, 3, 2}, u16(nil, version)...) // supported_versions
	for _, x := range []struct {
		id   uint16
		body []byte
	}{
		{10, sized(u16(nil, uint16(group)))},                                   // supported_groups
		{13, sized(u16(u16(nil, uint16(tls.ECDSAWithP256AndSHA256)), 0x0804))}, // signature_algorithms; rsa_pss_rsae_sha256
		{51, sized(nil)}, // key_share
	} {
		extensions = append(u16(extensions, x.id), sized(x.body)...)
	}
	hello := append(u16(nil, tls.VersionTLS12), make([]byte, 32+1)...) // legacy_version, random, an empty session id
	hello = append(append(hello, sized(u16(nil, suite))...), 1, 0)     // no compression
	hello = append(hello, sized(extensions)...)
	message := append([]byte{1, 0}, sized(hello)...)
	return append([]byte{22, 3, 1}, sized(message)...)
}
