package issuer_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
	"github.com/cardstile/cardstile/vault/keys"
)

const verifyCall = "POST /api/v1/cards/verify"

func gnosisPay(t testing.TB) issuer.Issuer {
	t.Helper()
	kind, err := issuer.Lookup("gnosispay")
	must(err)
	i, err := kind.New(issuer.Config{})
	must(err)
	return i
}

// newGnosisCards starts the sandbox of Gnosis Pay's cards over HTTPS, on a free loopback port.
func newGnosisCards(t *testing.T) (*sandbox.GnosisCards, *carrier) {
	t.Helper()
	box, err := sandbox.NewGnosisCards(sandbox.GnosisCardsConfig{APIKeys: map[string]string{apiKey: userID}, Key: shared().issuerKey})
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(box.Handler())
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(func() {
		must(box.Shutdown(context.Background()))
		server.Close()
	})
	base, err := url.Parse(server.URL)
	must(err)
	return box, &carrier{base: base, client: server.Client()}
}

// uploads are the keys that devices seal their uploads for.
var uploads = sync.OnceValues(func() (*vault.ClientKeys, *keys.Key) {
	dir, err := os.MkdirTemp("", "issuer")
	must(err)
	defer os.RemoveAll(dir)
	pem, err := keys.Generate(keys.UseSession, 2048)
	must(err)
	file := filepath.Join(dir, "session.pem")
	must(os.WriteFile(file, pem, 0o600))
	key, err := keys.Load(keys.Config{ID: "upload", Use: keys.UseSession, File: file})
	must(err)
	clients, err := vault.NewClientKeys(envelope.Gnosis{}, key)
	must(err)
	return clients, key
})

// uploaded opens both legs of an upload, and gives what the device sent.
func uploaded(t testing.TB, number string) (*issuer.Call, sandbox.GnosisUpload) {
	t.Helper()
	clients, key := uploads()
	upload, err := sandbox.NewGnosisUpload(key.Public(), number)
	must(err)
	preamble, err := clients.Parse(upload.EncryptedKey)
	must(err)
	to, err := vault.NewIssuerKey(envelope.Gnosis{}, &shared().issuerKey.PublicKey)
	must(err)
	s, err := shared().vault.Open(t.Context(), vault.Opening{Binding: make([]byte, 32), Client: clients, Preamble: preamble, Issuer: to})
	must(err)
	t.Cleanup(s.Close)
	return &issuer.Call{
		Operations: []policy.Operation{policy.CardVerify}, Session: s, Upload: vault.Sealed{Data: upload.EncryptedPAN, IV: upload.IV},
	}, upload
}

// TestGnosisPayExchanges: what is sent for each upload, nothing else, and what comes of it. In the golden file, what differs
// from run to run stands in angle brackets.
func TestGnosisPayExchanges(t *testing.T) {
	var b strings.Builder
	for _, test := range []struct {
		name, number string
		before       int // how often the card was there before
		want         error
	}{
		{"card", testPAN, 0, nil},
		{"card of 19 digits", "6205500000000000004", 0, nil},
		{"card that is there", testPAN, 1, issuer.ErrBadCard},
		{"wrong check digit", "4111111111111112", 0, issuer.ErrBadCard},
	} {
		box, up := newGnosisCards(t)
		for range test.before {
			call, _ := uploaded(t, test.number)
			if _, err := gnosisPay(t).Do(t.Context(), up, call); err != nil {
				t.Fatal(err)
			}
		}
		before := len(up.seen)
		call, upload := uploaded(t, test.number)
		res, err := gnosisPay(t).Do(t.Context(), up, call)
		fmt.Fprintf(&b, "== %s\n", test.name)
		for i, r := range up.seen[before:] {
			fmt.Fprintf(&b, "%s: %s %s ? %q | %d headers | changes %t\n", r.Call, r.Method, r.Path, r.Query, len(r.Header), r.Changes)
			fmt.Fprintln(&b, uploadShape(t, up.sent[before+i], upload, call.Session))
		}
		if !errors.Is(err, test.want) || (err == nil) != (test.want == nil) || (res == nil) != (err != nil) {
			t.Errorf("%s: %v, %v", test.name, res, err)
		}
		cards := box.Cards()
		if err != nil {
			fmt.Fprintf(&b, "%v\n\n", err)
			if len(cards) != test.before || strings.Contains(err.Error(), "already") {
				t.Errorf("%s: %v, %v", test.name, cards, err)
			}
			continue
		}
		if len(cards) != 1 || cards[0].NumberSHA256 != sha256.Sum256([]byte(test.number)) || res.Card.ID != cards[0].ID {
			t.Errorf("%s: %+v, %+v", test.name, res, cards)
		}
		res.Card.ID = "<of the card>"
		fmt.Fprintf(&b, "%+v\n\n", res.Card)
	}
	golden(t, "gnosispay.golden", b.String())
}

// uploadShape is the members of a body, none of which is the device's.
func uploadShape(t testing.TB, body string, sent sandbox.GnosisUpload, s *vault.Session) string {
	t.Helper()
	var members map[string]string
	if err := json.Unmarshal([]byte(body), &members); err != nil {
		t.Fatal(err)
	}
	if members["encryptedKey"] != s.IssuerPreamble() || members["encryptedKey"] == sent.EncryptedKey || members["encryptedPan"] == sent.EncryptedPAN || members["iv"] == sent.IV {
		t.Errorf("the device's own ciphertext is in %s", body)
	}
	return strings.Join(slices.Sorted(maps.Keys(members)), ", ")
}

// TestGnosisPayStatuses: an answer's status alone decides what it is; its text is passed on to nobody.
func TestGnosisPayStatuses(t *testing.T) {
	for status, want := range map[int]error{
		0: issuer.ErrAnswer, 100: issuer.ErrAnswer, 301: issuer.ErrAnswer, 304: issuer.ErrAnswer, 307: issuer.ErrAnswer,
		400: issuer.ErrRefused, 401: issuer.ErrRefused, 403: issuer.ErrRefused, 404: issuer.ErrNoCard, 409: issuer.ErrRefused, 422: issuer.ErrBadCard, 429: issuer.ErrRefused,
		500: issuer.ErrFailed, 502: issuer.ErrFailed, 503: issuer.ErrFailed, 600: issuer.ErrAnswer,
	} {
		for _, body := range []string{`{"error":"4111111111111111","message":"4111111111111111","details":"4111111111111111"}`, `{"cardId":"c-1"}`, ``} {
			call, _ := uploaded(t, testPAN)
			res, err := gnosisPay(t).Do(t.Context(), canned{verifyCall: {Status: status, Body: []byte(body)}}, call)
			if !errors.Is(err, want) || res != nil || strings.Contains(err.Error(), "4111") {
				t.Errorf("%d: %v, %v", status, res, err)
			}
			for _, other := range []error{issuer.ErrAnswer, issuer.ErrRefused, issuer.ErrNoCard, issuer.ErrBadCard, issuer.ErrFailed} {
				if other != want && errors.Is(err, other) {
					t.Errorf("%d: %v is %v too", status, err, other)
				}
			}
		}
	}
}

// TestGnosisPayCard: what names a card, and what does not.
func TestGnosisPayCard(t *testing.T) {
	for body, want := range map[string]string{
		`{"cardId":"c-1"}`: "c-1",
		`{"new":[1],"cardId":"3989a6a9-63ed-4828-86bf-84284e472f42"}`: "3989a6a9-63ed-4828-86bf-84284e472f42",
		`{"cardId":"` + strings.Repeat("x", 128) + `"}`:               strings.Repeat("x", 128),
	} {
		call, _ := uploaded(t, testPAN)
		if res, err := gnosisPay(t).Do(t.Context(), canned{verifyCall: ok(body)}, call); err != nil || res.Card.ID != want {
			t.Errorf("%s: %v, %v", body, res, err)
		}
	}
	for body, want := range map[string]error{
		``: issuer.ErrAnswer, `{`: issuer.ErrAnswer, `null`: issuer.ErrAnswer, `[]`: issuer.ErrAnswer, `{}`: issuer.ErrAnswer, `{"cardId":""}`: issuer.ErrAnswer,
		`{"cardId":null}`: issuer.ErrAnswer, `{"cardId":1}`: issuer.ErrAnswer, `{"CardId":"c-1"}`: issuer.ErrAnswer, `{"cardId":"a","cardId":"b"}`: issuer.ErrAnswer,
		`{"cardId":"` + strings.Repeat("x", 129) + `"}`: issuer.ErrAnswer, `{"cardId":"a b"}`: issuer.ErrAnswer, `{"cardId":"\u00fc"}`: issuer.ErrAnswer, `{"cardId":"a\n"}`: issuer.ErrAnswer,
		`{"cardId":"4111111111111111"}`: issuer.ErrGuard, `{"cardId":"card-4111-1111-1111-1111"}`: issuer.ErrGuard,
	} {
		call, _ := uploaded(t, testPAN)
		if res, err := gnosisPay(t).Do(t.Context(), canned{verifyCall: ok(body)}, call); !errors.Is(err, want) || res != nil || strings.Contains(err.Error(), "1111") {
			t.Errorf("%s: %v, %v", body, res, err)
		}
	}
}

// TestGnosisPayFaults: each way in which the issuer's answer can be bad. The card was taken all the same, where it was.
func TestGnosisPayFaults(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		want  error
		taken int
	}{
		{"500", sandbox.Fault500, issuer.ErrFailed, 0},
		{"card number in an error", sandbox.FaultPANInError, issuer.ErrFailed, 0},
		{"card number in a member", sandbox.FaultPANInMember, nil, 1}, // which nobody reads
		{"field missing", sandbox.FaultMissingField, issuer.ErrAnswer, 1},
		{"empty", sandbox.FaultEmptyBody, issuer.ErrAnswer, 1},
		{"malformed", sandbox.FaultMalformedJSON, issuer.ErrAnswer, 1},
		{"cut off", sandbox.FaultTruncatedBody, issuer.ErrLost, 1},
		{"redirect", sandbox.FaultRedirect, issuer.ErrAnswer, 1},
		{"disconnected", sandbox.FaultDisconnect, issuer.ErrLost, 1},
	} {
		box, up := newGnosisCards(t)
		box.SetFault(userID, test.fault)
		call, _ := uploaded(t, testPAN)
		res, err := gnosisPay(t).Do(t.Context(), up, call)
		if !errors.Is(err, test.want) || (res == nil) != (test.want != nil) || err != nil && strings.Contains(err.Error(), "1111") {
			t.Errorf("%s: %v, %v", test.name, res, err)
		}
		if box.Total() != 1 || len(box.Cards()) != test.taken {
			t.Errorf("%s: %d requests, %d cards", test.name, box.Total(), len(box.Cards()))
		}
	}
}

// TestGnosisPaySendsNoOther: what the vault refuses is not sent at all.
func TestGnosisPaySendsNoOther(t *testing.T) {
	foreign, _ := uploaded(t, testPAN)
	other, _ := uploaded(t, testPAN)
	foreign.Upload = other.Upload
	none, _ := uploaded(t, testPAN)
	none.Upload = vault.Sealed{}
	closed, _ := uploaded(t, testPAN)
	closed.Session.Close()
	text, _ := uploaded(t, "not a number")
	long, _ := uploaded(t, strings.Repeat("4", 20))
	without, _ := uploaded(t, testPAN)
	without.Session = nil
	for name, call := range map[string]*issuer.Call{
		"another's": foreign, "nothing": none, "closed": closed, "a text": text, "20 digits": long, "no session": without,
	} {
		box, up := newGnosisCards(t)
		if res, err := gnosisPay(t).Do(t.Context(), up, call); err != vault.ErrOpen || res != nil || box.Total() != 0 {
			t.Errorf("%s: %v, %v, %d requests", name, res, err, box.Total())
		}
	}
}

// FuzzGnosisPayAnswers: whatever the issuer answers, there is a card's name that may be shown, or an error of this package
// and no result.
func FuzzGnosisPayAnswers(f *testing.F) {
	f.Add(200, `{"cardId":"c-1"}`)
	f.Add(201, `{"cardId":"4111111111111111"}`)
	f.Add(422, `{"error":"Card already exists"}`)
	f.Add(400, `{"error":"x","details":{}}`)
	call, _ := uploaded(f, testPAN)
	f.Fuzz(func(t *testing.T, status int, body string) {
		res, err := gnosisPay(t).Do(t.Context(), canned{verifyCall: {Status: status, Body: []byte(body)}}, call)
		if err != nil {
			known := slices.ContainsFunc([]error{issuer.ErrAnswer, issuer.ErrFailed, issuer.ErrRefused, issuer.ErrNoCard, issuer.ErrBadCard, issuer.ErrGuard}, func(e error) bool { return errors.Is(err, e) })
			if res != nil || !known || len(body) > 20 && strings.Contains(err.Error(), body) {
				t.Fatalf("%v, %v", res, err)
			}
			return
		}
		if id := res.Card.ID; id == "" || len(id) > 128 || vault.HoldsPANString(id) || strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r > '~' }) || status/100 != 2 {
			t.Fatalf("%d: %q", status, id)
		}
	})
}

// TestGnosisPayUser: the issuer is told whose card it is where the directory has its name for the user, and nothing where not.
func TestGnosisPayUser(t *testing.T) {
	box, up := newGnosisCards(t)
	for i, user := range []string{"", userID} {
		call, _ := uploaded(t, []string{testPAN, "6205500000000000004"}[i])
		call.User = user
		if _, err := gnosisPay(t).Do(t.Context(), up, call); err != nil {
			t.Fatal(err)
		}
		seen := box.Requests()
		if got := seen[len(seen)-1].Header.Values("Cardstile-User"); (user == "") != (len(got) == 0) || user != "" && got[0] != user {
			t.Errorf("user %q: the issuer was told %q", user, got)
		}
	}
}
