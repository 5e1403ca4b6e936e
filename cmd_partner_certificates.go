package main

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
)

// maxValid is how many certificates of a partner can be valid at one time: the one in use, and the one that follows it.
const maxValid = 2

// cmdPartnerCertificates are the commands for partners' client certificates.
func cmdPartnerCertificates() []*cobra.Command {
	return []*cobra.Command{cmdPartnerAdd(), cmdPartnerRenew(), cmdPartnerRevoke(), cmdPartnerShow()}
}

// issuing is what `partner add` and `partner renew` are asked for.
type issuing struct {
	at                                                     caAt
	config, csr, out, over, signature, outbox, certificate string
	days                                                   int
	external                                               bool
	said                                                   io.Writer
}

func (i *issuing) flags(cmd *cobra.Command) {
	configFlag(cmd, &i.config)
	i.at.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&i.csr, "csr", "", "the partner's certificate request, PEM")
	f.StringVar(&i.out, "out", "", "file to write the certificate to (default standard output)")
	f.IntVar(&i.days, "days", 90, "how long the certificate is valid")
	f.BoolVar(&i.external, "external", false, "the CA is somebody else's: put the request into --outbox, once it is checked")
	f.StringVar(&i.outbox, "outbox", "", "directory of requests to an external CA")
	f.StringVar(&i.certificate, "certificate", "", "what the external CA issued for a request of --outbox")
}

func cmdPartnerAdd() *cobra.Command {
	var i issuing
	cmd := &cobra.Command{
		Use: "add PARTNER", Short: "Issue a partner's first certificate, for a request", Args: cobra.ExactArgs(1),
		Long: "Add checks a certificate request and issues a client certificate for it. The request must be signed by its\n" +
			"own key, and have the subject that the configuration has for the partner. Where the configuration does not\n" +
			"know the partner yet, what belongs into it is printed: it is never edited.\n\n" +
			"With --external the request is checked and put into the outbox, for a CA elsewhere; with --certificate what\n" +
			"that issued is checked and taken back in.",
		Example: "  cardstile partner add acme --csr acme.csr --ca partners-ca --passphrase-file passphrase --config config.yaml --out acme.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			i.said = cmd.ErrOrStderr()
			return i.run(cmd.OutOrStdout(), args[0], false)
		},
	}
	i.flags(cmd)
	return cmd
}

func cmdPartnerRenew() *cobra.Command {
	var i issuing
	cmd := &cobra.Command{
		Use: "renew PARTNER", Short: "Issue the certificate that follows one that is still valid", Args: cobra.ExactArgs(1),
		Long: "Renew issues a certificate beside the partner's current one, which stays valid until it ends. The current one\n" +
			"must ask for it: the request is of the same key, or --signature is the current key's over the request's DER:\n\n" +
			"  openssl req -in new.csr -outform DER -out new.der\n" +
			"  openssl dgst -sha256 -sign current-key.pem -out new.sig new.der",
		Example: "  cardstile partner renew acme --csr new.csr --signature new.sig --ca partners-ca --passphrase-file passphrase --config config.yaml --out new.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			i.said = cmd.ErrOrStderr()
			return i.run(cmd.OutOrStdout(), args[0], true)
		},
	}
	i.flags(cmd)
	cmd.Flags().StringVar(&i.over, "over", "", "the current certificate (default the newest valid one of the CA's index)")
	cmd.Flags().StringVar(&i.signature, "signature", "", "the current key's signature over the request")
	return cmd
}

func (i *issuing) run(out io.Writer, id string, renew bool) error {
	switch {
	case i.days < 1 || i.days > 825:
		return errors.New("--days: want 1 to 825")
	case i.certificate != "" && (i.outbox == "" || i.csr != "" || i.external):
		return errors.New("--certificate: want --outbox, where its request is, and neither --csr nor --external")
	case i.certificate == "" && i.csr == "":
		return errors.New("--csr: required")
	case i.external && i.outbox == "":
		return errors.New("--external: want --outbox, the directory to put the request in")
	case !i.external && i.certificate == "" && i.at.dir == "":
		return errors.New("--ca: required, or --external")
	}
	b, err := loadPartial(i.config)
	if err != nil {
		return err
	}
	if i.certificate != "" {
		return i.takeBack(out, b, id)
	}
	content, err := os.ReadFile(i.csr)
	if err != nil {
		return err
	}
	request, err := ca.ParseRequest(content)
	if err != nil {
		return fmt.Errorf("%s: %w", i.csr, err)
	}
	subject, err := requestedSubject(b, id, request.Subject())
	if err != nil {
		return fmt.Errorf("%s: %w", i.csr, err)
	}
	if i.external {
		return i.handOut(out, b, id, request, subject, renew)
	}
	return i.issue(out, b, id, request, subject, renew)
}

// requestedSubject is the subject of a request, if the partner may have it [4].
func requestedSubject(b *builder, id string, der []byte) (policy.Subject, error) {
	subject, err := policy.SubjectOf(der)
	if err != nil {
		return subject, err
	}
	for _, p := range b.partners.All() {
		if p.ID != id && slices.Contains(p.Subjects, subject) {
			return subject, fmt.Errorf("the subject %s is that of partner %s", subject, p.ID)
		}
	}
	p := b.partners.ByID(id)
	switch {
	case p == nil:
		if _, err := policy.NewPartners([]policy.Partner{{ID: id}}); err != nil {
			return subject, err
		}
	case len(p.Subjects) == 0:
		return subject, fmt.Errorf("partner %s has no certificate in the configuration: add `certificate: {subject: %q}`", id, subject)
	case !slices.Contains(p.Subjects, subject):
		return subject, fmt.Errorf("the subject is %s; partner %s has %s", subject, id, p.Subjects[0])
	}
	return subject, nil
}

func (i *issuing) issue(out io.Writer, b *builder, id string, request *ca.Request, subject policy.Subject, renew bool) error {
	a, err := i.at.open()
	if err != nil {
		return err
	}
	defer a.Close()
	if err := fitsCA(b, id, a); err != nil {
		return err
	}
	now := time.Now()
	valid := a.Valid(id, now)
	switch {
	case !renew && len(valid) > 0:
		return fmt.Errorf("%s has a certificate that is valid until %s: cardstile partner renew", id, valid[len(valid)-1].NotAfter.Format(time.RFC3339))
	case renew && len(valid) >= maxValid:
		return fmt.Errorf("%s has %d valid certificates already: the older one must end, or be revoked", id, len(valid))
	case renew:
		current, err := i.current(valid, id)
		if err != nil {
			return err
		}
		if err := i.proveRenewal(request, current); err != nil {
			return err
		}
	}
	if i.out != "" {
		if _, err := os.Lstat(i.out); err == nil {
			return fmt.Errorf("%s: is there already; nothing was issued", i.out)
		}
	}
	c, err := a.Issue(id, subject.String(), request, i.days, now)
	if err != nil {
		return err
	}
	return i.deliver(out, b, id, c.Certificate, subject)
}

// fitsCA refuses a CA that the partner's certificates do not end in, and one of production whose key is not sealed [24].
func fitsCA(b *builder, id string, a *ca.Authority) error {
	environment := b.config.Environment
	anchors := b.trusted
	if p := b.partners.ByID(id); p != nil {
		anchors, environment = p.CA, p.Environment
	}
	if environment == "production" && !a.Sealed() {
		return errors.New("the CA's key is not sealed, which is for tests only: environment is production")
	}
	if !slices.Contains(anchors, policy.FingerprintOf(a.CA())) {
		return fmt.Errorf("this CA is not one that certificates of %s may end in: name its %s as `client_ca` of the listener, and as `certificate.ca` where there are several", id, ca.CertificateFile)
	}
	return nil
}

// current is the certificate that a renewal is over.
func (i *issuing) current(valid []*ca.Certificate, id string) (*x509.Certificate, error) {
	if len(valid) == 0 {
		return nil, fmt.Errorf("%s has no certificate that is valid now: what ended or was revoked renews nothing (cardstile partner add)", id)
	}
	if i.over == "" {
		return valid[len(valid)-1].Certificate, nil
	}
	over, err := certificateFile(i.over)
	if err != nil {
		return nil, err
	}
	for _, c := range valid {
		if c.Equal(over) {
			return over, nil
		}
	}
	return nil, fmt.Errorf("%s: not a certificate of %s that is valid now", i.over, id)
}

func (i *issuing) proveRenewal(request *ca.Request, current *x509.Certificate) error {
	var signature []byte
	if i.signature != "" {
		var err error
		if signature, err = os.ReadFile(i.signature); err != nil {
			return err
		}
	}
	if err := request.ProveRenewal(current, signature); err != nil {
		return fmt.Errorf("%s: %w", i.csr, err)
	}
	return nil
}

func certificateFile(name string) (*x509.Certificate, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	c, err := ca.ParseCertificate(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return c, nil
}

// deliver writes a certificate and says what to do with it.
func (i *issuing) deliver(out io.Writer, b *builder, id string, c *x509.Certificate, subject policy.Subject) error {
	pin := policy.PinOf(c)
	fmt.Fprintf(i.said, "%s: %s, serial %s, valid until %s\n  certificate SHA-256 %x\n  pin                 %x\n",
		id, subject, ca.SerialText(c.SerialNumber), c.NotAfter.Format(time.RFC3339), policy.FingerprintOf(c), pin)
	p := b.partners.ByID(id)
	switch {
	case p == nil:
		fmt.Fprintf(i.said, "%s does not know %s yet. Add under `partners`, and reload, before you hand the certificate out:\n  - id: %s\n    certificate: {subject: %q}\n",
			i.config, id, id, subject)
	case len(p.Pins) > 0 && !slices.Contains(p.Pins, pin):
		fmt.Fprintf(i.said, "warning: %s has pins, and this one is not among them. Add it to `certificate.pins`, reload, and only then hand the certificate out.\n", id)
	}
	if i.out == "" {
		_, err := out.Write(ca.PEM(c))
		return err
	}
	return writeNew(i.out, ca.PEM(c), 0o644)
}

// handOut puts a checked request into the outbox.
func (i *issuing) handOut(out io.Writer, b *builder, id string, request *ca.Request, subject policy.Subject, renew bool) error {
	if renew {
		if i.over == "" {
			return errors.New("--over: required with --external: the current certificate")
		}
		current, err := certificateFile(i.over)
		if err != nil {
			return err
		}
		if err := b.endsInCA(id, current); err != nil {
			return fmt.Errorf("%s: %w", i.over, err)
		}
		if err := i.proveRenewal(request, current); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(i.outbox, 0o700); err != nil {
		return err
	}
	name := outboxFile(i.outbox, id, request.Pin())
	if err := writeNew(name, request.PEM(), 0o644); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%s: for the CA: %s, %s, possession proven\n", name, subject, request.Key())
	return err
}

func outboxFile(dir, id string, pin [32]byte) string {
	return filepath.Join(dir, id+"-"+hex.EncodeToString(pin[:8])+".csr")
}

// takeBack checks what an external CA issued against the request that it was for.
func (i *issuing) takeBack(out io.Writer, b *builder, id string) error {
	c, err := certificateFile(i.certificate)
	if err != nil {
		return err
	}
	name := outboxFile(i.outbox, id, sha256.Sum256(c.RawSubjectPublicKeyInfo))
	content, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: no request of %s in %s is of its key", i.certificate, id, i.outbox)
	}
	if err != nil {
		return err
	}
	request, err := ca.ParseRequest(content)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := request.Fits(c); err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	subject, err := requestedSubject(b, id, c.RawSubject)
	if err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	if err := b.endsInCA(id, c); err != nil {
		return fmt.Errorf("%s: %w", i.certificate, err)
	}
	return i.deliver(out, b, id, c, subject)
}

// endsInCA verifies that a certificate is a client's, valid now, and issued by a CA that the partner's may end in.
func (b *builder) endsInCA(id string, c *x509.Certificate) error {
	anchors := b.trusted
	if p := b.partners.ByID(id); p != nil {
		anchors = p.CA
	}
	roots := x509.NewCertPool()
	for _, list := range b.clientCAs {
		for _, root := range list {
			if slices.Contains(anchors, policy.FingerprintOf(root)) {
				roots.AddCert(root)
			}
		}
	}
	if _, err := c.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		return fmt.Errorf("it is not a client certificate of the CA of %s, or not valid now: %w", id, err)
	}
	return nil
}

func cmdPartnerRevoke() *cobra.Command {
	var at caAt
	var config, serial, reason string
	var all bool
	cmd := &cobra.Command{
		Use: "revoke PARTNER", Short: "Revoke certificates of a partner", Args: cobra.ExactArgs(1),
		Long: "Revoke marks certificates as revoked, writes the CA's revocation list anew, and ends all that was minted for\n" +
			"the partner, where the store is shared. Gateways refuse the certificate once they have read the list. To stop\n" +
			"the partner within a second: `cardstile partner disable`.",
		Example: "  cardstile partner revoke acme --all --reason key_compromise --ca partners-ca --passphrase-file passphrase --config config.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (serial == "") != all {
				return errors.New("want either --serial or --all")
			}
			b, err := loadPartial(config)
			if err != nil {
				return err
			}
			if err := revokeCertificates(cmd.OutOrStdout(), &at, args[0], serial, reason); err != nil {
				return err
			}
			if b.partners.ByID(args[0]) == nil {
				return nil // it is gone from the configuration: nothing is minted for it
			}
			s, err := openStandings(config, args[0])
			if errors.Is(err, errMemory) {
				fmt.Fprintf(cmd.ErrOrStderr(), "The store is in memory: what was minted for %s stays good until it ends. To end it, `disabled: true` at the partner and a reload.\n", args[0])
				return nil
			}
			if err != nil {
				return fmt.Errorf("the certificates are revoked, and tokens are not: %w", err)
			}
			defer s.close()
			from, to, err := s.RevokeTokens(cmd.Context(), args[0])
			if err != nil {
				return fmt.Errorf("the certificates are revoked, and tokens are not: %w", s.explain(err))
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), standingText(args[0], "tokens revoked", from, to))
			return err
		},
	}
	configFlag(cmd, &config)
	at.flags(cmd)
	cmd.Flags().StringVar(&serial, "serial", "", "serial number of the certificate, in hex")
	cmd.Flags().BoolVar(&all, "all", false, "all that have not ended")
	cmd.Flags().StringVar(&reason, "reason", "unspecified", strings.Join(ca.Reasons(), ", "))
	cmd.MarkFlagRequired("ca")
	return cmd
}

func revokeCertificates(out io.Writer, at *caAt, id, serial, reason string) error {
	a, err := at.open()
	if err != nil {
		return err
	}
	defer a.Close()
	now := time.Now()
	list := slices.DeleteFunc(a.Of(id), func(c *ca.Certificate) bool {
		if serial == "" {
			return c.Status(now) == "expired"
		}
		return c.Serial() != strings.ToLower(strings.ReplaceAll(serial, ":", ""))
	})
	if len(list) == 0 {
		return fmt.Errorf("%s: no such certificate of %s; nothing was revoked", at.dir, id)
	}
	if err := a.Revoke(list, reason, now); err != nil {
		return err
	}
	for _, c := range list {
		fmt.Fprintf(out, "%s: serial %s revoked\n", id, c.Serial())
	}
	_, err = fmt.Fprintf(out, "%s: written; have it where the gateways' listeners look for it\n", a.CRLPath())
	return err
}

func cmdPartnerShow() *cobra.Command {
	var at caAt
	var config string
	cmd := &cobra.Command{
		Use: "show PARTNER", Short: "Show a partner, its certificates and how it stands", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := loadPartial(config)
			if err != nil {
				return err
			}
			p := b.partners.ByID(args[0])
			if p == nil {
				return fmt.Errorf("%s: no partner has the id %q (known: %s)", config, args[0], listed(b.partnerIDs()))
			}
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintf(w, "partner\t%s\nenvironment\t%s\n", p.ID, p.Environment)
			for _, s := range p.Subjects {
				fmt.Fprintf(w, "subject\t%s\n", s)
			}
			for _, pin := range p.Pins {
				fmt.Fprintf(w, "pin\t%x\n", pin)
			}
			fmt.Fprintf(w, "standing\t%s\n", showStanding(cmd, config, p))
			if err := w.Flush(); err != nil || at.dir == "" {
				return err
			}
			return showCertificates(cmd.OutOrStdout(), &at, p.ID)
		},
	}
	configFlag(cmd, &config)
	cmd.Flags().StringVar(&at.dir, "ca", "", "directory of the CA, for the certificates")
	return cmd
}

// showStanding is how a partner stands, as far as that can be found out.
func showStanding(cmd *cobra.Command, config string, p *policy.Partner) string {
	off := "enabled"
	if p.Disabled {
		off = "disabled in the configuration"
	}
	s, err := openStandings(config, p.ID)
	if errors.Is(err, errMemory) {
		return off + " (the store is in memory)"
	}
	if err != nil {
		return "not known: " + err.Error()
	}
	defer s.close()
	all, err := s.All(cmd.Context())
	st, known := all[p.ID]
	switch {
	case err != nil:
		return "not known: " + err.Error()
	case known && st.Disabled:
		off = "disabled"
	}
	return fmt.Sprintf("%s, generation %s, since %s", off, generationText(st), sinceText(st))
}

func showCertificates(out io.Writer, at *caAt, id string) error {
	a, err := at.read()
	if err != nil {
		return err
	}
	defer a.Close()
	now := time.Now()
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SERIAL\tSTATUS\tUNTIL\tDAYS LEFT\tSHA-256\tREASON")
	for _, c := range a.Of(id) {
		fmt.Fprintf(w, "%s\t%s\t%s\t%d\t%x\t%s\n", c.Serial(), c.Status(now), c.NotAfter.Format(time.RFC3339), daysLeft(c.Certificate, now), policy.FingerprintOf(c.Certificate), orDash(c.Reason))
	}
	return w.Flush()
}

// daysLeft is whole days; none once it has ended.
func daysLeft(c *x509.Certificate, now time.Time) int {
	return max(0, int(c.NotAfter.Sub(now)/(24*time.Hour)))
}

// listCertificates lists partners whose standing is in another process's memory.
func listCertificates(out io.Writer, config string, a *ca.Authority) error {
	b, err := loadPartial(config)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTNER\tSTATE"+certificateHeader(a))
	for _, p := range b.partners.All() {
		state := "not known"
		if p.Disabled {
			state = "disabled in the configuration"
		}
		fmt.Fprintf(w, "%s\t%s%s\n", p.ID, state, certificateColumns(a, p.ID))
	}
	return w.Flush()
}

func certificateHeader(a *ca.Authority) string {
	if a == nil {
		return ""
	}
	return "\tVALID\tUNTIL\tDAYS LEFT"
}

// certificateColumns are how many valid certificates a partner has, and when the last of them ends.
func certificateColumns(a *ca.Authority, id string) string {
	if a == nil {
		return ""
	}
	now := time.Now()
	valid := a.Valid(id, now)
	if len(valid) == 0 {
		return "\t0\t-\t-"
	}
	last := slices.MaxFunc(valid, func(a, b *ca.Certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return fmt.Sprintf("\t%d\t%s\t%d", len(valid), last.NotAfter.Format(time.RFC3339), daysLeft(last.Certificate, now))
}
