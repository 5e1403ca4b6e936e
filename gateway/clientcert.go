package gateway

import (
	"encoding/base64"
	"net/http"
	"strings"

	"github.com/cardstile/cardstile/gateway/issuer"
)

// This file is what header fields say of a client's certificate: nothing on the way in, where anybody can write them, and on the
// way out what we have verified (RFC 9440).

// ClientCert is what an issuer is told of the certificate that an exchange was proven with.
type ClientCert uint8

// The zero value tells it nothing.
const (
	ClientCertNone  ClientCert = iota
	ClientCertLeaf             // Client-Cert: the certificate
	ClientCertChain            // Client-Cert-Chain too: what is between it and the root
)

// claimed is what names of header fields begin with by which gateways tell the servers behind them of a client's certificate, in
// lower case and with hyphens: RFC 9440 (client-cert), Envoy, Traefik, HAProxy, nginx, Apache, F5, WebLogic, and the
// load balancers of clouds.
var claimed = []string{
	"client-cert", "cf-client-cert", "ssl-", "sslclientcert", "tls-client-", "x-amzn-mtls-", "x-arr-clientcert", "x-client-cert", "x-clientcert", "x-client-dn",
	"x-client-verify", "x-forwarded-client-cert", "x-forwarded-ssl-client-", "x-forwarded-tls-client-cert", "x-mtls-", "x-ssl-", "x-tls-client-",
	"wl-proxy-client-cert",
}

// dropClaims takes out of a request's header what claims a client certificate, and reports whether there was any. Nothing here
// reads such a field: this is for what comes after us.
func dropClaims(h http.Header) bool {
	found := false
	for name := range h {
		if claims(name) {
			delete(h, name)
			found = true
		}
	}
	return found
}

// claims reports whether a field's name begins with one that claims a certificate. Whatever is no letter and no digit counts as a
// hyphen: servers that hand fields on as variables make underscores of both (RFC 3875 section 4.1.18), and some of more.
func claims(name string) bool {
	for _, prefix := range claimed {
		if len(name) < len(prefix) {
			continue
		}
		same := true
		for i := 0; same && i < len(prefix); i++ {
			same = folded(name[i]) == prefix[i]
		}
		if same {
			return true
		}
	}
	return false
}

func folded(c byte) byte {
	switch {
	case 'A' <= c && c <= 'Z':
		return c + 'a' - 'A'
	case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		return c
	}
	return '-'
}

// certified are the fields that tell the issuer the exchange's certificate (RFC 9440 section 2): byte sequences of DER, the chain
// in the order of TLS and without leaf and root. There are none unless the certificate was verified, and was whose it is.
func (x *running) certified() []issuer.Header {
	mode := x.ep.route.ClientCert
	if mode == ClientCertNone || len(x.chain) == 0 {
		return nil
	}
	fields := []issuer.Header{{Name: "Client-Cert", Value: byteSequence(x.chain[0].Raw)}}
	if mode != ClientCertChain || len(x.chain) < 3 {
		return fields // an empty list is no field (RFC 8941 section 3.1)
	}
	between := make([]string, 0, len(x.chain)-2)
	for _, c := range x.chain[1 : len(x.chain)-1] {
		between = append(between, byteSequence(c.Raw))
	}
	return append(fields, issuer.Header{Name: "Client-Cert-Chain", Value: strings.Join(between, ", ")})
}

// byteSequence is RFC 8941 section 3.3.5.
func byteSequence(b []byte) string { return ":" + base64.StdEncoding.EncodeToString(b) + ":" }
