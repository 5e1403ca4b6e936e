// Package policy answers one question: may it? It knows partners, what their
// credentials prove, whose card it is, and the rules; it decides with a Permit
// that names the rule, or a *Denied that names the reason. It is pure: it has
// no network, storage or clock of its own. Whether a single-use credential was
// used before is answered in policy/store, through policy/credential.
package policy

import (
	"crypto/sha256"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

// Operation is what an exchange does. Each is decided alone.
type Operation string

// The operations. The zero Operation is none, and is denied.
const (
	CardReveal    Operation = "card.reveal"    // card number and security code, each its own decision
	CardProfile   Operation = "card.profile"   // what is no secret about a card
	CardStatus    Operation = "card.status"    // freeze, unfreeze, cancel
	CardMode      Operation = "card.mode"      // how purchases are settled, as the user chose
	CardProvision Operation = "card.provision" // what puts a card into a wallet
	CardLink      Operation = "card.link"      // bind a card to the account that signed for it
	PINReveal     Operation = "pin.reveal"
	PINSet        Operation = "pin.set"
	CardVerify    Operation = "card.verify" // a card that its holder brings: its number goes to the issuer, which names the card

	Forward       Operation = "forward"        // a call of the issuer's API, carried as it is but for its declared fields
	ForwardReveal Operation = "forward.reveal" // declared fields of its answer, each its own decision
	ForwardSubmit Operation = "forward.submit" // declared fields of its request, likewise

	FieldsMint  Operation = "fields.mint"  // a session of hosted fields, for one page
	FieldsRead  Operation = "fields.read"  // how that page is to look, which claims the session for it
	FieldSubmit Operation = "field.submit" // a field that the page submits, to be held until it is paid with [11]

	TokenMint      Operation = "token.mint"      // a single-use token
	ChallengeMint  Operation = "challenge.mint"  // something to sign, once
	SessionMint    Operation = "session.mint"    // a reusable credential: an access token, a login
	SessionRefresh Operation = "session.refresh" // the next one in its place
	SessionRevoke  Operation = "session.revoke"
	SessionCheck   Operation = "session.check" // whether it is good
)

// Operations lists them all.
func Operations() []Operation {
	return []Operation{
		CardReveal, CardProfile, CardStatus, CardMode, CardProvision, CardLink, PINReveal, PINSet, CardVerify, Forward, ForwardReveal,
		ForwardSubmit, FieldsMint, FieldsRead, FieldSubmit, TokenMint, ChallengeMint, SessionMint, SessionRefresh, SessionRevoke, SessionCheck,
	}
}

// TouchesCard reports whether the operation needs a card, and so an owner of
// that card.
func (o Operation) TouchesCard() bool {
	switch o {
	case CardReveal, CardProfile, CardStatus, CardMode, CardProvision, CardLink, PINReveal, PINSet:
		return true
	}
	return false
}

// forwards reports whether the operation is part of a forwarded call.
func (o Operation) forwards() bool {
	return o == Forward || o == ForwardReveal || o == ForwardSubmit
}

// Mints reports whether the operation is about a credential of ours: it has no
// issuer leg, and where it names a card it only binds to it.
func (o Operation) Mints() bool {
	switch o {
	case FieldsMint, FieldsRead, FieldSubmit, TokenMint, ChallengeMint, SessionMint, SessionRefresh, SessionRevoke, SessionCheck:
		return true
	}
	return false
}

// Changes reports whether the operation changes something at the issuer, and is
// recorded before and after [17]. Whether a Forward does is said by its method;
// CardMode and CardLink change what the gateway keeps, which records them alike.
func (o Operation) Changes() bool {
	return o == PINSet || o == CardStatus || o == CardVerify || o == ForwardSubmit
}

// Field is a sensitive value with a decision of its own [14].
type Field string

// The fields. FieldPIN belongs to PINReveal and PINSet, which imply it, as
// CardVerify implies FieldPAN.
const (
	FieldPAN     Field = "pan"
	FieldCVC     Field = "cvc"
	FieldPIN     Field = "pin"
	FieldAccount Field = "account" // an account number, which may be a card's: of forwarded calls
)

// Values of Request.UnboundTokens [1]. The zero value is WithUserProof.
const (
	UnboundWithUserProof     = "with_user_proof"     // an unbound token opens a card together with a user proof
	UnboundWithUserSignature = "with_user_signature" // together with what the user's wallet signed for this card and operation
	UnboundRefuse            = "refuse"              // never
	UnboundAllow             = "allow"               // always: a named compatibility mode
)

// Request is one operation of one exchange, with everything that was found out
// about it before the decision. It is only read.
type Request struct {
	Operation Operation
	Fields    []Field  // for CardReveal, ForwardReveal, ForwardSubmit and FieldSubmit (none there: a detail): which; otherwise left empty
	Partner   *Partner // nil: anonymous
	User      string   // the user that the proofs name; "" where none is proven
	Named     string   // the user that the partner names; nobody proved them, so they only narrow [2]
	Call      string   // of a forwarded call: method and path, as the route declares them
	Card      *Holding // the directory's answer; nil where there is none, or no card is touched
	Issuer    string   // of the route
	Face      string   // of the route
	Proofs    []Proof

	Environment   string     // of the listener [5]
	Origin        string     // the browser origin, if one was sent
	Address       netip.Addr // of the caller
	Time          time.Time  // when the exchange was admitted
	Exchange      string     // the exchange's id; a permit is for this exchange alone
	SessionHash   [32]byte   // SHA-256 of the client preamble's text; zero where there is none
	UnboundTokens string     // the route's mode [1]
}

// Permit is a decision to allow one operation of one exchange. Only Decide
// makes one that permits anything: the zero Permit allows nothing and binds
// nothing.
type Permit struct {
	operation Operation
	rule      string
	fields    fieldSet
	binding   [sha256.Size]byte
	valid     bool
}

// Operation returns what is permitted, or "".
func (p Permit) Operation() Operation { return p.operation }

// Rule names the policy that permits: its @id annotation, or file:line. Where
// two fields are permitted by two policies, both are named, with a comma.
func (p Permit) Rule() string { return p.rule }

// Allows reports whether the field may be revealed or set. A permit for
// CardReveal can allow one of the requested fields and not the other.
func (p Permit) Allows(field Field) bool { return p.valid && p.fields.has(field) }

// Binding returns 32 bytes that stand for exactly this decision: the associated
// data of the cryptography that acts on it. The zero Permit's is nil.
func (p Permit) Binding() []byte {
	if !p.valid {
		return nil
	}
	return slices.Clone(p.binding[:])
}

// Reasons of a Denied: a closed set, for metrics and audit. A caller is told
// none of them.
const (
	DeniedNoPolicy     = "no_policy"     // no rule permits it: the default
	DeniedForbidden    = "forbidden"     // a rule forbids it
	DeniedNotHolder    = "not_holder"    // somebody else's card
	DeniedUnknownCard  = "unknown_card"  // no such card at this issuer
	DeniedProof        = "proof"         // the proofs do not fit each other or the request
	DeniedUnboundToken = "unbound_token" // an unbound token, and no proof of the user [1]
	DeniedBound        = "bound"         // the token is bound to something else [6]
	DeniedError        = "error"         // the decision could not be made [25]
	DeniedEnvironment  = "environment"   // something is of another environment [5]
	DeniedDisabled     = "disabled"      // the partner is switched off
)

// Denied is a decision not to allow.
type Denied struct {
	Rule   string // the policy that forbids, or that could not be evaluated; "" where none was asked
	Reason string // one of the constants above
	Detail string // for the operator's log: constant text, or ""
}

// Error names reason, rule and detail.
func (d *Denied) Error() string {
	text := "denied: " + d.Reason
	if d.Rule != "" {
		text += " by " + d.Rule
	}
	if d.Detail != "" {
		text += ": " + d.Detail
	}
	return text
}

// Decide decides. It fails closed: what is missing, inconsistent or cannot be
// evaluated is denied. Object-level authorization stands before the rules, so
// that no rule can open somebody else's card. The error is always a *Denied,
// and the Permit beside it is zero.
//
// Several proofs of one exchange must tell one story: they name the same
// partner and user as the request does, in the request's environment.
//
// A CardReveal of two fields is permitted if one of them is; ask Allows.
func (e *Engine) Decide(r *Request) (Permit, error) {
	for _, check := range [...]func(*Engine, *Request) *Denied{
		(*Engine).complete,
		(*Engine).standing,
		(*Engine).proven,
		(*Engine).redeemable, // before held: a token that is bound elsewhere tells nothing about the card
		(*Engine).held,
	} {
		if denied := check(e, r); denied != nil {
			return Permit{}, denied
		}
	}
	fields, rule, denied := e.rules(r)
	if denied != nil {
		return Permit{}, denied
	}
	permit := Permit{operation: r.Operation, rule: rule, fields: fields, valid: true}
	permit.binding = bind(r, fields, rule)
	return permit, nil
}

// complete checks that the request has what every decision needs.
func (e *Engine) complete(r *Request) *Denied {
	var missing string
	switch {
	case e == nil || r == nil:
		missing = "no engine or no request"
	case !r.Time.After(time.UnixMilli(0)):
		missing = "the request has no time"
	case !r.Address.IsValid():
		missing = "the request has no address"
	case r.Exchange == "":
		missing = "the request has no exchange id"
	case r.Issuer == "":
		missing = "the request has no issuer"
	case actionsOf(r) == nil:
		missing = "the operation is unknown, or its fields do not belong to it"
	case r.UnboundTokens != "" && r.UnboundTokens != UnboundWithUserProof && r.UnboundTokens != UnboundWithUserSignature &&
		r.UnboundTokens != UnboundRefuse && r.UnboundTokens != UnboundAllow:
		missing = "the mode of unbound tokens is unknown"
	default:
		return nil
	}
	return &Denied{Reason: DeniedError, Detail: missing}
}

// standing checks the partner's switch, and that partner and issuer are of the
// request's environment [5].
func (e *Engine) standing(r *Request) *Denied {
	if r.Partner != nil {
		if r.Partner.ID == "" {
			return &Denied{Reason: DeniedError, Detail: "a partner without id"}
		}
		if r.Partner.Disabled {
			return &Denied{Reason: DeniedDisabled}
		}
		if r.Partner.Environment != r.Environment {
			return &Denied{Reason: DeniedEnvironment, Detail: "the partner's"}
		}
	}
	if e.issuers == nil {
		return nil
	}
	environment, known := e.issuers[r.Issuer]
	switch {
	case !known:
		return &Denied{Reason: DeniedError, Detail: "the issuer is not configured"}
	case environment != r.Environment:
		return &Denied{Reason: DeniedEnvironment, Detail: "the issuer's"}
	}
	return nil
}

// proven checks that the proofs tell one story, and the request's.
func (e *Engine) proven(r *Request) *Denied {
	named := r.User == ""
	for i := range r.Proofs {
		proof := &r.Proofs[i]
		if !proof.fits(r) {
			return &Denied{Reason: DeniedProof, Detail: "a proof is of another partner or user, or is incomplete"}
		}
		if proof.Environment != "" && proof.Environment != r.Environment {
			return &Denied{Reason: DeniedEnvironment, Detail: "a credential's"}
		}
		if proof.Grant != nil && proof.Grant.Environment != r.Environment {
			return &Denied{Reason: DeniedEnvironment, Detail: "the token's"}
		}
		named = named || proof.User == r.User || proof.Grant != nil && proof.Grant.User == r.User
	}
	if !named {
		return &Denied{Reason: DeniedProof, Detail: "nothing proves the user"}
	}
	return nil
}

// fits reports whether a proof is of a known kind, whole, and about the
// request's own partner and user.
func (p *Proof) fits(r *Request) bool {
	partner := ""
	if r.Partner != nil {
		partner = r.Partner.ID
	}
	switch p.Kind {
	case KindCertificate:
		if p.Partner == "" || p.Certificate == [32]byte{} {
			return false
		}
	case KindAPIKey, KindFields:
		if p.Partner == "" {
			return false
		}
	case KindPublicKey, KindSignature, KindRefresh:
		if p.Partner == "" || p.Account == "" {
			return false
		}
	case KindJWT:
		// They name a partner, perhaps with an account of it, or a user.
		if p.Partner == "" && p.User == "" {
			return false
		}
	case KindCookie, KindWallet, KindPasskey:
		if p.User == "" {
			return false
		}
	case KindToken, KindCardToken:
		if p.Grant == nil || p.Grant.Partner == "" || p.Grant.Partner != partner || (p.Grant.Held != "") != (p.Kind == KindCardToken) {
			return false
		}
	default:
		return false
	}
	if p.Grant != nil && p.Kind != KindToken && p.Kind != KindCardToken {
		return false
	}
	return (p.Partner == "" || p.Partner == partner) && (p.User == "" || p.User == r.User)
}

// held checks that the card is there, is this issuer's, belongs to partner and
// user, and is the one that the proofs are for. A card that is named without
// need (the one that a token is minted for) is checked all the same.
func (e *Engine) held(r *Request) *Denied {
	switch {
	case r.Card == nil && !r.Operation.TouchesCard():
		if !r.provenFor("") {
			return &Denied{Reason: DeniedProof, Detail: "a credential is for a card, and this is about none"}
		}
		return nil
	case r.Card == nil || r.Card.Card == "" || r.Card.Issuer != r.Issuer:
		return &Denied{Reason: DeniedUnknownCard}
	case !r.Card.heldBy(r.Partner, r.User) || !r.Card.heldBy(r.Partner, r.Named):
		return &Denied{Reason: DeniedNotHolder}
	case !r.provenFor(r.Card.Card):
		return &Denied{Reason: DeniedNotHolder, Detail: "a credential is for another card"}
	case r.Card.Environment != r.Environment:
		return &Denied{Reason: DeniedEnvironment, Detail: "the card's"}
	}
	return nil
}

// provenFor reports whether no proof is for another card than this one.
func (r *Request) provenFor(card string) bool {
	for i := range r.Proofs {
		if named := r.Proofs[i].Card; named != "" && named != card {
			return false
		}
	}
	return true
}

// redeemable checks that a token opens what is asked for: what it is bound to,
// and that an unbound one does not open a card by itself [1].
func (e *Engine) redeemable(r *Request) *Denied {
	user, unbound := false, false
	for i := range r.Proofs {
		proof := &r.Proofs[i]
		if denied := proof.opens(r); denied != nil {
			return denied
		}
		user = user || proof.provesUser() && (r.UnboundTokens != UnboundWithUserSignature || proof.Kind == KindWallet)
		unbound = unbound || proof.Kind == KindToken && !proof.Grant.Bound()
	}
	if !unbound || !r.Operation.TouchesCard() || r.UnboundTokens == UnboundAllow {
		return nil
	}
	if user && r.UnboundTokens != UnboundRefuse {
		return nil
	}
	return &Denied{Reason: DeniedUnboundToken}
}

// opens returns why a credential that is good for some things alone is not good
// for the request: a token opens what it is bound to and mints nothing, one that
// stands for a held card pays with it, and a page's session is about its own
// fields. What else is shown beside it does not make it good for more.
func (p *Proof) opens(r *Request) *Denied {
	switch p.Kind {
	case KindToken:
		if r.Operation.Mints() {
			return &Denied{Reason: DeniedProof, Detail: "a token does not mint"}
		}
		if !p.Grant.opens(r) {
			return &Denied{Reason: DeniedBound}
		}
	case KindCardToken:
		if !p.Grant.pays(r) {
			return &Denied{Reason: DeniedBound, Detail: "a held card is for a forwarded call"}
		}
	case KindFields:
		if r.Operation != FieldsRead && r.Operation != FieldSubmit && r.Operation != TokenMint {
			return &Denied{Reason: DeniedProof, Detail: "a session of hosted fields is about its own fields alone"}
		}
	}
	return nil
}

// bindingLabel begins what is hashed. Another encoding takes another label.
const bindingLabel = "cardstile permit v2"

// bind hashes the decision: each value with its length in four bytes before it,
// so that no two decisions have one encoding.
func bind(r *Request, fields fieldSet, rule string) [sha256.Size]byte {
	var partner, card string
	if r.Partner != nil {
		partner = r.Partner.ID
	}
	if r.Card != nil {
		card = r.Card.Card
	}
	var buffer [512]byte
	message := buffer[:0]
	for _, value := range [...]string{
		bindingLabel, r.Exchange, partner, r.User, string(r.Operation), card, r.Issuer, fields.String(), rule, r.Named, r.Call,
	} {
		message = binary.BigEndian.AppendUint32(message, uint32(len(value)))
		message = append(message, value...)
	}
	return sha256.Sum256(message)
}

// fieldSet is a set of fields.
type fieldSet uint8

// fieldOrder is the order of its bits.
var fieldOrder = [...]Field{FieldPAN, FieldCVC, FieldPIN, FieldAccount}

func setOf(field Field) fieldSet {
	for i, f := range fieldOrder {
		if f == field {
			return 1 << i
		}
	}
	return 0
}

func (s fieldSet) has(field Field) bool {
	one := setOf(field)
	return one != 0 && s&one == one
}

// String lists the fields, in one order.
func (s fieldSet) String() string { return fieldNames[s&(1<<len(fieldOrder)-1)] }

// fieldNames is the text of each set.
var fieldNames = func() (names [1 << len(fieldOrder)]string) {
	for set := range names {
		for i, f := range fieldOrder {
			switch {
			case set&(1<<i) == 0:
			case names[set] == "":
				names[set] = string(f)
			default:
				names[set] += "," + string(f)
			}
		}
	}
	return names
}()
