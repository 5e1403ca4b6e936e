package ca

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
)

// ErrRequest is what all refusals of a request wrap.
var ErrRequest = errors.New("certificate request refused")

// algorithms are the signatures that prove possession: none with SHA-1 or MD5.
var algorithms = []x509.SignatureAlgorithm{
	x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS,
	x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
}

const (
	minRSABits     = 2048
	maxRSABits     = 8192
	minRSAExponent = 65537
)

// Request is a certificate request (PKCS #10, RFC 2986) whose signature proves possession of its key, and whose key is
// strong enough. Its subject is to be compared by whoever knows the partner. The zero Request is refused everywhere.
type Request struct{ csr *x509.CertificateRequest }

// ParseRequest reads one PEM block. Text before it, as `openssl req -text` writes, is passed over, and so is a byte order
// mark; nothing follows it. Its subject has no characters that cannot be seen. What the request asks for besides subject
// and key (extensions, names, validity) is not granted.
func ParseRequest(content []byte) (*Request, error) {
	csr, err := parseRequest(content)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return &Request{csr}, nil
}

func parseRequest(content []byte) (*x509.CertificateRequest, error) {
	text := strings.TrimSpace(strings.TrimPrefix(string(content), "\ufeff"))
	if strings.Contains(text, "PRIVATE KEY-----") {
		return nil, errors.New("the file holds a private key, which is nobody's but its owner's: have a new one made")
	}
	block, rest := pem.Decode([]byte(text))
	switch {
	case strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff"):
		return nil, errors.New("the file is UTF-16 text: save it as ASCII or UTF-8")
	case strings.HasPrefix(text, "\x30\x82") || strings.HasPrefix(text, "\x30\x81"):
		return nil, errors.New("the file is not PEM, and looks like DER: `openssl req -inform DER -in FILE` makes PEM of it")
	case block == nil || strings.Count(text, "-----BEGIN ") != 1:
		return nil, errors.New("not one PEM block")
	case len(strings.TrimSpace(string(rest))) > 0:
		return nil, errors.New("there is text after its PEM block: remove it")
	case block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST":
		return nil, errors.New("the PEM block is not a CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, errors.New("it does not parse as PKCS #10")
	}
	if !slices.Contains(algorithms, csr.SignatureAlgorithm) {
		return nil, fmt.Errorf("it is signed with %v: want SHA-256 or better", csr.SignatureAlgorithm)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, err
	}
	if csr.CheckSignature() != nil {
		return nil, errors.New("no proof of possession: its signature is not of its key")
	}
	return csr, checkVisible(csr.RawSubject)
}

// checkKey refuses keys that are too weak for a partner.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *ecdsa.PublicKey: // P-521 is for CAs elsewhere: see checkIssuable
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return fmt.Errorf("an EC key on %s: want P-256 or P-384", k.Curve.Params().Name)
		}
		return nil
	case ed25519.PublicKey:
		return nil
	case *rsa.PublicKey:
		return checkRSA(k)
	}
	return errors.New("a key that is neither RSA, EC nor Ed25519")
}

// checkIssuable refuses a name or a key that other CAs may certify and this one does not: linters and browsers know no EC
// keys but those on P-256 and P-384 (Mozilla Root Store Policy, section 5.1).
func checkIssuable(r *x509.CertificateRequest) error {
	if k, ok := r.PublicKey.(*ecdsa.PublicKey); ok && k.Curve == elliptic.P521() {
		return errors.New("an EC key on P-521: this CA certifies those on P-256 and P-384")
	}
	return checkName(r.RawSubject)
}

func checkRSA(k *rsa.PublicKey) error {
	switch bits := k.N.BitLen(); {
	case bits < minRSABits || bits > maxRSABits:
		return fmt.Errorf("an RSA key of %d bits: want %d to %d", bits, minRSABits, maxRSABits)
	case bits%8 != 0:
		return fmt.Errorf("an RSA key of %d bits: want a multiple of 8", bits)
	case k.E < minRSAExponent || k.E%2 == 0:
		return fmt.Errorf("an RSA key with the public exponent %d: want an odd one of at least %d", k.E, minRSAExponent)
	}
	for p := int64(2); p < 752; p++ { // NIST SP 800-89, section 5.3.3
		if new(big.Int).Mod(k.N, big.NewInt(p)).Sign() == 0 {
			return fmt.Errorf("an RSA key whose modulus has the factor %d", p)
		}
	}
	return checkFermat(k.N)
}

// checkFermat refuses a modulus whose factors are so close that they can be found (CVE-2022-26320).
func checkFermat(n *big.Int) error {
	a, square := new(big.Int).Sqrt(n), new(big.Int)
	for range 100 {
		a.Add(a, big.NewInt(1))
		square.Sub(new(big.Int).Mul(a, a), n)
		if root := new(big.Int).Sqrt(square); new(big.Int).Mul(root, root).Cmp(square) == 0 {
			return errors.New("an RSA key whose factors are too close to each other")
		}
	}
	return nil
}

// extensionNames are what people call those that requests commonly ask for (RFC 5280, section 4.2.1).
var extensionNames = map[string]string{
	"2.5.29.14": "subjectKeyIdentifier", "2.5.29.15": "keyUsage", "2.5.29.17": "subjectAltName", "2.5.29.19": "basicConstraints", "2.5.29.37": "extendedKeyUsage",
}

// NotGranted lists the extensions that it asks for, in its order: names, or dotted numbers.
func (r *Request) NotGranted() []string {
	var names []string
	for _, e := range r.csr.Extensions {
		id := e.Id.String()
		names = append(names, cmp.Or(extensionNames[id], id))
	}
	return names
}

// Subject is the DER of its name.
func (r *Request) Subject() []byte { return r.csr.RawSubject }

// DER is the request itself.
func (r *Request) DER() []byte { return r.csr.Raw }

// PEM is the request itself.
func (r *Request) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: r.csr.Raw})
}

// Pin is the SHA-256 of its SubjectPublicKeyInfo: what stands in `pins` of a partner.
func (r *Request) Pin() [32]byte { return sha256.Sum256(r.csr.RawSubjectPublicKeyInfo) }

// Key describes its key.
func (r *Request) Key() string {
	switch k := r.csr.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case *ecdsa.PublicKey:
		return "EC " + k.Curve.Params().Name
	}
	return "Ed25519"
}

// Fits reports whether a certificate was issued for this request: of its key and its subject.
func (r *Request) Fits(c *x509.Certificate) error {
	switch {
	case string(c.RawSubjectPublicKeyInfo) != string(r.csr.RawSubjectPublicKeyInfo):
		return errors.New("the certificate is of another key than the request")
	case string(c.RawSubject) != string(r.csr.RawSubject):
		return errors.New("the certificate is of another subject than the request")
	}
	return nil
}

// ProveRenewal says whether the holder of a certificate that is valid now asks for the renewal: the request is of the
// certificate's own key, or signature is that key's over the request's DER (SHA-256; Ed25519 over the DER itself).
func (r *Request) ProveRenewal(current *x509.Certificate, signature []byte) error {
	if string(current.RawSubject) != string(r.csr.RawSubject) {
		return fmt.Errorf("%w: its subject is not that of the certificate it is to follow", ErrRequest)
	}
	if string(current.RawSubjectPublicKeyInfo) == string(r.csr.RawSubjectPublicKeyInfo) {
		return nil
	}
	if len(signature) == 0 {
		return fmt.Errorf("%w: it is of a new key, and not signed by the current one (--signature)", ErrRequest)
	}
	algorithm := x509.PureEd25519
	switch current.PublicKey.(type) {
	case *rsa.PublicKey:
		algorithm = x509.SHA256WithRSA
	case *ecdsa.PublicKey:
		algorithm = x509.ECDSAWithSHA256
	}
	if current.CheckSignature(algorithm, r.csr.Raw, signature) != nil {
		return fmt.Errorf("%w: the signature is not the current key's over this request", ErrRequest)
	}
	return nil
}
