package gateway

import (
	"context"
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/cardstile/cardstile/gateway/exchange"
	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
)

// This file is where it is decided how a partner stands: whether it is switched off, by the configuration or in the store, and
// whether what was minted for it is still good. It holds for each exchange, of whichever connection.

// newStandings returns what knows how partners stand, and logs what changes.
func (g *Gateway) newStandings() (*credential.Standings, error) {
	log := g.services.Log
	if log == nil {
		log = zap.NewNop()
	}
	return credential.NewStandings(credential.StandingsConfig{
		Store: g.services.Store, Now: g.services.Now,
		Changed: func(partner string, from, to credential.Standing) {
			if from == to {
				log.Warn("a partner is switched off in the store", zap.String("partner", partner), zap.Time("since", to.Since))
				return
			}
			log.Warn("a partner's standing changed: what was minted for it before is dead",
				zap.String("partner", partner), zap.Bool("disabled", to.Disabled), zap.Bool("was_disabled", from.Disabled),
				zap.Uint64("generation", to.Generation), zap.Uint64("was_generation", from.Generation),
				zap.Time("since", to.Since), zap.String("cause", to.Cause))
		},
		Invalid: func(partner string) {
			log.Error("a partner's standing in the store is not one of ours: nothing is done for it until that is removed", zap.String("partner", partner))
		},
	})
}

// standing looks how the partner stands that the exchange is about, as far as that is known, before anything is spent. It is the
// one place where a partner's switch is judged: what was not known yet is judged by current. Where nothing can be known the
// exchange fails closed: at once where something is used up or minted, after 5 s where the store is not touched [20].
func (x *running) standing(ctx context.Context, call *exchange.Call, p *proven) error {
	within, once := credential.StandingStale, policy.Kind("")
	for _, c := range call.Credentials {
		if singleUse(c.Kind) {
			once = c.Kind
		}
	}
	if once != "" || call.Operations[0].Mints() {
		within = credential.StandingFresh
	}
	id := x.expected(call, p)
	if id == "" && once == "" {
		return nil // nobody's
	}
	st, err := x.g.standings.At(ctx, id, within)
	if err != nil {
		return err
	}
	partner := x.st.config.Partners.ByID(id)
	switch off := st.Disabled || partner != nil && partner.Disabled; {
	case !off:
	case p.partner == nil: // a token's, which is like one that is not there
		x.g.metrics.refused.WithLabelValues(policy.RefusedRevoked).Inc()
		return &policy.Refused{Kind: policy.KindToken, Reason: policy.RefusedRevoked, Detail: "the partner is disabled"}
	default:
		return &policy.Denied{Reason: policy.DeniedDisabled}
	}
	for i := range p.proofs {
		if err := x.current(&p.proofs[i], p.partner); err != nil {
			return err
		}
	}
	return nil
}

// current refuses what was minted for a partner that is switched off, or under an older generation than the partner's. What is
// known of the partner is as new as standing left it.
func (x *running) current(proof *policy.Proof, partner *policy.Partner) error {
	if !proof.Minted {
		return nil
	}
	if partner == nil {
		return &policy.Refused{Kind: proof.Kind, Reason: policy.RefusedPartner}
	}
	st, err := x.g.standings.Known(partner.ID)
	switch {
	case err != nil:
		return err
	case st.Disabled || partner.Disabled:
		return &policy.Refused{Kind: proof.Kind, Reason: policy.RefusedRevoked, Detail: "the partner is disabled"}
	case proof.Generation < st.Generation:
		return &policy.Refused{Kind: proof.Kind, Reason: policy.RefusedRevoked, Detail: "it is of an older generation"}
	}
	return nil
}

// generation is what is minted under: the partner's, or that of the route's where callers bring none.
func (x *running) generation(p *proven) uint64 {
	id := p.partnerID()
	if id == "" {
		id = x.ep.route.Partner
	}
	st, _ := x.g.standings.Known(id) // which has been asked in this exchange
	return st.Generation
}

// Generation is the one that is minted under for a partner now.
func (g *Gateway) Generation(ctx context.Context, partner string) (uint64, error) {
	st, err := g.standings.At(ctx, partner, credential.StandingFresh)
	if err != nil {
		return 0, fmt.Errorf("generation of partner %q: %w", partner, err)
	}
	return st.Generation, nil
}

// standingCollector tells what is known of partners.
type standingCollector struct{ g *Gateway }

var (
	standingAgeDesc = prometheus.NewDesc("cardstile_partner_standing_age_seconds",
		"How long ago it was known how partners stand. Beyond 1 s nothing is redeemed or minted, beyond 5 s nothing is done for a partner.", nil, nil)
	standingInvalidDesc = prometheus.NewDesc("cardstile_partner_standing_invalid",
		"Partners of whom the store has a standing that is not one of ours. Nothing is done for them.", nil, nil)
	partnerDisabledDesc = prometheus.NewDesc("cardstile_partner_disabled",
		"1 for a partner that is switched off, by the configuration or in the store.", []string{"partner"}, nil)
)

// Describe implements prometheus.Collector.
func (standingCollector) Describe(to chan<- *prometheus.Desc) {
	to <- standingAgeDesc
	to <- standingInvalidDesc
	to <- partnerDisabledDesc
}

// Collect implements prometheus.Collector.
func (c standingCollector) Collect(to chan<- prometheus.Metric) {
	o := c.g.standings.Overview()
	to <- prometheus.MustNewConstMetric(standingAgeDesc, prometheus.GaugeValue, o.Age.Seconds())
	to <- prometheus.MustNewConstMetric(standingInvalidDesc, prometheus.GaugeValue, float64(o.Invalid))
	for _, p := range c.g.state.Load().config.Partners.All() {
		off := 0.0
		if p.Disabled || o.Disabled[p.ID] {
			off = 1
		}
		to <- prometheus.MustNewConstMetric(partnerDisabledDesc, prometheus.GaugeValue, off, p.ID)
	}
}

// answerable is the partner of a challenge: the caller's, or the route's.
func (x *running) answerable(p *proven) *policy.Partner {
	if p.partner != nil {
		return p.partner
	}
	return x.st.config.Partners.ByID(x.ep.route.Partner)
}
