package gateway_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/deploy/sandbox"
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/face"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
)

// act is one of the things that faces and issuers are for, as callers of one face do it.
type act struct {
	needs  []policy.Operation // of the issuer
	do     func(*house, back) error
	routes func(*house, *gateway.Issuer) []gateway.Route // in place of the face's, where the act has a route of its own
	sealed bool                                          // what crosses must not cross in clear: with an issuer in clear the act fails
}

// speaker is a face with its callers. An act that the face has no call for is the zero act.
type speaker struct {
	routes                  func(*house, *gateway.Issuer) []gateway.Route
	reveal, set, pay, bring act
}

// nextPIN is what each act of setting one sets.
const nextPIN = "9153"

var speakers = map[string]speaker{
	"gnosispay": {
		routes: gnosisRoutes,
		reveal: act{[]policy.Operation{policy.CardReveal}, (*house).gnosisReveals, nil, false},
		set:    act{[]policy.Operation{policy.PINSet}, (*house).gnosisSets, nil, false},
		bring: act{[]policy.Operation{policy.CardVerify}, (*house).gnosisBrings, func(h *house, is *gateway.Issuer) []gateway.Route {
			return []gateway.Route{h.verifyRoute(is)}
		}, false},
	},
	"exa": {
		routes: func(h *house, is *gateway.Issuer) []gateway.Route { return []gateway.Route{h.exaRoute(is)} },
		reveal: act{[]policy.Operation{policy.CardProfile, policy.CardReveal}, (*house).exaReveals, nil, false},
		set:    act{[]policy.Operation{policy.PINSet}, (*house).exaSets, nil, false},
	},
	"bridge": { // whose PINs are set on a page of the vendor's
		routes: func(h *house, is *gateway.Issuer) []gateway.Route { return []gateway.Route{h.bridgeRoute(is)} },
		reveal: act{[]policy.Operation{policy.CardReveal}, (*house).bridgeReveals, nil, false},
	},
	"paymentsgate": { // whose calls have no PINs [14]
		routes: func(h *house, is *gateway.Issuer) []gateway.Route { return []gateway.Route{h.paymentsRoute(is)} },
		reveal: act{[]policy.Operation{policy.Forward, policy.ForwardReveal}, (*house).paymentsReveal, nil, false},
	},
	"payroc": { // which shows no card
		routes: func(h *house, is *gateway.Issuer) []gateway.Route { return []gateway.Route{h.payrocRoute(is)} },
		pay:    act{[]policy.Operation{policy.Forward, policy.ForwardSubmit}, (*house).payrocPays, nil, true},
	},
}

// gnosisRoutes are those of face gnosispay, which offers PINs unless it is told not to.
func gnosisRoutes(h *house, is *gateway.Issuer) []gateway.Route {
	routes := h.routes(is)[:2]
	if !is.Adapter.Serves(policy.PINSet) {
		routes[1].Operations = []policy.Operation{policy.CardReveal}
	}
	return routes
}

// known are the names that a look-up's error lists.
func known(err error) []string {
	_, list, _ := strings.Cut(err.Error(), "(known: ")
	return strings.Split(strings.TrimSuffix(list, ")"), ", ")
}

// TestEveryFaceWithEveryIssuer: ciphertext in, the right plaintext at the end, for each face with each issuer that can do what
// the face asks for; one that cannot stops the start, and the error says what it cannot do. A face or an issuer that is new
// has no caller or no card here, and fails.
func TestEveryFaceWithEveryIssuer(t *testing.T) {
	_, err := face.Lookup("")
	faces := known(err)
	_, err = issuer.Lookup("")
	driven := map[string]int{}
	for _, is := range known(err) {
		b, ok := backs[is]
		if !ok {
			t.Errorf("issuer %s has no card in this test", is)
			continue
		}
		for _, name := range faces {
			s, ok := speakers[name]
			if !ok {
				t.Errorf("face %s has no caller in this test", name)
				continue
			}
			for what, a := range map[string]act{"reveal": s.reveal, "set PIN": s.set, "pay": s.pay, "bring a card": s.bring} {
				if a.do == nil {
					continue
				}
				s := s
				if a.routes != nil {
					s.routes = a.routes
				}
				t.Run(fmt.Sprintf("%s of %s with %s", what, name, is), func(t *testing.T) {
					if !canDo(is, a.needs) {
						stopsTheStart(t, s, is, a.needs)
						return
					}
					h := newHouse(t, options{routes: func(h *house) []gateway.Route { return s.routes(h, h.issuerKind(is, nil)) }})
					err := a.do(h, b)
					if kind, _ := issuer.Lookup(is); a.sealed && kind.InClear() {
						if err == nil || h.upstream() != 0 {
							t.Errorf("%v, %d requests were sent", err, h.upstream())
						}
						return
					}
					driven[name]++
					driven[is]++
					driven[what]++
					if err != nil {
						t.Error(err)
					}
					if last := h.records()[len(h.records())-1]; last.Result != "done" || last.Issuer != b.name || last.Face != name {
						t.Errorf("recorded %+v", last)
					}
				})
			}
		}
	}
	for _, name := range append(slices.Concat(faces, known(err)), "reveal", "set PIN", "pay", "bring a card") {
		if driven[name] == 0 {
			t.Errorf("%s was never driven", name)
		}
	}
}

func canDo(name string, operations []policy.Operation) bool {
	kind, err := issuer.Lookup(name)
	must(err)
	adapter, err := kind.New(issuer.Config{})
	must(err)
	return !slices.ContainsFunc(operations, func(op policy.Operation) bool { return !adapter.Serves(op) })
}

// stopsTheStart: the route names what it wants of the issuer, and neither Check nor New takes it.
func stopsTheStart(t *testing.T, s speaker, is string, operations []policy.Operation) {
	h := newHouse(t, options{})
	c := h.newConfig()
	c.Routes = nil
	for _, r := range s.routes(h, h.issuerKind(is, nil)) {
		if r.Listener == "public" { // a mint needs no issuer
			r.Operations = operations
			c.Routes = append(c.Routes, r)
		}
	}
	_, started := gateway.New(h.services, c)
	for _, err := range []error{gateway.Check(c), started, h.gateway.Reload(c)} {
		var at *gateway.RouteError
		if !errors.As(err, &at) || !strings.Contains(err.Error(), "issuer "+backs[is].name+" cannot do ") ||
			!slices.ContainsFunc(operations, func(op policy.Operation) bool { return strings.HasSuffix(err.Error(), " "+string(op)) }) {
			t.Errorf("%v", err)
		}
	}
}

// TestListedOperationThatTheIssuerLacks: faces leave out by themselves what the issuer cannot do. Where the route names it, that
// stops the start, although the rest could be served.
func TestListedOperationThatTheIssuerLacks(t *testing.T) {
	h := newHouse(t, options{})
	for listed, ok := range map[policy.Operation]bool{policy.PINSet: false, policy.PINReveal: false, policy.CardProvision: false, policy.CardMode: true} {
		c := h.newConfig()
		r := h.exaRoute(h.issuerKind("bridge", nil))
		r.Operations = []policy.Operation{policy.CardProfile, policy.CardReveal, listed}
		f := sealedFace()
		f.PIN, f.PINWithPAN = face.PINSoftware, true
		speak(&r, "exa", f)
		c.Routes = []gateway.Route{r}
		if err := gateway.Check(c); (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "issuer bridge cannot do "+string(listed)) {
			t.Errorf("%s: %v", listed, err)
		}
	}
}

// plaintexts compares what a caller has in the end with what the issuer has.
func (h *house) plaintexts(b back, pan, cvc string) error {
	if c := h.cards[b.at]; pan != c.PAN || cvc != c.CVC {
		return errors.New("what the caller reads is not what the issuer has")
	}
	return nil
}

// asked does a call and fails unless it is answered 200.
func (h *house) asked(c *caller, x call) (reply, error) {
	r := c.do(x)
	if r.status != 200 {
		return r, fmt.Errorf("%s %s: %d %s", x.method, x.path, r.status, r.body)
	}
	return r, nil
}

func (h *house) gnosisReveals(b back) error {
	s := h.session()
	r, err := h.asked(h.anybody(), detailsCall(b.card, h.mint(), s.ID()))
	if err != nil {
		return err
	}
	var v struct {
		Data struct{ EncryptedPAN, EncryptedCVC json.RawMessage }
	}
	must(json.Unmarshal([]byte(r.body), &v))
	return h.plaintexts(b, opened(s, v.Data.EncryptedPAN), opened(s, v.Data.EncryptedCVC))
}

func (h *house) gnosisSets(b back) error {
	if _, err := h.asked(h.anybody(), h.setPINCall(b.card, h.mint(), h.session(), nextPIN)); err != nil {
		return err
	}
	return h.isSet(b)
}

// isSet looks at the PIN where it is in the end.
func (h *house) isSet(b back) error {
	if h.rain.PIN(b.at) != nextPIN {
		return errors.New("the issuer has another PIN")
	}
	return nil
}

func (h *house) exaReveals(b back) error {
	h.login(b.user)
	s := h.session()
	r, err := h.asked(h.anybody(), h.exaCall(b.user, s.ID()))
	if err != nil {
		return err
	}
	var v struct {
		CardID, LastFour           string
		EncryptedPAN, EncryptedCVC json.RawMessage
	}
	must(json.Unmarshal([]byte(r.body), &v))
	if v.CardID != b.card || v.LastFour != h.cards[b.at].PAN[12:] {
		return fmt.Errorf("the card is another one: %s", r.body)
	}
	return h.plaintexts(b, opened(s, v.EncryptedPAN), opened(s, v.EncryptedCVC))
}

func (h *house) exaSets(b back) error {
	h.login(b.user)
	if _, err := h.asked(h.anybody(), h.exaPINCall(b.user, h.session(), nextPIN)); err != nil {
		return err
	}
	return h.isSet(b)
}

func (h *house) bridgeReveals(b back) error {
	proof := h.proof()
	r, err := h.asked(h.anybody(), proof.reveal(h.bridgeMint(b, proof)))
	if err != nil {
		return err
	}
	var v struct {
		Number string `json:"card_number"`
		Code   string `json:"card_security_code"`
		Expiry string `json:"expiry_date"`
	}
	must(json.Unmarshal([]byte(r.body), &v))
	if v.Expiry != "12/30" {
		return fmt.Errorf("expires %s", v.Expiry)
	}
	return h.plaintexts(b, v.Number, v.Code)
}

func (h *house) paymentsReveal(b back) error {
	s := h.session()
	x := h.accountLogin(account).call("GET", "/deals/"+sandbox.DealWithCard(payOwner)+"/credentials", "")
	r, err := h.asked(h.anybody(), x.with("sessionid", s.ID()))
	if err != nil {
		return err
	}
	var v struct {
		Number json.RawMessage `json:"account_number"`
	}
	must(json.Unmarshal([]byte(r.body), &v))
	return h.plaintexts(b, opened(s, v.Number), h.cards[b.at].CVC) // of which deals have none
}
