package policy

import (
	_ "embed" // the schema
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"
	cedarast "github.com/cedar-policy/cedar-go/x/exp/ast"
	"github.com/cedar-policy/cedar-go/x/exp/schema"
	"github.com/cedar-policy/cedar-go/x/exp/schema/resolved"
	"github.com/cedar-policy/cedar-go/x/exp/schema/validate"
)

// Schema is the published Cedar schema. Policies are written and analysed
// against it, and do not load unless they fit.
//
//go:embed schema.cedarschema
var Schema string

// The schema's entity types.
const (
	typeAction    types.EntityType = "Action"
	typePartner   types.EntityType = "Partner"
	typeAnonymous types.EntityType = "Anonymous"
	typeUser      types.EntityType = "User"
	typeIssuer    types.EntityType = "Issuer"
	typeCard      types.EntityType = "Card"
)

var anonymous = types.NewEntityUID(typeAnonymous, "anonymous")

// PolicyFile is the text of one file of policies. Name is what errors and rules
// call it.
type PolicyFile struct {
	Name   string
	Source []byte
}

// Issuer is what rules need to know of a configured issuer.
type Issuer struct {
	ID          string
	Environment string // "test" or "production" [5]
}

// EngineConfig is what an Engine is made of.
type EngineConfig struct {
	Policies []PolicyFile

	// Partners and Issuers are those that a policy may name. A policy that
	// names another does not load: a forbid about a misspelt partner would
	// forbid nothing. Left nil, such names are not checked. Requests for
	// an issuer that is not among Issuers are denied.
	Partners *Partners
	Issuers  []Issuer
}

// Engine decides. It is immutable and safe for concurrent use; a reload makes a
// new one. The zero Engine denies everything.
type Engine struct {
	actions  [numActions]compiled
	entities map[types.EntityUID]types.Entity           // what does not depend on a request
	issuers  map[string]string                          // id → environment; nil: not checked
	proofs   [numProofSets]atomic.Pointer[types.Record] // by what was proven, each made when it is first met
}

// action is an index into the tables below. The names are the schema's.
type action int

const (
	actionCardRevealPAN action = iota
	actionCardRevealCVC
	actionCardProfile
	actionCardStatus
	actionCardMode
	actionCardProvision
	actionCardLink
	actionPINReveal
	actionPINSet
	actionCardVerify
	actionForward
	actionForwardRevealPAN
	actionForwardRevealCVC
	actionForwardRevealAccount
	actionForwardSubmitPAN
	actionForwardSubmitCVC
	actionForwardSubmitAccount
	actionFieldsMint
	actionFieldsRead
	actionFieldSubmitPAN
	actionFieldSubmitCVC
	actionFieldSubmitDetail
	actionTokenMint
	actionChallengeMint
	actionSessionMint
	actionSessionRefresh
	actionSessionRevoke
	actionSessionCheck
	numActions
)

// actionTable says for each action which operation and field it decides.
var actionTable = [numActions]struct {
	name      types.String
	operation Operation
	field     Field
}{
	actionCardRevealPAN: {"card.reveal.pan", CardReveal, FieldPAN},
	actionCardRevealCVC: {"card.reveal.cvc", CardReveal, FieldCVC},
	actionCardProfile:   {"card.profile", CardProfile, ""},
	actionCardStatus:    {"card.status", CardStatus, ""},
	actionCardMode:      {"card.mode", CardMode, ""},
	actionCardProvision: {"card.provision", CardProvision, ""},
	actionCardLink:      {"card.link", CardLink, ""},
	actionPINReveal:     {"pin.reveal", PINReveal, FieldPIN},
	actionPINSet:        {"pin.set", PINSet, FieldPIN},
	actionCardVerify:    {"card.verify", CardVerify, FieldPAN},

	actionForward:              {"forward", Forward, ""},
	actionForwardRevealPAN:     {"forward.reveal.pan", ForwardReveal, FieldPAN},
	actionForwardRevealCVC:     {"forward.reveal.cvc", ForwardReveal, FieldCVC},
	actionForwardRevealAccount: {"forward.reveal.account", ForwardReveal, FieldAccount},
	actionForwardSubmitPAN:     {"forward.submit.pan", ForwardSubmit, FieldPAN},
	actionForwardSubmitCVC:     {"forward.submit.cvc", ForwardSubmit, FieldCVC},
	actionForwardSubmitAccount: {"forward.submit.account", ForwardSubmit, FieldAccount},

	actionFieldsMint:        {"fields.mint", FieldsMint, ""},
	actionFieldsRead:        {"fields.read", FieldsRead, ""},
	actionFieldSubmitPAN:    {"field.submit.pan", FieldSubmit, FieldPAN},
	actionFieldSubmitCVC:    {"field.submit.cvc", FieldSubmit, FieldCVC},
	actionFieldSubmitDetail: {"field.submit.detail", FieldSubmit, ""}, // where no field is asked for

	actionTokenMint:      {"token.mint", TokenMint, ""},
	actionChallengeMint:  {"challenge.mint", ChallengeMint, ""},
	actionSessionMint:    {"session.mint", SessionMint, ""},
	actionSessionRefresh: {"session.refresh", SessionRefresh, ""},
	actionSessionRevoke:  {"session.revoke", SessionRevoke, ""},
	actionSessionCheck:   {"session.check", SessionCheck, ""},
}

// decisions are the answers of actionsOf: for each operation, by the fields that are asked for, the actions to decide.
// What is not in it is no request.
var decisions = func() map[Operation]map[fieldSet][]action {
	all := map[Operation]map[fieldSet][]action{}
	byField := map[Operation][]action{}
	for a, entry := range actionTable {
		byField[entry.operation] = append(byField[entry.operation], action(a))
	}
	for operation, actions := range byField {
		all[operation] = map[fieldSet][]action{}
		if field := setOf(actionTable[actions[0]].field); len(actions) == 1 { // the field, if any, is implied
			all[operation][0] = actions
			all[operation][field] = actions
			continue
		}
		if i := slices.IndexFunc(actions, func(a action) bool { return actionTable[a].field == "" }); i >= 0 {
			all[operation][0] = []action{actions[i]}
			actions = slices.Delete(actions, i, i+1)
		}
		for subset := 1; subset < 1<<len(actions); subset++ {
			var fields fieldSet
			var asked []action
			for i, a := range actions {
				if subset&(1<<i) != 0 {
					fields |= setOf(actionTable[a].field)
					asked = append(asked, a)
				}
			}
			all[operation][fields] = asked
		}
	}
	return all
}()

// actionsOf returns the decisions that a request asks for, or nil where its
// operation is unknown or its fields do not belong to it.
func actionsOf(r *Request) []action {
	var fields fieldSet
	for _, field := range r.Fields {
		one := setOf(field)
		if one == 0 || fields&one != 0 {
			return nil
		}
		fields |= one
	}
	return decisions[r.Operation][fields]
}

// compiled is one action with the policies that speak of it, in the order of
// the files. Policies about other actions are not evaluated: the scope alone
// would make them false, and a scope cannot err.
type compiled struct {
	uid      types.EntityUID
	field    types.Value
	policies []rule
}

// rule is a policy under the name that permits and denials give it.
type rule struct {
	name   types.PolicyID
	policy *cedar.Policy
}

// rules is a cedar.PolicyIterator with a fixed order, so that of two policies
// that permit the same one is named each time.
type rules []rule

func (r rules) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for i := range r {
			if !yield(r[i].name, r[i].policy) {
				return
			}
		}
	}
}

// NewEngine parses and validates the policies. Every problem is reported, each
// with file and line; on any problem there is no engine.
func NewEngine(config EngineConfig) (*Engine, error) {
	published, err := publishedSchema()
	if err != nil {
		return nil, err
	}
	loader := loader{config: config, schema: published, validator: validate.New(published), named: map[types.PolicyID]string{}}
	for _, file := range config.Policies {
		loader.load(file)
	}
	if len(loader.rules) == 0 && len(loader.problems) == 0 {
		loader.problems = append(loader.problems, errors.New("no policies: everything would be denied"))
	}
	if err := errors.Join(loader.problems...); err != nil {
		return nil, err
	}
	e := &Engine{entities: make(map[types.EntityUID]types.Entity)}
	e.index(loader.rules, published)
	e.know(config)
	return e, nil
}

// publishedSchema parses Schema and checks that it has our actions.
func publishedSchema() (*resolved.Schema, error) {
	var parsed schema.Schema
	parsed.SetFilename("schema.cedarschema")
	if err := parsed.UnmarshalCedar([]byte(Schema)); err != nil {
		return nil, fmt.Errorf("internal error: the published schema: %w", err)
	}
	published, err := parsed.Resolve()
	if err != nil {
		return nil, fmt.Errorf("internal error: the published schema: %w", err)
	}
	for _, a := range actionTable {
		if declared, ok := published.Actions[types.NewEntityUID(typeAction, a.name)]; !ok || declared.AppliesTo == nil {
			return nil, fmt.Errorf("internal error: the published schema has no action %q", a.name)
		}
	}
	return published, nil
}

// loader gathers rules and problems over all files.
type loader struct {
	config    EngineConfig
	schema    *resolved.Schema
	validator *validate.Validator
	rules     rules
	named     map[types.PolicyID]string // rule → where it stands
	problems  []error
}

func (l *loader) problem(at, format string, args ...any) {
	l.problems = append(l.problems, fmt.Errorf("%s: %s", at, fmt.Sprintf(format, args...)))
}

// parserPosition is how the parser writes where it stopped.
var parserPosition = regexp.MustCompile(`^(?:parser error: )?(?:parse error at |.*?)<input>:(\d+):\d+:? ?`)

func (l *loader) load(file PolicyFile) {
	list, err := cedar.NewPolicyListFromBytes(file.Name, file.Source)
	if err != nil {
		at, text := file.Name, err.Error()
		if m := parserPosition.FindStringSubmatch(text); m != nil {
			at, text = at+":"+m[1], "syntax error at "+strings.TrimPrefix(text, m[0])
		}
		l.problem(at, "%s", text)
		return
	}
	for _, policy := range list {
		l.add(file.Name, policy)
	}
}

// maxRuleBytes bounds a rule's name: it stands in every audit record.
const maxRuleBytes = 128

func (l *loader) add(file string, policy *cedar.Policy) {
	at := fmt.Sprintf("%s:%d", file, policy.Position().Line)
	name := types.PolicyID(at)
	if id, ok := policy.Annotations()["id"]; ok {
		if !validRule(string(id)) {
			l.problem(at, "the @id must be 1 to %d visible ASCII characters other than comma", maxRuleBytes)
			return
		}
		name = types.PolicyID(id)
	}
	if !validRule(string(name)) {
		l.problem(at, "the file's name cannot stand in records; give the policy an @id")
		return
	}
	if other, ok := l.named[name]; ok {
		if string(name) == at {
			l.problem(at, "two policies begin on this line; give them an @id")
		} else {
			l.problem(at, "the @id %q is that of the policy at %s", name, other)
		}
		return
	}
	l.named[name] = at
	tree := (*cedarast.Policy)(policy.AST())
	if err := l.validator.Policy("", tree); err != nil {
		for text := range uniqueLines(err) {
			l.problem(at, "%s", text)
		}
		return
	}
	for _, text := range l.unknownNames(tree) {
		l.problem(at, "%s", text)
	}
	l.rules = append(l.rules, rule{name, policy})
}

// forAction is how the validator says which action it had in mind.
var forAction = regexp.MustCompile(` in context for Action::"[^"]*"`)

// uniqueLines yields the lines of a joined error once each: the validator
// repeats what is wrong for every action that the policy speaks of.
func uniqueLines(err error) iter.Seq[string] {
	seen := map[string]bool{}
	return func(yield func(string) bool) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			line = forAction.ReplaceAllString(line, " in context")
			if seen[line] {
				continue
			}
			seen[line] = true
			if !yield(line) {
				return
			}
		}
	}
}

func validRule(name string) bool {
	if name == "" || len(name) > maxRuleBytes {
		return false
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == ',' {
			return false
		}
	}
	return true
}

// unknownNames lists the entities that a policy names and that are not
// configured, which the schema cannot know.
func (l *loader) unknownNames(policy *cedarast.Policy) []string {
	var unknown []string
	check := func(uid types.EntityUID) {
		known := true
		switch uid.Type {
		case typePartner:
			known = l.config.Partners == nil || l.config.Partners.ByID(string(uid.ID)) != nil
		case typeIssuer:
			known = l.config.Issuers == nil || slices.ContainsFunc(l.config.Issuers, func(i Issuer) bool { return i.ID == string(uid.ID) })
		case typeAnonymous:
			known = uid == anonymous
		case typeAction:
			_, known = l.schema.Actions[uid]
		}
		if text := fmt.Sprintf("%s is not configured", uid); !known && !slices.Contains(unknown, text) {
			unknown = append(unknown, text)
		}
	}
	for uid := range scopeEntities(policy) {
		check(uid)
	}
	for _, condition := range policy.Conditions {
		cedarast.Inspect(cedarast.NewNode(condition.Body), func(node cedarast.IsNode) bool {
			if value, ok := node.(cedarast.NodeValue); ok {
				for uid := range valueEntities(value.Value) {
					check(uid)
				}
			}
			return true
		})
	}
	return unknown
}

// scopeEntities yields the entities of a policy's scope.
func scopeEntities(policy *cedarast.Policy) iter.Seq[types.EntityUID] {
	return func(yield func(types.EntityUID) bool) {
		for _, scope := range []any{policy.Principal, policy.Action, policy.Resource} {
			var named []types.EntityUID
			switch s := scope.(type) {
			case cedarast.ScopeTypeEq:
				named = append(named, s.Entity)
			case cedarast.ScopeTypeIn:
				named = append(named, s.Entity)
			case cedarast.ScopeTypeIsIn:
				named = append(named, s.Entity)
			case cedarast.ScopeTypeInSet:
				named = s.Entities
			}
			for _, uid := range named {
				if !yield(uid) {
					return
				}
			}
		}
	}
}

// valueEntities yields the entities in a literal.
func valueEntities(value types.Value) iter.Seq[types.EntityUID] {
	return func(yield func(types.EntityUID) bool) {
		switch v := value.(type) {
		case types.EntityUID:
			yield(v)
		case types.Set:
			for element := range v.All() {
				for uid := range valueEntities(element) {
					if !yield(uid) {
						return
					}
				}
			}
		}
	}
}

// index gives each action its policies.
func (e *Engine) index(all rules, published *resolved.Schema) {
	for a, entry := range actionTable {
		uid := types.NewEntityUID(typeAction, entry.name)
		parents := published.Actions[uid].Entity.Parents
		e.entities[uid] = types.Entity{UID: uid, Parents: parents}
		c := compiled{uid: uid, field: types.String(entry.field)}
		for _, r := range all {
			if speaksOf((*cedarast.Policy)(r.policy.AST()).Action, uid, parents) {
				c.policies = append(c.policies, r)
			}
		}
		e.actions[a] = c
	}
}

// speaksOf reports whether an action scope can be true for an action. The
// schema's groups are one level deep; a test holds it to that.
func speaksOf(scope cedarast.IsActionScopeNode, uid types.EntityUID, parents types.EntityUIDSet) bool {
	in := func(target types.EntityUID) bool { return target == uid || parents.Contains(target) }
	switch s := scope.(type) {
	case cedarast.ScopeTypeEq:
		return s.Entity == uid
	case cedarast.ScopeTypeIn:
		return in(s.Entity)
	case cedarast.ScopeTypeInSet:
		return slices.ContainsFunc(s.Entities, in)
	}
	return true
}

// know makes the entities of what is configured.
func (e *Engine) know(config EngineConfig) {
	if config.Partners != nil {
		for id := range config.Partners.byID {
			uid := types.NewEntityUID(typePartner, types.String(id))
			e.entities[uid] = types.Entity{UID: uid}
		}
	}
	if config.Issuers != nil {
		e.issuers = make(map[string]string, len(config.Issuers))
	}
	for _, issuer := range config.Issuers {
		uid := types.NewEntityUID(typeIssuer, types.String(issuer.ID))
		e.entities[uid] = types.Entity{UID: uid}
		e.issuers[issuer.ID] = issuer.Environment
	}
	e.entities[anonymous] = types.Entity{UID: anonymous}
}

// rules asks the policies about each action of the request. The rule that it
// returns is the one that permits.
func (e *Engine) rules(r *Request) (fields fieldSet, name string, denied *Denied) {
	view := views.Get().(*view)
	defer view.release()
	view.of(e, r)
	permitted := false
	var refusal *Denied
	for _, a := range actionsOf(r) {
		rule, no := view.decide(&e.actions[a])
		switch {
		case no != nil && no.Reason == DeniedError:
			return 0, "", no // and nothing else that was permitted stands [25]
		case no != nil:
			if refusal == nil || no.Reason == DeniedForbidden && refusal.Reason != DeniedForbidden {
				refusal = no
			}
		default:
			permitted = true
			fields |= setOf(actionTable[a].field)
			name = joinRules(name, rule)
		}
	}
	if !permitted {
		return 0, "", refusal
	}
	return fields, name, nil
}

func joinRules(a, b string) string {
	if a == "" || a == b {
		return b
	}
	return a + "," + b
}

// view is one request as Cedar sees it. Views are pooled: what is in one is
// valid until it is released.
type view struct {
	engine    *Engine
	request   *Request
	principal types.EntityUID
	resource  types.EntityUID
	card      types.EntityUID
	user      types.EntityUID
	context   types.RecordMap
}

var views = sync.Pool{New: func() any { return &view{context: make(types.RecordMap, 10)} }}

func (v *view) release() {
	clear(v.context)
	*v = view{context: v.context}
	views.Put(v)
}

// of fills the view.
func (v *view) of(e *Engine, r *Request) {
	v.engine, v.request = e, r
	v.principal = anonymous
	if r.Partner != nil {
		v.principal = types.NewEntityUID(typePartner, types.String(r.Partner.ID))
	}
	v.resource = types.NewEntityUID(typeIssuer, types.String(r.Issuer))
	if r.Card != nil {
		v.card = types.NewEntityUID(typeCard, types.String(r.Card.Card))
		v.resource = v.card
	}
	if r.User != "" {
		v.user = types.NewEntityUID(typeUser, types.String(r.User))
		v.context["user"] = v.user
	}
	v.context["proofs"] = e.proofRecord(proofsOf(r))
	v.context["assurance"] = types.String(assuranceOf(r.Proofs))
	v.context["call"] = types.String(r.Call)
	v.context["face"] = types.String(r.Face)
	v.context["environment"] = types.String(r.Environment)
	v.context["time"] = types.NewDatetime(r.Time)
	v.context["address"] = addressOf(r.Address)
}

// addressOf is a single address for rules: IPv4 as IPv4 even where the socket
// says ::ffff:192.0.2.1, so that a range meant for it holds, and without zone.
func addressOf(address netip.Addr) types.IPAddr {
	address = address.Unmap().WithZone("")
	return types.IPAddr(netip.PrefixFrom(address, address.BitLen()))
}

// decide asks the policies of one action. A forbid that could not be evaluated
// is skipped by Cedar; here any error is a denial [25].
func (v *view) decide(c *compiled) (rule string, denied *Denied) {
	if len(c.policies) == 0 {
		return "", &Denied{Reason: DeniedNoPolicy}
	}
	v.context["field"] = c.field
	decision, diagnostic := cedar.Authorize(rules(c.policies), v, cedar.Request{
		Principal: v.principal,
		Action:    c.uid,
		Resource:  v.resource,
		Context:   types.NewRecord(v.context),
	})
	switch {
	case len(diagnostic.Errors) > 0:
		// The evaluator's words name entities, cards among them: not kept.
		return "", &Denied{Rule: string(diagnostic.Errors[0].PolicyID), Reason: DeniedError, Detail: "the policy could not be evaluated"}
	case decision == cedar.Allow:
		return string(diagnostic.Reasons[0].PolicyID), nil
	case len(diagnostic.Reasons) > 0:
		return "", &Denied{Rule: string(diagnostic.Reasons[0].PolicyID), Reason: DeniedForbidden}
	}
	return "", &Denied{Reason: DeniedNoPolicy}
}

// Get returns an entity: what the configuration knows, and what this request is
// about. It is called only for policies that ask who is in what.
func (v *view) Get(uid types.EntityUID) (types.Entity, bool) {
	if known, ok := v.engine.entities[uid]; ok {
		return known, true
	}
	entity := types.Entity{UID: uid}
	switch {
	case uid.ID == "":
		return types.Entity{}, false
	case uid == v.user:
		if v.request.Partner != nil {
			entity.Parents = types.NewEntityUIDSet(v.principal)
		}
	case uid == v.card:
		entity.Parents = types.NewEntityUIDSet(types.NewEntityUID(typeIssuer, types.String(v.request.Card.Issuer)))
	case uid == v.principal, uid == v.resource:
	default:
		return types.Entity{}, false
	}
	return entity, true
}

// proofSet says which kinds were proven: an index into records made at load.
type proofSet int

const (
	provenCertificate proofSet = 1 << iota
	provenToken
	provenBoundToken
	provenCookie
	provenAPIKey
	provenJWT
	provenRefresh
	provenPublicKey
	provenSignature
	provenWallet
	provenPasskey
	provenFields
	provenCardToken
	numProofSets = 1 << iota
)

// provenKinds is what each kind adds to the set.
var provenKinds = map[Kind]proofSet{
	KindCertificate: provenCertificate,
	KindToken:       provenToken,
	KindCookie:      provenCookie,
	KindAPIKey:      provenAPIKey,
	KindJWT:         provenJWT,
	KindRefresh:     provenRefresh,
	KindPublicKey:   provenPublicKey,
	KindSignature:   provenSignature,
	KindWallet:      provenWallet,
	KindPasskey:     provenPasskey,
	KindFields:      provenFields,
	KindCardToken:   provenCardToken,
}

func proofsOf(r *Request) proofSet {
	var set proofSet
	for i := range r.Proofs {
		proof := &r.Proofs[i]
		set |= provenKinds[proof.Kind]
		if proof.Kind == KindToken && proof.Grant.Bound() {
			set |= provenBoundToken
		}
	}
	return set
}

// proofRecord is the schema's Proofs, made once for each set.
func (e *Engine) proofRecord(s proofSet) types.Record {
	if known := e.proofs[s].Load(); known != nil {
		return *known
	}
	made := s.record()
	e.proofs[s].Store(&made)
	return made
}

// record makes the schema's Proofs.
func (s proofSet) record() types.Record {
	has := func(one proofSet) types.Boolean { return s&one != 0 }
	return types.NewRecord(types.RecordMap{
		"certificate": has(provenCertificate),
		"token":       has(provenToken),
		"bound_token": has(provenBoundToken),
		"cookie":      has(provenCookie),
		"api_key":     has(provenAPIKey),
		"jwt":         has(provenJWT),
		"refresh":     has(provenRefresh),
		"public_key":  has(provenPublicKey),
		"signature":   has(provenSignature),
		"wallet":      has(provenWallet),
		"passkey":     has(provenPasskey),
		"fields":      has(provenFields),
		"card_token":  has(provenCardToken),
	})
}
