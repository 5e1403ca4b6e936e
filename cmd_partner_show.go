package main

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/policy/credential"
	"github.com/cardstile/cardstile/vault/ca"
)

// partnerReport is what `partner show --json` prints, and of `partner list --json` one for each partner. Members are added,
// never renamed. Digests are in hex, times in RFC 3339 and UTC.
type partnerReport struct {
	Partner     string   `json:"partner"`
	Environment string   `json:"environment,omitempty"`
	Subjects    []string `json:"subjects,omitempty"`
	CA          []string `json:"ca,omitempty"`   // SHA-256 of the authorities that its certificates may end in
	Pins        []string `json:"pins,omitempty"` // as in the configuration

	// State is "enabled", "disabled" (in the store), "disabled in the configuration", "not configured" or "not known".
	State      string     `json:"state"`
	Generation *uint64    `json:"generation,omitempty"` // with Since and Cause: of its standing, where the store is shared
	Since      *time.Time `json:"since,omitempty"`
	Cause      string     `json:"cause,omitempty"`

	Certificates []certificateReport `json:"certificates,omitempty"` // of the CA's index, the oldest first
}

type certificateReport struct {
	Serial       string     `json:"serial"` // hex
	Status       string     `json:"status"` // "valid", "revoked", "expired" or "not yet valid"
	Subject      string     `json:"subject"`
	Issuer       string     `json:"issuer"`
	IssuerSHA256 string     `json:"issuer_sha256"`
	NotBefore    time.Time  `json:"not_before"`
	NotAfter     time.Time  `json:"not_after"`
	DaysLeft     int        `json:"days_left"` // whole ones
	SHA256       string     `json:"sha256"`
	Pin          string     `json:"pin"`               // SHA-256 of its public key, as `certificate.pins` wants it
	Pinned       *bool      `json:"pinned,omitempty"`  // whether it is among the partner's pins, where that has any
	Revoked      *time.Time `json:"revoked,omitempty"` // when
	Reason       string     `json:"reason,omitempty"`

	certificate *x509.Certificate
}

// reportOf is what the configuration says of a partner; of one that it does not know, its id.
func reportOf(id string, p *policy.Partner) *partnerReport {
	r := &partnerReport{Partner: id, State: "not configured"}
	if p == nil {
		return r
	}
	r.Environment, r.State = p.Environment, "not known"
	if p.Disabled {
		r.State = "disabled in the configuration"
	}
	for _, s := range p.Subjects {
		r.Subjects = append(r.Subjects, s.String())
	}
	for _, f := range p.CA {
		r.CA = append(r.CA, hex.EncodeToString(f[:]))
	}
	for _, f := range p.Pins {
		r.Pins = append(r.Pins, hex.EncodeToString(f[:]))
	}
	return r
}

// stands adds what the store says.
func (r *partnerReport) stands(st credential.Standing) {
	r.Generation, r.Cause = &st.Generation, st.Cause
	if !st.Since.IsZero() {
		since := st.Since.UTC()
		r.Since = &since
	}
	switch {
	case st.Disabled:
		r.State = "disabled"
	case r.State == "not known":
		r.State = "enabled"
	}
}

// standsAlone is for a store in memory: nothing but the configuration says how a partner stands.
func (r *partnerReport) standsAlone() {
	if r.State == "not known" {
		r.State = "enabled"
	}
}

// has adds a partner's certificates. p is nil where the configuration does not know it.
func (r *partnerReport) has(a *ca.Authority, list []*ca.Certificate, p *policy.Partner, now time.Time) {
	issuer := policy.FingerprintOf(a.CA())
	for _, c := range list {
		r.Certificates = append(r.Certificates, certificateOf(c, issuer, p, now))
	}
}

// nameText is a name as the configuration writes it.
func nameText(der []byte) string {
	s, err := policy.SubjectOf(der)
	if err != nil {
		return "not readable: " + err.Error()
	}
	return s.String()
}

// valid is how many certificates are valid, and the end of the last of them.
func (r *partnerReport) valid() (n int, end time.Time) {
	for _, c := range r.Certificates {
		if c.Status == "valid" {
			n++
			if c.NotAfter.After(end) {
				end = c.NotAfter
			}
		}
	}
	return n, end
}

// daysLeft is whole days; none once it has ended.
func daysLeft(end, now time.Time) int { return max(0, int(end.Sub(now)/(24*time.Hour))) }

// standing is a partner's standing as people read it.
func (r *partnerReport) standing() string {
	if r.Generation == nil {
		return r.State
	}
	return fmt.Sprintf("%s, generation %d, since %s", r.State, *r.Generation, timeText(r.Since))
}

func timeText(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.Format(time.RFC3339)
}

func writeJSON(out io.Writer, value any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(value)
}

// showing is what `partner show` is asked for.
type showing struct {
	at             caAt
	config, serial string
	asJSON, asPEM  bool
}

func cmdPartnerShow() *cobra.Command {
	var s showing
	cmd := &cobra.Command{
		Use: "show PARTNER", Short: "Show a partner, its certificates and how it stands", Args: cobra.ExactArgs(1),
		Long: "Show prints a partner as the configuration has it, how it stands, and, with --ca, the certificates in the CA's\n" +
			"index. With --pem it prints the certificates themselves: those that are valid, or that of --serial.",
		Example: "  cardstile partner show acme --ca partners-ca --config config.yaml --json | jq -r '.certificates[] | select(.status == \"valid\").pin'",
		RunE:    func(cmd *cobra.Command, args []string) error { return s.run(cmd, args[0]) },
	}
	configFlag(cmd, &s.config)
	f := cmd.Flags()
	f.StringVar(&s.at.dir, "ca", "", "directory of the CA, for the certificates")
	f.StringVar(&s.serial, "serial", "", "that certificate alone, by its serial number in hex")
	f.BoolVar(&s.asJSON, "json", false, "print one JSON document")
	f.BoolVar(&s.asPEM, "pem", false, "print the certificates themselves")
	return cmd
}

func (s *showing) run(cmd *cobra.Command, id string) error {
	switch {
	case s.at.dir == "" && (s.asPEM || s.serial != ""):
		return errors.New("--pem and --serial: want --ca")
	case s.asPEM && s.asJSON:
		return errors.New("want either --pem or --json")
	}
	b, err := loadPartial(s.config)
	if err != nil {
		return err
	}
	p := b.partners.ByID(id)
	r := reportOf(id, p)
	if s.at.dir != "" {
		if err := s.certificates(r, p, &notes{said: cmd.ErrOrStderr()}); err != nil {
			return err
		}
	}
	if p == nil && len(r.Certificates) == 0 {
		return fmt.Errorf("%s: no partner has the id %q (known: %s)", s.config, id, listed(b.partnerIDs()))
	}
	if s.asPEM {
		return r.writePEM(cmd.OutOrStdout(), s.serial != "")
	}
	note := ""
	if p != nil {
		note = r.lookUp(cmd, s.config, p)
	}
	if s.asJSON {
		if note != "" {
			fmt.Fprintln(cmd.ErrOrStderr(), note)
		}
		return writeJSON(cmd.OutOrStdout(), r)
	}
	return r.write(cmd.OutOrStdout(), note)
}

// certificates adds those of the CA's index that were asked for.
func (s *showing) certificates(r *partnerReport, p *policy.Partner, n *notes) error {
	a, err := readCA(s.at.dir, n)
	if err != nil {
		return err
	}
	defer a.Close()
	list := a.Of(r.Partner)
	if s.serial != "" {
		list = slices.DeleteFunc(list, func(c *ca.Certificate) bool { return c.Serial() != serialText(s.serial) })
		if len(list) == 0 {
			return fmt.Errorf("%s: no certificate of %s has this serial number", s.at.dir, r.Partner)
		}
	}
	r.has(a, list, p, time.Now())
	return nil
}

// lookUp adds how a partner stands, and returns why that is not known.
func (r *partnerReport) lookUp(cmd *cobra.Command, config string, p *policy.Partner) (note string) {
	s, err := openStandings(config, p.ID)
	if errors.Is(err, errMemory) {
		r.standsAlone()
		return "the store is in memory"
	}
	if err != nil {
		return err.Error()
	}
	defer s.close()
	all, err := s.All(cmd.Context())
	if err != nil {
		return err.Error()
	}
	if st, known := all[p.ID]; known {
		r.stands(st)
	}
	return ""
}

// write is for people. For programs there is --json.
func (r *partnerReport) write(out io.Writer, note string) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name, value string) { fmt.Fprintf(w, "%s\t%s\n", name, value) }
	line("partner", r.Partner)
	if r.Environment != "" {
		line("environment", r.Environment)
	}
	for _, s := range r.Subjects {
		line("subject", s)
	}
	for _, f := range r.CA {
		line("CA SHA-256", f)
	}
	for _, pin := range r.Pins {
		line("pin", pin)
	}
	if note != "" {
		note = " (" + note + ")"
	}
	line("standing", r.standing()+note)
	for _, c := range r.Certificates {
		fmt.Fprintln(w)
		c.write(line)
	}
	return w.Flush()
}

func (c *certificateReport) write(line func(name, value string)) {
	line("certificate", c.Serial)
	status := c.Status
	if c.Revoked != nil {
		status += fmt.Sprintf(" %s (%s)", timeText(c.Revoked), c.Reason)
	}
	line("status", status)
	line("subject", c.Subject)
	line("issuer", c.Issuer)
	line("issuer SHA-256", c.IssuerSHA256)
	line("valid", fmt.Sprintf("%s to %s, %d days left", c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339), c.DaysLeft))
	line("SHA-256", c.SHA256)
	pinned := ""
	if c.Pinned != nil && !*c.Pinned {
		pinned = " (not among the partner's)"
	}
	line("pin", c.Pin+pinned)
}

// writePEM prints the certificates that are valid, or all.
func (r *partnerReport) writePEM(out io.Writer, all bool) error {
	n := 0
	for _, c := range r.Certificates {
		if !all && c.Status != "valid" {
			continue
		}
		n++
		if _, err := out.Write(ca.PEM(c.certificate)); err != nil {
			return err
		}
	}
	if n == 0 {
		return fmt.Errorf("%s has no certificate that is valid now", r.Partner)
	}
	return nil
}
