package issuer_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault"
	"github.com/cardstile/cardstile/vault/envelope"
)

// This file holds every issuer to what package gateway counts on, whatever its API.

// kindCalls make a call for one of an issuer's operations. A kind that is new has none here, and fails.
var kindCalls = map[string]func(testing.TB, policy.Operation) *issuer.Call{
	"bridge": func(t testing.TB, op policy.Operation) *issuer.Call {
		s, _ := legs(t, "clear")
		c := ask(s, op)
		c.Status = exchange.Frozen
		return c
	},
	"forward": func(_ testing.TB, op policy.Operation) *issuer.Call {
		c := carried(declared("POST", "/x", nil, nil), "", "", `{}`)
		c.Operations = []policy.Operation{op}
		return c
	},
	"gnosispay": func(t testing.TB, _ policy.Operation) *issuer.Call {
		c, _ := uploaded(t, testPAN)
		return c
	},
	"payroc": func(t testing.TB, op policy.Operation) *issuer.Call {
		c := paid(held(t, whole), paymentBody)
		c.Operations, c.Forward.Call.Changes = []policy.Operation{op}, false // a payment does, whatever is declared
		return c
	},
	"rain": func(t testing.TB, op policy.Operation) *issuer.Call {
		s, client := session(t)
		c := ask(s, op)
		c.PIN, c.Status = sealPIN(t, client, "9153"), exchange.Frozen
		return c
	},
}

// everyCall runs a test for each operation of each kind.
func everyCall(t *testing.T, test func(t *testing.T, i issuer.Issuer, op policy.Operation, call func() *issuer.Call)) {
	t.Helper()
	for _, name := range kindNames() {
		kind, err := issuer.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		i, err := kind.New(issuer.Config{})
		if err != nil {
			t.Fatal(err)
		}
		for _, op := range policy.Operations() {
			if i.Serves(op) {
				t.Run(name+" "+string(op), func(t *testing.T) {
					if kindCalls[name] == nil {
						t.Fatal("no call in this test")
					}
					test(t, i, op, func() *issuer.Call { return kindCalls[name](t, op) })
				})
			}
		}
	}
}

// kindNames are those that a look-up's error lists.
func kindNames() []string {
	_, err := issuer.Lookup("")
	_, list, _ := strings.Cut(err.Error(), "(known: ")
	return strings.Split(strings.TrimSuffix(list, ")"), ", ")
}

// TestKinds: each has a credential and a leg, serves something, and nothing that is ours to do.
func TestKinds(t *testing.T) {
	for _, name := range kindNames() {
		kind, err := issuer.Lookup(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := envelope.ByName(kind.SessionFormat); (err != nil) != kind.InClear() || kind.CredentialHeader == "" {
			t.Errorf("%s: %+v, %v", name, kind, err)
		}
		i, err := kind.New(issuer.Config{})
		if err != nil {
			t.Fatal(err)
		}
		served := slices.DeleteFunc(policy.Operations(), func(op policy.Operation) bool { return !i.Serves(op) })
		if len(served) == 0 || i.Serves("") || slices.ContainsFunc(served, policy.Operation.Mints) {
			t.Errorf("%s serves %v", name, served)
		}
	}
}

// answering gives every request the same answer, and notes them.
type answering struct {
	carrier
	status int
	kind   string
	body   string
}

func (a *answering) RoundTrip(_ context.Context, req *issuer.Request, res *issuer.Response) error {
	defer req.Message.Destroy()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, *req)
	res.Status, res.ContentType = a.status, a.kind
	return a.read(strings.NewReader(a.body), req, res)
}

// TestEveryKindPassesOn: what the upstream says of the way is passed on as it is, so that the gateway knows what became of a
// change.
func TestEveryKindPassesOn(t *testing.T) {
	everyCall(t, func(t *testing.T, i issuer.Issuer, _ policy.Operation, call func() *issuer.Call) {
		for _, want := range []error{issuer.ErrUnreachable, issuer.ErrTimeout, issuer.ErrLost, issuer.ErrTooLarge, context.Canceled, context.DeadlineExceeded} {
			if res, err := i.Do(t.Context(), failing{fmt.Errorf("there: %w", want)}, call()); !errors.Is(err, want) || res != nil {
				t.Errorf("%v: %v, %v", want, res, err)
			}
		}
	})
}

// TestEveryKindReleasesNoCardNumber: whatever the status, a card number where none was declared is in no result and in no
// error; a refusal of our credential is ErrRefused; a redirect is followed by nobody.
func TestEveryKindReleasesNoCardNumber(t *testing.T) {
	everyCall(t, func(t *testing.T, i issuer.Issuer, _ policy.Operation, call func() *issuer.Call) {
		for _, status := range []int{0, 200, 201, 302, 307, 400, 401, 404, 409, 422, 500, 503} {
			up := &answering{status: status, kind: "application/json", body: `{"error":"4111111111111111","message":"4111 1111 1111 1111","id":"4111-1111-1111-1111","cardId":"4111111111111111"}`}
			res, err := i.Do(t.Context(), up, call())
			if (res == nil) != (err != nil) || vault.HoldsPANString(fmt.Sprintf("%+v %v", res, err)) {
				t.Errorf("%d: %v, %v", status, res, err)
			}
			if res != nil && res.Forward != nil && (vault.HoldsPANString(text(t, res)) || vault.HoldsPANString(res.Forward.ContentType)) {
				t.Errorf("%d: a card number", status)
			}
			if guarded := errors.Is(err, issuer.ErrGuard); status == 401 && !guarded && !errors.Is(err, issuer.ErrRefused) || status/100 == 3 && !errors.Is(err, issuer.ErrAnswer) {
				t.Errorf("%d: %v", status, err)
			}
			if len(up.seen) == 0 || len(up.seen) > 2 {
				t.Errorf("%d: %d requests", status, len(up.seen))
			}
		}
	})
}

// TestEveryKindSaysWhatChanges: an operation that changes something does so in one request, which says that it does, and no
// other request does.
func TestEveryKindSaysWhatChanges(t *testing.T) {
	everyCall(t, func(t *testing.T, i issuer.Issuer, op policy.Operation, call func() *issuer.Call) {
		up := &answering{status: 200, kind: "application/json", body: changeable}
		c := call()
		_, _ = i.Do(t.Context(), up, c)
		changes := 0
		for _, r := range up.seen {
			if r.Changes {
				changes++
			}
			if r.Call == "" || r.Method == "" || !strings.HasPrefix(r.Path, "/") || r.Body != nil && r.Message != nil {
				t.Errorf("%+v", r)
			}
		}
		if want := op.Changes() || c.Forward != nil && (c.Forward.Call.Changes || c.Forward.Paid); len(up.seen) == 0 || (changes == 1) != want || changes > 1 {
			t.Errorf("%d requests, %d change something", len(up.seen), changes)
		}
	})
}

// changeable is the card of all issuers at once, before it is changed.
const changeable = `{"id":"` + cardID + `","customer_id":"` + userID + `","userId":"` + userID + `","status":"active","last4":"1111","expirationMonth":"12","expirationYear":"2030",
	"limit":{"amount":5,"frequency":"perYearPeriod"},"card_details":{"last_4":"1111","expiry":"12/30","bin":"411111","pin_status":"set"},"cardId":"c-1"}`
