package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/cardstile/cardstile/policy"
	"github.com/cardstile/cardstile/vault/ca"
)

// maxDays is how long a certificate can be valid at most. One that a CA elsewhere issued for longer comes with a warning.
const maxDays = 825

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
	external, asJSON                                       bool
	notes
	report issueReport
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
	jsonFlag(cmd, &i.asJSON)
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

// run does what was asked for, and prints what was done: the report, or what is for people.
func (i *issuing) run(out io.Writer, id string, renew bool) error {
	if !i.asJSON {
		return i.do(out, id, renew)
	}
	i.report.Partner, i.report.Out = id, i.out
	if err := i.do(io.Discard, id, renew); err != nil {
		return err
	}
	i.report.Warnings = i.warnings
	if err := writeJSON(out, &i.report); err != nil && i.report.Certificate != nil && i.certificate == "" {
		return notDelivered(id, i.report.Certificate.Serial, err)
	} else if err != nil {
		return err
	}
	return nil
}

func notDelivered(id, serial string, err error) error {
	return fmt.Errorf("serial %s is issued, and not delivered (`cardstile partner show %s --serial %[1]s --pem` prints it): %[3]w", serial, id, err)
}

func (i *issuing) do(out io.Writer, id string, renew bool) error {
	switch {
	case i.days < 1 || i.days > maxDays:
		return fmt.Errorf("--days: want 1 to %d", maxDays)
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
	if err := ownKey(b, id, request.Pin()); err != nil {
		return fmt.Errorf("%s: %w", i.csr, err)
	}
	if asked := request.NotGranted(); len(asked) > 0 && i.external {
		i.warn("%s: have the CA not grant what it asks for besides: %s", i.csr, strings.Join(asked, ", "))
	} else if len(asked) > 0 {
		i.warn("%s: not granted, although it asks: %s", i.csr, strings.Join(asked, ", "))
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

// ownKey refuses a key that the configuration has as another partner's.
func ownKey(b *builder, id string, pin policy.Fingerprint) error {
	for _, p := range b.partners.All() {
		if p.ID != id && slices.Contains(p.Pins, pin) {
			return fmt.Errorf("its key is pinned for partner %s", p.ID)
		}
	}
	return nil
}

func (i *issuing) issue(out io.Writer, b *builder, id string, request *ca.Request, subject policy.Subject, renew bool) error {
	a, err := i.at.open(&i.notes)
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
		last := valid[len(valid)-1]
		return fmt.Errorf("%s has a certificate that is valid until %s (serial %s): cardstile partner renew", id, last.NotAfter.Format(time.RFC3339), last.Serial())
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
	file, err := i.reserve(out)
	if err != nil {
		return err
	}
	c, err := a.Issue(id, subject.String(), request, i.days, now)
	if err != nil {
		return errors.Join(err, file.drop())
	}
	if err := i.deliver(file, ca.PEM(c.Certificate)); err != nil {
		return notDelivered(id, c.Serial(), err)
	}
	i.explain(b, id, []*x509.Certificate{c.Certificate, a.CA()}, subject, filepath.Join(i.at.dir, ca.CertificateFile))
	if c.NotAfter.Equal(a.CA().NotAfter) {
		i.warn("it ends with the CA's own certificate, sooner than in %d days: it is time for another CA.", i.days)
	}
	return nil
}

// delivery is where a certificate goes: a file that is there, and empty, before there is a certificate, or standard output.
type delivery struct {
	out  io.Writer
	file *os.File // nil: to out
}

// reserve makes the file, so that nothing is issued that has no place.
func (i *issuing) reserve(out io.Writer) (*delivery, error) {
	if i.out == "" {
		return &delivery{out: out}, nil
	}
	f, err := os.OpenFile(i.out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s: is there already; nothing was issued", i.out)
	}
	return &delivery{out, f}, err
}

// deliver writes a certificate to its place, or has it in the report.
func (i *issuing) deliver(d *delivery, content []byte) error {
	if d.file == nil {
		i.report.PEM = string(content)
	}
	return d.write(content)
}

func (d *delivery) write(content []byte) error {
	if d.file == nil {
		_, err := d.out.Write(content)
		return err
	}
	_, err := d.file.Write(content)
	return errors.Join(err, d.file.Sync(), d.file.Close())
}

// drop removes the file: there is nothing to deliver.
func (d *delivery) drop() error {
	if d.file == nil {
		return nil
	}
	return errors.Join(d.file.Close(), os.Remove(d.file.Name()))
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
	over, _, err := certificateFile(i.over)
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

// certificateFile reads a certificate and the CAs between it and its anchor, if they follow it.
func certificateFile(name string) (c *x509.Certificate, between []*x509.Certificate, err error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, err
	}
	if c, err = ca.ParseCertificate(content); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	_, content = pem.Decode(content)
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		next, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, nil, fmt.Errorf("%s: what follows the certificate is not its chain", name)
		}
		between = append(between, next)
	}
	return c, between, nil
}

// explain says what a certificate is, and what to do before it is handed out. chain begins with it and its CA. authority is
// the file of its CA, if that is known.
func (i *issuing) explain(b *builder, id string, chain []*x509.Certificate, subject policy.Subject, authority string) {
	c, p := chain[0], b.partners.ByID(id)
	r := certificateOf(&ca.Certificate{Certificate: c, Partner: id}, policy.FingerprintOf(chain[1]), p, time.Now())
	i.report.Certificate = &r
	i.tell("%s: %s, serial %s, valid until %s\n  certificate SHA-256 %s\n  pin                 %s\n",
		id, subject, r.Serial, r.NotAfter.Format(time.RFC3339), r.SHA256, r.Pin)
	switch {
	case p == nil:
		own := ""
		switch {
		case len(b.trusted) > 1 && authority == "":
			own = ", ca: FILE-OF-ITS-CA"
		case len(b.trusted) > 1:
			own = fmt.Sprintf(", ca: %q", b.named(authority))
		}
		i.report.Configure = fmt.Sprintf("  - id: %s\n    certificate: {subject: %q%s}\n", id, subject, own)
		i.tell("%s does not know %s yet. Add under `partners`, and reload, before you hand the certificate out:\n%s", i.config, id, i.report.Configure)
	case r.Pinned != nil && !*r.Pinned:
		i.warn("%s has pins, and this one is not among them. Add it to `certificate.pins`, reload, and only then hand the certificate out.", id)
	}
}

// tell says what is no warning to people. In JSON it stands in members of its own.
func (i *issuing) tell(format string, args ...any) {
	if !i.asJSON {
		fmt.Fprintf(i.said, format, args...)
	}
}

// named is how the configuration names a file: relative to itself where that is below its directory.
func (b *builder) named(file string) string {
	path, err := filepath.Abs(file)
	if err != nil {
		return file
	}
	if below, err := filepath.Rel(b.dir, path); err == nil && filepath.IsLocal(below) {
		return below
	}
	return path
}
