package gateway

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"time"

	"github.com/libdns/libdns"
)

// DNSHook is an operator's program or web hook that adds and removes DNS records, for the challenge dns-01. One of Program and
// URL. Both get a document of the form
//
//	{"operation":"append","zone":"example.com.","records":[{"name":"_acme-challenge.api","type":"TXT","ttl":60,"value":"…"}]}
//
// or the same with "delete": the program on standard input, the hook as the body of a POST. Names are relative to the zone,
// ttl is in seconds. There may be several records of one name, which differ in their values. The program is done when it exits
// with 0, the hook when it answers 2xx; what they say is not read: it may quote their own secrets.
type DNSHook struct {
	Program     []string // with its arguments
	URL         string
	Bearer      string         // of the hook; empty: none
	Roots       *x509.CertPool // of the hook; nil: the system's
	Timeout     time.Duration  // for one call; 0: 30 s
	Propagation time.Duration  // for a record to be seen; 0: 2 min
	Resolvers   []string       // host:port; empty: the system's, and then the zone's own servers
}

const defaultDNSTimeout = 30 * time.Second

// dnsChange is what a hook is told.
type dnsChange struct {
	Operation string      `json:"operation"`
	Zone      string      `json:"zone"`
	Records   []dnsRecord `json:"records"`
}

type dnsRecord struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	TTL   int    `json:"ttl"` // s
	Value string `json:"value"`
}

// AppendRecords implements libdns.RecordAppender.
func (h *DNSHook) AppendRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, h.change(ctx, "append", zone, records)
}

// DeleteRecords implements libdns.RecordDeleter.
func (h *DNSHook) DeleteRecords(ctx context.Context, zone string, records []libdns.Record) ([]libdns.Record, error) {
	return records, h.change(ctx, "delete", zone, records)
}

func (h *DNSHook) change(ctx context.Context, operation, zone string, records []libdns.Record) error {
	c := dnsChange{Operation: operation, Zone: zone}
	for _, r := range records {
		rr := r.RR()
		c.Records = append(c.Records, dnsRecord{rr.Name, rr.Type, int(rr.TTL / time.Second), rr.Data})
	}
	document, err := json.Marshal(c)
	if err != nil {
		return err
	}
	timeout := h.Timeout
	if timeout == 0 {
		timeout = defaultDNSTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if len(h.Program) > 0 {
		err = h.run(ctx, document)
	} else {
		err = h.post(ctx, document)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("no answer within %v", timeout)
	}
	if err != nil {
		return fmt.Errorf("dns hook: %s: %w", operation, err)
	}
	return nil
}

func (h *DNSHook) run(ctx context.Context, document []byte) error {
	cmd := exec.CommandContext(ctx, h.Program[0], h.Program[1:]...)
	cmd.Stdin = bytes.NewReader(document)
	cmd.WaitDelay = time.Second // its children may keep the pipe
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return fmt.Errorf("the program ended with %v", exit.ProcessState)
	}
	return err
}

func (h *DNSHook) post(ctx context.Context, document []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(document))
	if err != nil {
		return errors.New("the URL does not parse") // its text may have a secret in it
	}
	request.Header.Set("Content-Type", "application/json")
	if h.Bearer != "" {
		request.Header.Set("Authorization", "Bearer "+h.Bearer)
	}
	transport := &http.Transport{TLSClientConfig: ClientTLS(h.Roots), DisableKeepAlives: true}
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return errors.Unwrap(err) // without the URL
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(answer.Body, 64<<10)); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("status %d", answer.StatusCode)
	}
	return nil
}
