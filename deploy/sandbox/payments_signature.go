package sandbox

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// SignPaymentsGate signs the body of a request as a client of PaymentsGate does: RSA-PSS (SHA-256, MGF1 with SHA-256, a salt of 32 bytes;
// RFC 8017, section 8.1) over the 64 lower-case hex digits of the SHA-256 of PaymentsGateCanonical(body). The signature is base64 with a line
// feed after every 76 characters and at the end, which a header field cannot carry: the caller takes them out for one.
func SignPaymentsGate(key *rsa.PrivateKey, body []byte) (string, error) {
	canonical, err := PaymentsGateCanonical(body)
	if err != nil {
		return "", err
	}
	digest := sha256.Sum256([]byte(canonical))
	signed := sha256.Sum256([]byte(hex.EncodeToString(digest[:])))
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, signed[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
	if err != nil {
		return "", fmt.Errorf("sandbox: sign: %w", err)
	}
	var out strings.Builder
	for line := range slices.Chunk([]byte(base64.StdEncoding.EncodeToString(signature)), 76) {
		out.Write(line)
		out.WriteByte('\n')
	}
	return out.String(), nil
}

// scalar is a value of a body that is neither an object nor an array, as the canonical string has it.
type scalar struct {
	key   string // in lower case
	index int    // from 1, in the order of the body
	value string
}

// errCanonical is what a body has in which published clients disagree, or which no object of theirs would be written as.
var errCanonical = errors.New("sandbox: body has no canonical string")

// PaymentsGateCanonical returns what a signature is about: the values of the body, depth first, sorted by their keys in lower case, byte by
// byte, and where keys are equal by their place in the body. A number stays as it is written. A body that is not one JSON object, that has an
// array, a null or a name twice in one object is refused.
func PaymentsGateCanonical(body []byte) (string, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return "", errCanonical
	}
	values, err := walk(d, nil)
	if err != nil {
		return "", err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return "", errCanonical
	}
	slices.SortFunc(values, func(a, b scalar) int {
		return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.index, b.index))
	})
	var out strings.Builder
	for _, v := range values {
		out.WriteString(v.value)
	}
	return out.String(), nil
}

// walk appends the scalars of an object whose opening brace was read.
func walk(d *json.Decoder, values []scalar) ([]scalar, error) {
	names := map[string]bool{}
	for {
		t, err := d.Token()
		if err != nil {
			return nil, errCanonical
		}
		name, ok := t.(string)
		switch {
		case !ok:
			return values, nil // the closing brace, for the decoder lets nothing else stand here
		case names[name]:
			return nil, errCanonical
		}
		names[name] = true
		if t, err = d.Token(); err != nil {
			return nil, errCanonical
		}
		v := scalar{key: strings.ToLower(name), index: len(values) + 1}
		switch t := t.(type) {
		case string:
			v.value = t
		case json.Number:
			v.value = t.String()
		case bool:
			v.value = strconv.FormatBool(t)
		case json.Delim:
			if t != '{' {
				return nil, errCanonical
			}
			if values, err = walk(d, values); err != nil {
				return nil, err
			}
			continue
		default:
			return nil, errCanonical // null
		}
		values = append(values, v)
	}
}
