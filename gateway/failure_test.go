package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/gateway/issuer"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/holder"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault"
)

// exported are the errors of the packages below, under the names that their sources give them.
var exported = map[string]struct {
	err    error
	kind   exchange.Kind
	reason string
}{
	"issuer.ErrUnreachable":  {issuer.ErrUnreachable, exchange.IssuerFailed, "issuer_unreachable"},
	"issuer.ErrTimeout":      {issuer.ErrTimeout, exchange.IssuerTimeout, "issuer_timeout"},
	"issuer.ErrLost":         {issuer.ErrLost, exchange.IssuerFailed, "issuer_lost"},
	"issuer.ErrTooLarge":     {issuer.ErrTooLarge, exchange.IssuerFailed, "issuer_too_large"},
	"issuer.ErrNoCard":       {issuer.ErrNoCard, exchange.NotFound, "issuer_no_card"},
	"issuer.ErrRefused":      {issuer.ErrRefused, exchange.IssuerFailed, "issuer_refused"},
	"issuer.ErrFailed":       {issuer.ErrFailed, exchange.IssuerFailed, "issuer_failed"},
	"issuer.ErrAnswer":       {issuer.ErrAnswer, exchange.IssuerFailed, "issuer_answer"},
	"issuer.ErrBadCard":      {issuer.ErrBadCard, exchange.BadCard, "issuer_bad_card"},
	"issuer.ErrWeakPIN":      {issuer.ErrWeakPIN, exchange.WeakPIN, "weak_pin_issuer"},
	"issuer.ErrSet":          {issuer.ErrSet, exchange.AlreadySet, "issuer_already_set"},
	"issuer.ErrGuard":        {issuer.ErrGuard, exchange.IssuerFailed, "egress_guard"},
	"vault.ErrOpen":          {vault.ErrOpen, exchange.BadSession, "open"},
	"vault.ErrPreamble":      {vault.ErrPreamble, exchange.BadSession, "preamble"},
	"vault.ErrBusy":          {vault.ErrBusy, exchange.Unavailable, "rsa_busy"},
	"vault.ErrWeakPIN":       {vault.ErrWeakPIN, exchange.WeakPIN, "weak_pin"},
	"vault.ErrBinding":       {vault.ErrBinding, exchange.Internal, "no_permit"},
	"vault.ErrBody":          {vault.ErrBody, exchange.Internal, "clear_body"},
	"vault.ErrBodyTooLarge":  {vault.ErrBodyTooLarge, exchange.Internal, "clear_body_too_large"},
	"vault.ErrMember":        {vault.ErrMember, exchange.Internal, "clear_member"},
	"vault.ErrSplice":        {vault.ErrSplice, exchange.Internal, "clear_splice"},
	"store.ErrInFlight":      {store.ErrInFlight, exchange.InFlight, "idempotency_in_flight"},
	"store.ErrOtherBody":     {store.ErrOtherBody, exchange.OtherBody, "idempotency_other_body"},
	"store.ErrTombstone":     {store.ErrTombstone, exchange.KeyExpired, "idempotency_key_expired"},
	"store.ErrLost":          {store.ErrLost, exchange.Internal, "store_lost"},
	"store.ErrUnknown":       {store.ErrUnknown, exchange.Internal, "store_unknown"},
	"store.ErrSpent":         {store.ErrSpent, exchange.Internal, "store_spent"},
	"store.Spent":            {&store.Spent{}, exchange.Internal, "store_spent"},
	"store.ErrExpired":       {store.ErrExpired, exchange.Internal, "store_expired"},
	"store.ErrFenced":        {store.ErrFenced, exchange.Internal, "store_fenced"},
	"store.ErrExists":        {store.ErrExists, exchange.Internal, "store_exists"},
	"store.ErrUnavailable":   {store.ErrUnavailable, exchange.Unavailable, "store"},
	"store.ErrFull":          {&store.Unavailable{Reason: store.ReasonFull}, exchange.Unavailable, "store"},
	"store.ErrInvalid":       {store.ErrInvalid, exchange.Internal, "store_invalid"},
	"store.Unavailable":      {&store.Unavailable{Reason: store.ReasonDial}, exchange.Unavailable, "store"},
	"credential.ErrStanding": {credential.ErrStanding, exchange.Unavailable, "standing"},
	"policy.Refused":         {&policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedSpent}, exchange.Unauthorized, "token_spent"},
	"policy.Denied":          {&policy.Denied{Reason: policy.DeniedForbidden, Rule: "r"}, exchange.Forbidden, "denied_forbidden"},
	"policy.PartnerError":    {&policy.PartnerError{Err: errors.New("of a configuration")}, exchange.Internal, "internal"}, // reaches no exchange
}

// TestEveryErrorHasARow: each exported error of the packages whose errors reach the gateway, as their sources list them.
func TestEveryErrorHasARow(t *testing.T) {
	for directory, name := range map[string]string{"issuer": "issuer", "../vault": "vault", "../policy": "policy", "../policy/store": "store"} {
		found := errorsOf(t, directory)
		if len(found) == 0 {
			t.Errorf("%s: no errors found", name)
		}
		for _, e := range found {
			if _, ok := exported[name+"."+e]; !ok {
				t.Errorf("%s.%s has no row", name, e)
			}
		}
		for key := range exported {
			if of, e, _ := strings.Cut(key, "."); of == name && !slices.Contains(found, e) {
				t.Errorf("%s is in no source", key)
			}
		}
	}
	for name, row := range exported {
		for _, err := range []error{row.err, fmt.Errorf("outer: %w", row.err), errors.Join(errors.New("beside"), row.err)} {
			f := gateway.FailureOf(err)
			if f.Kind != row.kind || f.Reason != row.reason || !errors.Is(f, row.err) {
				t.Errorf("%s is %s (%s)", name, f.Kind, f.Reason)
			}
		}
	}
	for _, listed := range gateway.ListedErrors() {
		if f := gateway.FailureOf(listed); f.Reason == "internal" {
			t.Errorf("%v is opaque", listed)
		}
	}
}

// errorsOf lists the exported error values and error types that a package's sources declare.
func errorsOf(t *testing.T, directory string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(directory, "*.go"))
	must(err)
	var found []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		must(err)
		for _, d := range f.Decls {
			found = append(found, errorsIn(d)...)
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

func errorsIn(d ast.Decl) []string {
	var found []string
	switch d := d.(type) {
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, n := range v.Names {
				if strings.HasPrefix(n.Name, "Err") {
					found = append(found, n.Name)
				}
			}
		}
	case *ast.FuncDecl:
		if d.Name.Name != "Error" || d.Recv == nil {
			return nil
		}
		receiver := d.Recv.List[0].Type
		if star, ok := receiver.(*ast.StarExpr); ok {
			receiver = star.X
		}
		if n, ok := receiver.(*ast.Ident); ok && n.IsExported() {
			found = append(found, n.Name)
		}
	}
	return found
}

// TestFailureRows: what is not about one error alone.
func TestFailureRows(t *testing.T) {
	for name, test := range map[string]struct {
		err  error
		kind exchange.Kind
		want string
	}{
		"nothing we know":           {errors.New("4111111111111111"), exchange.Internal, "internal"},
		"a holder's answer":         {holder.ErrNoCard, exchange.Internal, "internal"}, // hold has answered it
		"the caller left":           {context.Canceled, exchange.Unavailable, "canceled"},
		"out of time":               {context.DeadlineExceeded, exchange.Unavailable, "deadline"},
		"store out of time":         {fmt.Errorf("%w: %w", store.ErrUnavailable, context.DeadlineExceeded), exchange.Unavailable, "store"},
		"rsa out of time":           {fmt.Errorf("%w: %w", vault.ErrBusy, context.DeadlineExceeded), exchange.Unavailable, "rsa_busy"},
		"the issuer's ciphertext":   {fmt.Errorf("%w: encryptedPan: %w", issuer.ErrAnswer, vault.ErrOpen), exchange.IssuerFailed, "issuer_answer"},
		"a failure as it is":        {exchange.Fail(exchange.TooLarge, "x"), exchange.TooLarge, "x"},
		"a failure around an error": {&exchange.Failure{Kind: exchange.Forbidden, Reason: "certificate", Err: &policy.Refused{}}, exchange.Forbidden, "certificate"},
	} {
		if f := gateway.FailureOf(test.err); f.Kind != test.kind || f.Reason != test.want {
			t.Errorf("%s: %s (%s)", name, f.Kind, f.Reason)
		}
	}
}

// TestRefusedCredentials: whatever is wrong with a credential is one kind; a challenge, and what was signed for it, have their
// own, because faces have words for them.
func TestRefusedCredentials(t *testing.T) {
	own := map[policy.Kind]exchange.Kind{
		policy.KindChallenge: exchange.ChallengeUnknown, policy.KindWallet: exchange.BadSignature, policy.KindPasskey: exchange.BadSignature,
	}
	for _, kind := range []policy.Kind{
		policy.KindCertificate, policy.KindToken, policy.KindCookie, policy.KindAPIKey, policy.KindRefresh, policy.KindPublicKey, policy.KindSignature,
		policy.KindJWT, policy.KindChallenge, policy.KindWallet, policy.KindPasskey,
	} {
		want, ok := own[kind]
		if !ok {
			want = exchange.Unauthorized
		}
		for _, reason := range []string{
			policy.RefusedMalformed, policy.RefusedUnknown, policy.RefusedSpent, policy.RefusedExpired, policy.RefusedFenced, policy.RefusedBound,
			policy.RefusedPartner, policy.RefusedEnvironment, policy.RefusedCertificate, policy.RefusedUser, policy.RefusedSignature, policy.RefusedLogin,
		} {
			f := gateway.FailureOf(fmt.Errorf("prove: %w", &policy.Refused{Kind: kind, Reason: reason}))
			if f.Kind != want || f.Reason != string(kind)+"_"+reason {
				t.Errorf("%s, %s: %s (%s)", kind, reason, f.Kind, f.Reason)
			}
		}
	}
}

// TestDenials: every reason of a denial has its kind, and somebody else's card looks like none.
func TestDenials(t *testing.T) {
	reasons := []string{
		policy.DeniedNoPolicy, policy.DeniedForbidden, policy.DeniedNotHolder, policy.DeniedUnknownCard, policy.DeniedProof,
		policy.DeniedUnboundToken, policy.DeniedBound, policy.DeniedError, policy.DeniedEnvironment, policy.DeniedDisabled,
	}
	table := gateway.DeniedKinds()
	if len(table) != len(reasons) {
		t.Errorf("%d rows for %d reasons", len(table), len(reasons))
	}
	for _, reason := range reasons {
		f := gateway.FailureOf(&policy.Denied{Reason: reason, Rule: "r"})
		if f.Kind == exchange.Internal || f.Rule != "r" || f.Reason != "denied_"+reason {
			t.Errorf("%s: %+v", reason, f)
		}
	}
	if table[policy.DeniedNotHolder] != table[policy.DeniedUnknownCard] || table[policy.DeniedBound] != exchange.Unauthorized {
		t.Error("refusals can be told apart")
	}
	if f := gateway.FailureOf(&policy.Denied{Reason: "new"}); f.Kind != exchange.Internal {
		t.Errorf("an unknown reason: %s", f.Kind)
	}
}
