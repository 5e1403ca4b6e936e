package gateway

import (
	"context"
	"encoding/binary"
	"errors"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/store"
)

// This file is what we keep of a card ourselves, because its issuer has no place for it: the mode in which its user wants
// purchases settled, and whether it is linked to their account. Both are no secrets. They stand in the store under the card's
// keyed digest, sealed with that digest as associated data, and are forgotten a year after they were last set, or with the
// process where the store is in memory.

const (
	kindMode store.Kind = "mode"
	kindLink store.Kind = "link"
)

// own reports whether an operation is carried out here rather than by the issuer.
func own(op policy.Operation) bool { return op == policy.CardMode || op == policy.CardLink }

// own does what is ours of a call, after the issuer's part.
func (x *running) own(ctx context.Context, call *exchange.Call, p proven, d decided, result *exchange.Result) error {
	if call.Has(policy.CardMode) {
		return x.setMode(ctx, call, d)
	}
	if call.Has(policy.CardLink) {
		return x.link(ctx, d)
	}
	if call.ShowMode {
		mode, err := x.mode(ctx, d)
		if err != nil {
			return err
		}
		result.Card.Mode = mode
	}
	if call.Has(policy.ChallengeMint) {
		return x.mintConsent(ctx, call, p, d, result)
	}
	return nil
}

// mode is the card's, 0 where nobody has set one.
func (x *running) mode(ctx context.Context, d decided) (int, error) {
	value, err := x.kept(ctx, kindMode, d.holding)
	if err != nil || len(value) != 8 {
		return 0, err
	}
	return int(int64(binary.BigEndian.Uint64(value))), nil
}

func (x *running) setMode(ctx context.Context, call *exchange.Call, d decided) error {
	was, err := x.mode(ctx, d)
	if err != nil {
		return err
	}
	if was == call.Mode {
		return exchange.Fail(exchange.AlreadySet, "mode")
	}
	return x.put(ctx, kindMode, d.holding, binary.BigEndian.AppendUint64(nil, uint64(int64(call.Mode))))
}

// link notes, once, that the card's user signed for it. What they signed has been judged and taken.
func (x *running) link(ctx context.Context, d decided) error {
	err := x.g.services.Store.Once(ctx, kindLink, limitDigest(x.st.config.CardDigest, string(kindLink), d.holding.Card), store.MaxTTL)
	if errors.Is(err, store.ErrSpent) {
		return exchange.Fail(exchange.AlreadySet, "link")
	}
	return written(err)
}

// written is the error of a write to the store. What failed may have been written all the same, but to a store that is full.
func written(err error) error {
	if err == nil || errors.Is(err, store.ErrFull) {
		return err
	}
	return &exchange.Failure{Kind: exchange.OutcomeUnknown, Reason: "store", Err: err}
}

// kept is a value of a card, nil where there is none. One that does not open is none: whoever writes to the store can delete.
func (x *running) kept(ctx context.Context, kind store.Kind, card *policy.Holding) ([]byte, error) {
	digest := limitDigest(x.st.config.CardDigest, string(kind), card.Card)
	sealed, err := x.g.services.Store.Get(ctx, kind, digest)
	if errors.Is(err, store.ErrUnknown) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	value, err := x.st.config.Kept.Open(nil, digest[:], sealed)
	if err != nil {
		return nil, nil
	}
	return value, nil
}

func (x *running) put(ctx context.Context, kind store.Kind, card *policy.Holding, value []byte) error {
	digest := limitDigest(x.st.config.CardDigest, string(kind), card.Card)
	sealed, err := x.st.config.Kept.Seal(nil, digest[:], value)
	if err != nil {
		return err
	}
	return written(x.g.services.Store.Put(ctx, kind, digest, sealed, store.MaxTTL))
}
