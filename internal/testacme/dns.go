package testacme

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// Zone is the one zone of the DNS.
const Zone = "example.test."

// DNS is a server by TCP and UDP: all names have the address 127.0.0.1, and those TXT records that its file says.
type DNS struct {
	Addr string
	// File has changes of records, one JSON document after the other, as a hook gets them.
	File string
}

func newDNS(t testing.TB) *DNS {
	t.Helper()
	d := &DNS{File: filepath.Join(t.TempDir(), "changes")}
	l := listen(t)
	d.Addr = l.Addr().String()
	packets, err := net.ListenPacket("udp", d.Addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []*dns.Server{{Listener: l, Handler: d}, {PacketConn: packets, Handler: d}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		go server.ActivateAndServe() //nolint:errcheck // shut down at the end
		<-started
		t.Cleanup(func() { server.Shutdown() }) //nolint:errcheck // what it held is closed
	}
	return d
}

// ServeDNS implements dns.Handler.
func (d *DNS) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	a := new(dns.Msg).SetReply(q)
	a.Authoritative = true
	question := q.Question[0]
	header := dns.RR_Header{Name: question.Name, Rrtype: question.Qtype, Class: dns.ClassINET, Ttl: 1}
	name := strings.ToLower(question.Name)
	switch question.Qtype {
	case dns.TypeA:
		a.Answer = append(a.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeSOA:
		soa := &dns.SOA{Hdr: header, Ns: "ns." + Zone, Mbox: "hostmaster." + Zone, Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 1}
		soa.Hdr.Name = Zone
		if name == Zone {
			a.Answer = append(a.Answer, soa)
		} else {
			a.Ns = append(a.Ns, soa)
		}
	case dns.TypeTXT:
		values, err := d.values(name)
		if err != nil {
			a.Rcode = dns.RcodeServerFailure
		}
		for _, v := range values {
			a.Answer = append(a.Answer, &dns.TXT{Hdr: header, Txt: []string{v}})
		}
	}
	w.WriteMsg(a) //nolint:errcheck // whoever asked is gone
}

// Change is what a hook gets.
type Change struct {
	Operation, Zone string
	Records         []Record
}

// Record is a record of a change.
type Record struct {
	Name, Type, Value string
	TTL               int
}

// Changes are those of the file so far.
func (d *DNS) Changes() ([]Change, error) {
	f, err := os.Open(d.File)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []Change
	for in := json.NewDecoder(f); ; {
		in.DisallowUnknownFields()
		var c Change
		switch err := in.Decode(&c); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, err
		}
		all = append(all, c)
	}
}

// values are the TXT records of a name.
func (d *DNS) values(name string) ([]string, error) {
	changes, err := d.Changes()
	var found []string
	for _, c := range changes {
		for _, r := range c.Records {
			switch {
			case r.Name+"."+c.Zone != name || r.Type != "TXT":
			case c.Operation == "append":
				found = append(found, r.Value)
			case c.Operation == "delete":
				found = slices.DeleteFunc(found, func(v string) bool { return v == r.Value })
			}
		}
	}
	return found, err
}
