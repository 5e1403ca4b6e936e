package credential_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
)

// authenticator signs as a browser with an authenticator does: what it says can
// be changed before it is signed.
type authenticator struct {
	id  string
	key crypto.Signer

	client        map[string]any
	rpID          string
	flags         byte
	count         uint32
	extensions    []byte
	cut           int    // bytes that are missing at the end of the authenticator data
	clientDataRaw []byte // instead of client, where it is not nil
}

func base64url(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// newAuthenticator has a key of ES256, EdDSA or RS256, and answers challenge.
func newAuthenticator(t testing.TB, algorithm, challenge string) *authenticator {
	t.Helper()
	var key crypto.Signer
	var err error
	switch algorithm {
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "EdDSA":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "RS256":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &authenticator{
		id: base64url([]byte("credential of " + algorithm)), key: key, rpID: "app.example", flags: 0x1d,
		client: map[string]any{
			"type": "webauthn.get", "challenge": base64url([]byte(challenge)), "origin": "https://app.example", "crossOrigin": false,
			"later": map[string]any{"members": "are passed over"},
		},
	}
}

func (a *authenticator) passkey(t testing.TB) policy.Passkey {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return policy.Passkey{ID: a.id, PublicKey: der}
}

func (a *authenticator) sign(t testing.TB) *credential.Assertion {
	t.Helper()
	client := a.clientDataRaw
	if client == nil {
		var err error
		if client, err = json.Marshal(a.client); err != nil {
			t.Fatal(err)
		}
	}
	rpHash, clientHash := sha256.Sum256([]byte(a.rpID)), sha256.Sum256(client)
	data := binary.BigEndian.AppendUint32(append(rpHash[:], a.flags), a.count)
	data = append(data, a.extensions...)
	data = data[:len(data)-a.cut]
	signed, options := append(slices.Clone(data), clientHash[:]...), crypto.SignerOpts(crypto.Hash(0))
	if _, whole := a.key.(ed25519.PrivateKey); !whole {
		hash := sha256.Sum256(signed)
		signed, options = hash[:], crypto.SHA256
	}
	signature, err := a.key.Sign(rand.Reader, signed, options)
	if err != nil {
		t.Fatal(err)
	}
	return &credential.Assertion{ID: a.id, ClientDataJSON: client, AuthenticatorData: data, Signature: signature}
}

// assertionJSON is how a browser writes an assertion.
func assertionJSON(t testing.TB, a *credential.Assertion) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{
		"id": a.ID, "rawId": a.ID, "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{},
		"response": map[string]any{
			"clientDataJSON": base64url(a.ClientDataJSON), "authenticatorData": base64url(a.AuthenticatorData), "signature": base64url(a.Signature), "userHandle": "AQI",
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func passkeys(t testing.TB, change func(*credential.PasskeysConfig)) *credential.Passkeys {
	t.Helper()
	config := credential.PasskeysConfig{RPID: "app.example", Origins: []string{"https://app.example", "http://localhost:8080"}}
	if change != nil {
		change(&config)
	}
	p, err := credential.NewPasskeys(config)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func ada(keys ...policy.Passkey) *policy.User {
	return &policy.User{ID: "ada", Partner: "p", Issuer: "rain", Passkeys: keys}
}

var adaProof = policy.Proof{Kind: policy.KindPasskey, User: "ada", Environment: "test"}

func TestPasskeyProvesItsUser(t *testing.T) {
	login := statement()
	login.Purpose, login.User, login.Card, login.Message = credential.PurposeLogin, "", "", credential.NewPasskeyChallenge()
	for _, challenge := range []credential.Challenge{statement(), login} {
		for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
			a := newAuthenticator(t, algorithm, challenge.Message)
			user := ada(policy.Passkey{ID: "AA"}, a.passkey(t))
			assertion, err := credential.ParseAssertion(assertionJSON(t, a.sign(t)))
			if err != nil {
				t.Fatal(err)
			}
			if proof, err := passkeys(t, nil).Prove(assertion, &challenge, user); err != nil || proof != adaProof {
				t.Errorf("%s: %+v, %v", algorithm, proof, err)
			}
		}
	}
	if a, b := credential.NewPasskeyChallenge(), credential.NewPasskeyChallenge(); len(a) != 32 || a == b {
		t.Errorf("challenges %q and %q", a, b)
	}
}

// specKey is the public key of one of WebAuthn's test vectors, of whose COSE key
// the coordinates or the modulus are given.
func specKey(t *testing.T, algorithm string, parts ...string) crypto.PublicKey {
	t.Helper()
	raw := make([][]byte, len(parts))
	for i, part := range parts {
		var err error
		if raw[i], err = hex.DecodeString(part); err != nil {
			t.Fatal(err)
		}
	}
	switch algorithm {
	case "ES256":
		key, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, raw[0], raw[1]))
		if err != nil {
			t.Fatal(err)
		}
		return key
	case "EdDSA":
		return ed25519.PublicKey(raw[0])
	}
	return &rsa.PublicKey{N: new(big.Int).SetBytes(raw[0]), E: 65537}
}

// TestPublishedAssertions has test vectors of WebAuthn Level 3, section 16: the
// authentications of 16.2 (none, ES256), 16.3 (self, ES256, a member more), 16.7
// (packed, ES256, with the user verified), 16.10 (RS256) and 16.11 (EdDSA). The
// relying party is example.org.
func TestPublishedAssertions(t *testing.T) {
	for name, vector := range map[string]struct {
		algorithm                                  string
		key                                        []string
		id, challenge, client, authenticator, sign string
	}{
		"16.2": {
			"ES256", []string{"afefa16f97ca9b2d23eb86ccb64098d20db90856062eb249c33a9b672f26df61", "930a56b87a2fca66334b03458abf879717c12cc68ed73290af2e2664796b9220"},
			"f91f391db4c9b2fde0ea70189cba3fb63f579ba6122b33ad94ff3ec330084be4",
			"39c0e7521417ba54d43e8dc95174f423dee9bf3cd804ff6d65c857c9abf4d408",
			"7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224f63446e55685158756c5455506f334a5558543049393770767a7a59425039745a63685879617630314167222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73657d",
			"bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000",
			"3046022100f50a4e2e4409249c4a853ba361282f09841df4dd4547a13a87780218deffcd380221008480ac0f0b93538174f575bf11a1dd5d78c6e486013f937295ea13653e331e87",
		},
		"16.3": {
			"ES256", []string{"eb151c8176b225cc651559fecf07af450fd85802046656b34c18f6cf193843c5", "927b8aa427a2be1b8834d233a2d34f61f13bfd44119c325d5896e183fee484f2"},
			"455ef34e2043a87db3d4afeb39bbcb6cc32df9347c789a865ecdca129cbef58c",
			"4478a10b1352348dd160c1353b0d469b5db19eb91c27f7dfa6fed39fe26af20b",
			"7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a225248696843784e534e493352594d45314f7731476d3132786e726b634a5f6666707637546e2d4a71386773222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73652c22657874726144617461223a22636c69656e74446174614a534f4e206d617920626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c207375636820617320746869733a206754623533727a36456853576f6d58477a696d433151227d",
			"bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b50900000000",
			"304402203310b9431903c401f1be2bdc8d23a4007682dbbddcf846994947b7f465daf84002204e94dd00047b316061b3b99772b7efd95994a83ef584b3b6b825ea3550251b66",
		},
		"16.7": {
			"ES256", []string{"1cf27f25da591208a4239c2e324f104f585525479a29edeedd830f48e77aeae5", "59e4b7da6c0106e206ce390c93ab98a15a5ec3887e57f0cc2bece803b920c423"},
			"c9a6f5b3462d02873fea0c56862234f99f081728084e511bb7760201a89054a5",
			"b1106fa46a57bef1781511c0557dc898a03413d5f0f17d244630c194c7e1adb5",
			"7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a2273524276704770587676463446524841565833496d4b4130453958773858306b526a44426c4d6668726255222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73652c22657874726144617461223a22636c69656e74446174614a534f4e206d617920626520657874656e6465642077697468206164646974696f6e616c206669656c647320696e20746865206675747572652c207375636820617320746869733a20415a4d77794d78496244382d756775464e7036723851227d",
			"bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b50d00000000",
			"30450220694969d3ee928de6f02ef23a9c644d7d779916451734a94b432542f498a1ebe90221008b0819c824218a97152cd099c55bfb1477b29d900a49a64018314f9bfccda163",
		},
		"16.10": {
			"RS256", []string{"03fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff80000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000001"},
			"992a18acc83f67533600c1138a4b4c4bd236de13629cf025ed17cb00b00b74df",
			"295f59f5fa8fe62c5aca9e27626c78c8da376ae6d8cd2dd29aebad601e1bc4c5",
			"7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a224b56395a39667150356978617970346e596d7834794e6f33617562597a5333536d75757459423462784d55222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73657d",
			"bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b51900000000",
			"01063d52d7c39b4d432fc7063c5d93e582bdcb16889cd71f888d67d880ea730a428498d3bc8e1ee11f2b1ecbe6c292b118c55ffaaddefa8cad0a54dd137c51f1eec673f1bb6c4d1789d6826a222b22d0f585fc901fdc933212e579d199b89d672aa44891333e6a1355536025e82b25590256c3538229b55737083b2f6b9377e49e2472f11952f79fdd0da180b5ffd901b4049a8f081bb40711bef76c62aed943571f2d0575304cb549d68d8892f95086a30f93716aee818f8dc06e96c0d5e0ed4cfa9fd8773d90464b68cf140f7986666ff9c9e3302acd0535d60d769f465e2ab57ef8aabc89fccfef7ba32a64154a8b3d26be2298f470b8cc5377dbe3dfd4b0b45f8f01e63bde6cfc76b62771f9b70aa27cf40152cad93aa5acd784fd4b90f676e2ea828d0bf2400aebbaae4153e5838f537f88b6228346782a93a899be66ec77de45b3efcf311da6321c92e6b0cd11bfe653bf3e98cee8e341f02d67dbb6f9c98d9e8178090cfb5b70fbc6d541599ac794ae2f1d4de1286ec8de8c2daf7b1d15c8438e90d924df5c19045220a4c8438c1b979bbe016cf3d0eeec23c3999d4882cc645b776de930756612cdc6dd398160ff02a6",
		},
		"16.11": {
			"EdDSA", []string{"44e06ddd331c36a8dc667bab52bcae63486c916aa5e339e6acebaa84934bf832"},
			"ce9f840ed96599580cd140fbc7bb3230633f50f61041aff73308ae71caa8a2bd",
			"895957e01c633a698348a2d8a31a54b7db27e8c1c43b2080d79ae2190267bfd2",
			"7b2274797065223a22776562617574686e2e676574222c226368616c6c656e6765223a2269566c583442786a4f6d6d44534b4c596f7870557439736e364d48454f7943413135726947514a6e763949222c226f726967696e223a2268747470733a2f2f6578616d706c652e6f7267222c2263726f73734f726967696e223a66616c73657d",
			"bfabc37432958b063360d3ad6461c9c4735ae7f8edd46592a5e0f01452b2e4b50100000000",
			"f5c59c7e46c34f6f8cc197101ddf9934fa2595f68eb1913a637e8419eb9ba4cfdfc48f85393bc0d40b011f0d6fecb097d6607525713223a0dc0d453993dae00b",
		},
	} {
		t.Run(name, func(t *testing.T) {
			raw := func(text string) []byte {
				decoded, err := hex.DecodeString(text)
				if err != nil {
					t.Fatal(err)
				}
				return decoded
			}
			der, err := x509.MarshalPKIXPublicKey(specKey(t, vector.algorithm, vector.key...))
			if err != nil {
				t.Fatal(err)
			}
			assertion := &credential.Assertion{
				ID: base64url(raw(vector.id)), ClientDataJSON: raw(vector.client), AuthenticatorData: raw(vector.authenticator), Signature: raw(vector.sign),
			}
			challenge := statement()
			challenge.Message = string(raw(vector.challenge))
			user := ada(policy.Passkey{ID: assertion.ID, PublicKey: der})
			required := ""
			if assertion.AuthenticatorData[32]&0x04 == 0 {
				required = policy.RefusedSignature // the user was not verified
			}
			for verification, want := range map[string]string{
				credential.VerificationRequired: required, credential.VerificationPreferred: "", credential.VerificationDiscouraged: "",
			} {
				p := passkeys(t, func(c *credential.PasskeysConfig) {
					c.RPID, c.Origins, c.UserVerification = "example.org", []string{"https://example.org"}, verification
				})
				proof, err := p.Prove(assertion, &challenge, user)
				if want != "" {
					refused(t, proof, err, policy.KindPasskey, want)
				} else if err != nil || proof != adaProof {
					t.Errorf("%s: %+v, %v", verification, proof, err)
				}
			}
		})
	}
}

// TestPasskeyRefusals changes one thing about what is signed.
func TestPasskeyRefusals(t *testing.T) {
	challenge := statement()
	client := func(member string, value any) func(*authenticator) {
		return func(a *authenticator) {
			if a.client[member] = value; value == nil {
				delete(a.client, member)
			}
		}
	}
	raw := func(text string) func(*authenticator) {
		return func(a *authenticator) { a.clientDataRaw = []byte(text) }
	}
	whole := `"type":"webauthn.get","challenge":"` + base64url([]byte(challenge.Message)) + `","origin":"https://app.example"`
	for name, test := range map[string]struct {
		change func(*authenticator)
		reason string
	}{
		"a registration":             {client("type", "webauthn.create"), policy.RefusedBound},
		"a payment":                  {client("type", "payment.get"), policy.RefusedBound},
		"another challenge":          {client("challenge", base64url([]byte(challenge.Message+"."))), policy.RefusedBound},
		"the challenge in clear":     {client("challenge", challenge.Message), policy.RefusedBound},
		"the challenge, padded":      {client("challenge", base64url([]byte(challenge.Message))+"="), policy.RefusedBound},
		"empty challenge":            {client("challenge", ""), policy.RefusedBound},
		"another origin":             {client("origin", "https://app.example.evil.example"), policy.RefusedBound},
		"origin, other scheme":       {client("origin", "http://app.example"), policy.RefusedBound},
		"origin, a slash":            {client("origin", "https://app.example/"), policy.RefusedBound},
		"origin, the port":           {client("origin", "https://app.example:443"), policy.RefusedBound},
		"origin, upper case":         {client("origin", "https://APP.example"), policy.RefusedBound},
		"origin null":                {client("origin", "null"), policy.RefusedBound},
		"in a frame":                 {client("crossOrigin", true), policy.RefusedBound},
		"in a page, named":           {client("topOrigin", "https://app.example"), policy.RefusedBound},
		"no type":                    {client("type", nil), policy.RefusedMalformed},
		"no challenge":               {client("challenge", nil), policy.RefusedMalformed},
		"no origin":                  {client("origin", nil), policy.RefusedMalformed},
		"origins, a list":            {client("origin", []string{"https://app.example"}), policy.RefusedMalformed},
		"cross origin, a text":       {client("crossOrigin", "false"), policy.RefusedMalformed},
		"no JSON":                    {raw("hello"), policy.RefusedMalformed},
		"null":                       {raw("null"), policy.RefusedMalformed},
		"origin twice":               {raw("{" + whole + `,"origin":"https://evil.example"}`), policy.RefusedMalformed},
		"Origin":                     {raw("{" + strings.Replace(whole, "origin", "Origin", 1) + "}"), policy.RefusedMalformed},
		"two values":                 {raw("{" + whole + "}{}"), policy.RefusedMalformed},
		"a byte order mark":          {raw("\ufeff{" + whole + "}"), policy.RefusedMalformed},
		"not UTF-8":                  {raw("{" + whole + ",\"x\":\"\xff\"}"), policy.RefusedMalformed},
		"another relying party":      {func(a *authenticator) { a.rpID = "example" }, policy.RefusedBound},
		"user not present":           {func(a *authenticator) { a.flags &^= 0x01 }, policy.RefusedSignature},
		"user not verified":          {func(a *authenticator) { a.flags &^= 0x04 }, policy.RefusedSignature},
		"backed up, not eligible":    {func(a *authenticator) { a.flags &^= 0x08 }, policy.RefusedMalformed},
		"attested credential":        {func(a *authenticator) { a.flags |= 0x40 }, policy.RefusedMalformed},
		"extensions, none":           {func(a *authenticator) { a.flags |= 0x80 }, policy.RefusedMalformed},
		"bytes after it":             {func(a *authenticator) { a.extensions = []byte{0xa0} }, policy.RefusedMalformed},
		"a byte of the count less":   {func(a *authenticator) { a.cut = 1 }, policy.RefusedMalformed},
		"the id's hash alone":        {func(a *authenticator) { a.cut = 5 }, policy.RefusedMalformed},
		"another credential's id":    {func(a *authenticator) { a.id = "AAAA" }, policy.RefusedUnknown},
		"another key":                {func(a *authenticator) { a.key = newAuthenticator(t, "ES256", "").key }, policy.RefusedSignature},
		"a key of another algorithm": {func(a *authenticator) { a.key = newAuthenticator(t, "EdDSA", "").key }, policy.RefusedSignature},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAuthenticator(t, "ES256", challenge.Message)
			user := ada(a.passkey(t))
			test.change(a)
			proof, err := passkeys(t, nil).Prove(a.sign(t), &challenge, user)
			refused(t, proof, err, policy.KindPasskey, test.reason, challenge.Message, a.id)
		})
	}
	for name, change := range map[string]func(*authenticator){
		"nothing":             func(*authenticator) {},
		"no crossOrigin":      client("crossOrigin", nil),
		"another origin":      client("origin", "http://localhost:8080"),
		"a count":             func(a *authenticator) { a.count = 7 },
		"not backed up":       func(a *authenticator) { a.flags &^= 0x18 },
		"reserved bits":       func(a *authenticator) { a.flags |= 0x22 },
		"extensions answered": func(a *authenticator) { a.flags |= 0x80; a.extensions = []byte{0xa0} },
		"spaces":              raw(" { " + whole + " } "),
	} {
		a := newAuthenticator(t, "ES256", challenge.Message)
		change(a)
		if proof, err := passkeys(t, nil).Prove(a.sign(t), &challenge, ada(a.passkey(t))); err != nil || proof != adaProof {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
}

func TestPasskeyInAFrame(t *testing.T) {
	challenge := statement()
	framed := passkeys(t, func(c *credential.PasskeysConfig) { c.TopOrigins = []string{"https://wallet.example"} })
	for name, test := range map[string]struct {
		cross bool
		top   any
		good  bool
	}{
		"not at all":     {false, nil, true},
		"in its page":    {true, "https://wallet.example", true},
		"in another":     {true, "https://evil.example", false},
		"nobody says in": {true, nil, false},
	} {
		a := newAuthenticator(t, "ES256", challenge.Message)
		if a.client["crossOrigin"] = test.cross; test.top != nil {
			a.client["topOrigin"] = test.top
		}
		proof, err := framed.Prove(a.sign(t), &challenge, ada(a.passkey(t)))
		if !test.good {
			refused(t, proof, err, policy.KindPasskey, policy.RefusedBound)
		} else if err != nil || proof != adaProof {
			t.Errorf("%s: %+v, %v", name, proof, err)
		}
	}
}

// TestPasskeyOfTheChallengesUser: whom the challenge is for, who is looked up
// and who signed are one.
func TestPasskeyOfTheChallengesUser(t *testing.T) {
	challenge := statement()
	a := newAuthenticator(t, "ES256", challenge.Message)
	assertion, user := a.sign(t), ada(a.passkey(t))
	wallets := challenge
	wallets.Method = policy.MethodSIWE
	bob, other, nobody := *user, *user, *user
	bob.ID, other.Partner, nobody.ID = "bob", "q", ""
	anybody, empty := challenge, challenge
	anybody.User, empty.Message = "", ""
	ofNothing := newAuthenticator(t, "ES256", "")
	for name, test := range map[string]struct {
		assertion *credential.Assertion
		expected  *credential.Challenge
		user      *policy.User
		reason    string
	}{
		"no assertion":           {nil, &challenge, user, policy.RefusedMalformed},
		"no challenge":           {assertion, nil, user, policy.RefusedBound},
		"zero challenge":         {assertion, &credential.Challenge{}, user, policy.RefusedBound},
		"a challenge of nothing": {ofNothing.sign(t), &empty, ada(ofNothing.passkey(t)), policy.RefusedBound},
		"a wallet's challenge":   {assertion, &wallets, user, policy.RefusedBound},
		"nobody":                 {assertion, &challenge, nil, policy.RefusedUser},
		"a user without id":      {assertion, &anybody, &nobody, policy.RefusedUser},
		"another user":           {assertion, &challenge, &bob, policy.RefusedUser},
		"another partner's":      {assertion, &challenge, &other, policy.RefusedPartner},
		"a user without any":     {assertion, &challenge, ada(), policy.RefusedUnknown},
		"a user with another's":  {assertion, &challenge, ada(newAuthenticator(t, "EdDSA", "").passkey(t)), policy.RefusedUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			proof, err := passkeys(t, nil).Prove(test.assertion, test.expected, test.user)
			refused(t, proof, err, policy.KindPasskey, test.reason)
		})
	}
	if proof, err := passkeys(t, nil).Prove(assertion, &anybody, &bob); err != nil || proof.User != "bob" {
		t.Errorf("whoever signs: %+v, %v", proof, err)
	}
	// A directory that hands out what is no key is our failure, not the caller's.
	proof, err := passkeys(t, nil).Prove(assertion, &challenge, ada(policy.Passkey{ID: a.id, PublicKey: []byte("x")}))
	if _, isRefused := errors.AsType[*policy.Refused](err); err == nil || isRefused || proof != (policy.Proof{}) {
		t.Errorf("%+v, %v", proof, err)
	}
}

// TestAnyOtherAssertionIsRefused flips every bit of what is signed and of the
// signature.
func TestAnyOtherAssertionIsRefused(t *testing.T) {
	challenge := statement()
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		a := newAuthenticator(t, algorithm, challenge.Message)
		assertion, user, p := a.sign(t), ada(a.passkey(t)), passkeys(t, nil)
		for part, raw := range map[string][]byte{
			"client data": assertion.ClientDataJSON, "authenticator data": assertion.AuthenticatorData, "signature": assertion.Signature,
		} {
			for bit := range 8 * len(raw) {
				raw[bit/8] ^= 1 << (bit % 8)
				if proof, err := p.Prove(assertion, &challenge, user); err == nil || proof != (policy.Proof{}) {
					t.Errorf("%s, bit %d of the %s: %+v, %v", algorithm, bit, part, proof, err)
				}
				raw[bit/8] ^= 1 << (bit % 8)
			}
		}
		if _, err := p.Prove(assertion, &challenge, user); err != nil {
			t.Errorf("%s, unchanged: %v", algorithm, err)
		}
	}
}

func TestPasskeysAreNotMadeOfLess(t *testing.T) {
	for name, change := range map[string]func(*credential.PasskeysConfig){
		"no RP id":            func(c *credential.PasskeysConfig) { c.RPID = "" },
		"RP id an origin":     func(c *credential.PasskeysConfig) { c.RPID = "https://app.example" },
		"RP id in upper case": func(c *credential.PasskeysConfig) { c.RPID = "App.example" },
		"RP id with two dots": func(c *credential.PasskeysConfig) { c.RPID = "app..example" },
		"RP id with a dot":    func(c *credential.PasskeysConfig) { c.RPID = "app.example." },
		"no origin":           func(c *credential.PasskeysConfig) { c.Origins = nil },
		"verification":        func(c *credential.PasskeysConfig) { c.UserVerification = "none" },
		"top origin":          func(c *credential.PasskeysConfig) { c.TopOrigins = []string{"*"} },
	} {
		config := credential.PasskeysConfig{RPID: "app.example", Origins: []string{"https://app.example"}}
		change(&config)
		if p, err := credential.NewPasskeys(config); err == nil || p != nil {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}
	android := "android:apk-key-hash:" + base64url(make([]byte, 32))
	for origin, good := range map[string]bool{
		"https://app.example": true, "https://app.example:8443": true, "http://localhost": true, "http://localhost:3000": true,
		"http://app.localhost:3000": true, android: true,
		"": false, "app.example": false, "*": false, "null": false, "https://*.example": false, "https://app.example/": false,
		"https://App.example": false, "HTTPS://app.example": false, "https://app.example:443": false, "http://localhost:80": false,
		"https://app.example:": false, "https://app.example:08443": false, "https://me@app.example": false, "https://app.example?x": false,
		"http://app.example": false, "ftp://app.example": false, "https://": false, android + "A": false, "android:apk-key-hash:": false,
	} {
		_, err := credential.NewPasskeys(credential.PasskeysConfig{RPID: "app.example", Origins: []string{origin}})
		if (err == nil) != good {
			t.Errorf("origin %q: %v", origin, err)
		}
	}
}

func TestRequestOptions(t *testing.T) {
	challenge := statement()
	challenge.Message = "\xff\xfe\xfd" // base64url: __79
	for user, want := range map[*policy.User]string{
		nil: `{"challenge":"__79","timeout":300000,"rpId":"app.example","allowCredentials":[],"userVerification":"required"}`,
		ada(policy.Passkey{ID: "AA"}, policy.Passkey{ID: "_w"}): `{"challenge":"__79","timeout":300000,"rpId":"app.example","allowCredentials":[{"id":"AA","type":"public-key"},{"id":"_w","type":"public-key"}],"userVerification":"required"}`,
	} {
		text, err := json.Marshal(passkeys(t, nil).Options(&challenge, user, 5*time.Minute))
		if err != nil || string(text) != want {
			t.Errorf("%s, %v", text, err)
		}
	}
}

// TestPasskeyLinksOnce is [21] from end to end: one signed statement, many who
// present it, and one challenge that was issued.
func TestPasskeyLinksOnce(t *testing.T) {
	at := newClock()
	c, p := challenges(t, memory(t, at), at), passkeys(t, nil)
	challenge := statement()
	a := newAuthenticator(t, "ES256", challenge.Message)
	assertion, user := a.sign(t), ada(a.passkey(t))
	for range 2 {
		if _, err := c.MintFor(t.Context(), challenge, time.Minute); err != nil {
			t.Fatal(err)
		}
	}
	won := race(t, 50, func(attempt store.Attempt) (*credential.Challenge, error) {
		taken, err := c.TakeFor(t.Context(), challenge.ChallengeUse, attempt)
		if err != nil {
			return nil, err
		}
		_, err = p.Prove(assertion, taken, user)
		return taken, err
	})
	if won != 1 {
		t.Errorf("%d linked the card", won)
	}
}

// BenchmarkPasskey is what a login by a passkey pays for its signature.
func BenchmarkPasskey(b *testing.B) {
	challenge := statement()
	for _, algorithm := range []string{"ES256", "EdDSA", "RS256"} {
		b.Run(algorithm, func(b *testing.B) {
			a := newAuthenticator(b, algorithm, challenge.Message)
			assertion, user, p := a.sign(b), ada(a.passkey(b)), passkeys(b, nil)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := p.Prove(assertion, &challenge, user); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
