package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/policy/store"
	"github.com/cardstile/cardstile/vault/ca"
	"github.com/cardstile/cardstile/vault/keys"
)

// cmdPartnerStandings are the commands that change how a partner stands, in the store that instances share.
func cmdPartnerStandings() []*cobra.Command {
	change := func(use, short, long string, to func(*credential.Standings, context.Context, string) (from, to credential.Standing, err error), said string) *cobra.Command {
		var file string
		var asJSON bool
		cmd := &cobra.Command{
			Use: use + " PARTNER", Short: short, Args: cobra.ExactArgs(1), Long: long,
			RunE: func(cmd *cobra.Command, args []string) error {
				s, err := openStandings(file, args[0])
				if err != nil {
					return err
				}
				defer s.close()
				from, now, err := to(s.Standings, cmd.Context(), args[0])
				if err != nil {
					return s.explain(err)
				}
				n := notes{said: cmd.ErrOrStderr()}
				if s.partner.Disabled && !now.Disabled {
					n.warn("%s: partners: %s stays disabled there (disabled: true)", file, args[0])
				}
				if asJSON {
					r := standingOf(s.partner, from, now)
					r.Warnings = n.warnings
					return writeJSON(cmd.OutOrStdout(), r)
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), standingText(args[0], said, from, now))
				return err
			},
		}
		configFlag(cmd, &file)
		jsonFlag(cmd, &asJSON)
		return cmd
	}
	return []*cobra.Command{
		change("disable", "Switch a partner off, on every instance, within a second",
			"Disable refuses every exchange of a partner, on open connections too, and ends all that was minted for\n"+
				"it: tokens, logins, challenges, sessions. It changes the store that the configuration names, and stands\n"+
				"there until `enable`. A store that is lost forgets it: for good, say `disabled: true` in the configuration.",
			(*credential.Standings).Disable, "disabled"),
		change("enable", "Switch a partner on again", "Enable takes back `disable`. What was minted for the partner before stays dead.",
			(*credential.Standings).Enable, "enabled"),
		change("revoke-tokens", "End all that was minted for a partner, which stays switched on",
			"Revoke-tokens ends every token, login, challenge and session of a partner that has not been used up, on\nevery instance within a second. The partner may mint anew at once.",
			(*credential.Standings).RevokeTokens, "tokens revoked"),
		cmdPartnerList(),
	}
}

func cmdPartnerList() *cobra.Command {
	var file, authority string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list", Short: "List the partners and how they stand", Args: cobra.NoArgs,
		Long: "List prints a line for each partner. With --ca it says how many certificates of each are valid and when the\n" +
			"last of those ends, also of partners that the configuration does not know.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := listPartners(cmd.Context(), file, authority, &notes{said: cmd.ErrOrStderr()})
			if list == nil {
				return err
			}
			if asJSON {
				return errors.Join(writeJSON(cmd.OutOrStdout(), list), err)
			}
			return errors.Join(writePartners(cmd.OutOrStdout(), list, authority != ""), err)
		},
	}
	configFlag(cmd, &file)
	cmd.Flags().StringVar(&authority, "ca", "", "directory of the CA, for the certificates")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON array")
	return cmd
}

// listPartners reports on all partners, in the order of their ids. There may be a report and an error: of standings that
// cannot be read.
func listPartners(ctx context.Context, file, authority string, n *notes) ([]*partnerReport, error) {
	s, err := openStandings(file, "")
	var b *builder
	var all map[string]credential.Standing
	var unread error
	switch {
	case errors.Is(err, errMemory) && authority != "": // the certificates are known
		if b, err = loadPartial(file); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		defer s.close()
		b = s.builder
		if all, err = s.All(ctx); err != nil && !errors.Is(err, credential.ErrStanding) {
			return nil, err
		}
		unread = s.explain(err)
	}
	list := []*partnerReport{}
	for _, p := range b.partners.All() {
		r := reportOf(p.ID, p)
		if st, known := all[p.ID]; known {
			r.stands(st)
		} else if s == nil {
			r.standsAlone()
		}
		list = append(list, r)
	}
	if authority != "" {
		if list, err = withCertificates(list, b, authority, n); err != nil {
			return nil, err
		}
	}
	return list, unread
}

// withCertificates adds the certificates of a CA's index, and partners that nothing but the index knows.
func withCertificates(list []*partnerReport, b *builder, dir string, n *notes) ([]*partnerReport, error) {
	a, err := readCA(dir, n)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	issued := map[string][]*ca.Certificate{}
	for _, c := range a.Of("") {
		issued[c.Partner] = append(issued[c.Partner], c)
	}
	for id := range issued {
		if b.partners.ByID(id) == nil {
			list = append(list, reportOf(id, nil))
		}
	}
	slices.SortFunc(list, func(x, y *partnerReport) int { return strings.Compare(x.Partner, y.Partner) })
	now := time.Now()
	for _, r := range list {
		r.has(a, issued[r.Partner], b.partners.ByID(r.Partner), now)
	}
	return list, nil
}

// writePartners is for people. For programs there is --json.
func writePartners(out io.Writer, list []*partnerReport, certificates bool) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	header := "PARTNER\tSTATE\tGENERATION\tSINCE\tCAUSE"
	if certificates {
		header += "\tVALID\tUNTIL\tDAYS LEFT"
	}
	fmt.Fprintln(w, header)
	for _, r := range list {
		generation := "-"
		if r.Generation != nil {
			generation = strconv.FormatUint(*r.Generation, 10)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s", r.Partner, r.State, generation, timeText(r.Since), orDash(r.Cause))
		if n, end := r.valid(); certificates && n == 0 {
			fmt.Fprint(w, "\t0\t-\t-")
		} else if certificates {
			fmt.Fprintf(w, "\t%d\t%s\t%d", n, end.Format(time.RFC3339), daysLeft(end, time.Now()))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// standings are those of a configuration's store.
type standings struct {
	*credential.Standings
	*builder
	partner *policy.Partner // that was named; nil where none was
	store   store.Store
}

// errMemory: there is nothing that another process could change.
var errMemory = &exitError{errors.New("the store of this configuration is in memory: no other process can change it. " +
	"The switch is `disabled: true` at the partner in the configuration, and a reload (SIGHUP, or saving the file)"), 2}

// openStandings reads as much of a configuration as says who its partners are, where their standings are, and which keys seal them.
func openStandings(file, partner string) (*standings, error) {
	b, err := loadSteps(file, (*builder).loadEnvironment, (*builder).loadStore, (*builder).loadStorageKeys, (*builder).loadClientCAs, (*builder).loadPartners,
		(*builder).checkRedis)
	if err != nil {
		return nil, err
	}
	s := &standings{builder: b}
	if partner != "" {
		if s.partner = b.partners.ByID(partner); s.partner == nil {
			return nil, fmt.Errorf("%s: no partner has the id %q (known: %s)", file, partner, listed(b.partnerIDs()))
		}
	}
	if b.redis == nil {
		return nil, errMemory
	}
	seals, err := keys.NewSealRing("standing", b.keysFor(keys.UseStorage)...)
	if err != nil {
		return nil, err
	}
	if s.store, err = store.NewRedis(*b.redis); err != nil {
		return nil, err
	}
	if s.Standings, err = credential.NewStandings(credential.StandingsConfig{Store: s.store}); err != nil {
		return nil, errors.Join(err, s.store.Close())
	}
	s.Configure(seals, b.partners.All())
	return s, nil
}

func (s *standings) close() { _ = s.store.Close() } // what it did is done

// explain says what to do about a standing that is not ours.
func (s *standings) explain(err error) error {
	if !errors.Is(err, credential.ErrStanding) {
		return err
	}
	prefix := s.redis.Prefix
	if prefix == "" {
		prefix = "cardstile"
	}
	text := ""
	for _, p := range s.partners.All() {
		if s.partner == nil || s.partner == p {
			text += fmt.Sprintf("\n  %s: HDEL %s:shared:{standing} %s", p.ID, prefix, credential.StandingName(p.ID))
		}
	}
	return fmt.Errorf("%w: a key of use storage that sealed it is missing, or somebody wrote to Redis. "+
		"Once it is clear which, remove it; instances that know better put their own there:%s", err, text)
}

// standingText says what a change did.
func standingText(partner, said string, from, to credential.Standing) string {
	if from == to {
		return fmt.Sprintf("%s: it was so already: %s, generation %s, since %s", partner, said, generationText(to), sinceText(to))
	}
	return fmt.Sprintf("%s: %s: generation %s to %s, in force on every instance", partner, said, generationText(from), generationText(to))
}

func generationText(st credential.Standing) string { return strconv.FormatUint(st.Generation, 10) }

func sinceText(st credential.Standing) string {
	if st.Since.IsZero() {
		return "-"
	}
	return st.Since.UTC().Format(time.RFC3339)
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
