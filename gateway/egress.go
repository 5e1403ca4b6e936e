package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/cardstile/cardstile/policy"
)

// This file says where our own connections may go. It is asked with the address of each connection, after names have been
// resolved and before anything is sent: what a name meant earlier, or means to somebody else, does not count.

var (
	// errDestination: an address that is none of the issuer's destinations.
	errDestination = errors.New("destination not allowed")
	// errPin: a certificate whose public key is none of the issuer's pins.
	errPin = errors.New("public key not pinned")
)

// special are the blocks that are no place on the Internet (IANA's special-purpose address registries, RFC 6890), with those
// that carry an IPv4 address inside, which routers may unwrap.
var special = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
	"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func prefixes(list ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(list))
	for i, text := range list {
		all[i] = netip.MustParsePrefix(text)
	}
	return all
}

// nat64 is the well-known prefix of IPv4 addresses behind a translator (RFC 6052 section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// sixToFour are IPv4 addresses behind relays that nobody runs any more (RFC 7526): never a destination.
var sixToFour = netip.MustParsePrefix("2002::/16")

// plainAddr is the address that packets to a will reach: without a zone, and of an IPv4 address inside IPv6 the IPv4 one.
func plainAddr(a netip.Addr) netip.Addr {
	a = a.WithZone("").Unmap()
	if nat64.Contains(a) {
		b := a.As16()
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return a
}

// Destinations are the addresses that connections to one place may go to.
type Destinations struct {
	// Listed are the networks that are allowed; without any, all public addresses are. A special-purpose address (private, loopback,
	// link-local, …) must be listed by its own block or a part of it: 0.0.0.0/0 is no leave to talk to 169.254.169.254.
	Listed []netip.Prefix

	// Named is the address that the URL itself names; the zero Addr where it names a host.
	Named netip.Addr

	// Loopback allows loopback addresses besides, where nothing is listed: for environment test.
	Loopback bool
}

// CheckDestination returns what is wrong with a network as a destination, whoever lists it.
func CheckDestination(p netip.Prefix) error {
	if p != p.Masked() {
		return fmt.Errorf("want a network, as in %v", p.Masked())
	}
	if p.Addr().Is4In6() {
		return errors.New("want an IPv4 network as such, not inside IPv6")
	}
	if p.Addr().IsMulticast() || sixToFour.Contains(p.Addr()) {
		return errors.New("multicast and 6to4 networks are no destinations")
	}
	return nil
}

// Allow reports whether a connection may go to an address. Fails closed.
func (d Destinations) Allow(a netip.Addr) bool {
	a = plainAddr(a)
	if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() || sixToFour.Contains(a) { // on some systems 0.0.0.0 is loopback
		return false
	}
	if len(d.Listed) == 0 && (a == plainAddr(d.Named) || d.Loopback && a.IsLoopback()) {
		return true
	}
	// A network that is listed covers a special block only from inside it.
	width := 0
	for _, block := range special {
		if block.Contains(a) {
			width = max(width, block.Bits())
		}
	}
	if len(d.Listed) == 0 {
		return width == 0
	}
	return slices.ContainsFunc(d.Listed, func(p netip.Prefix) bool { return p.Contains(a) && p.Bits() >= width })
}

// control is a net.Dialer's Control.
func (d Destinations) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !d.Allow(to.Addr()) {
		return errDestination
	}
	return nil
}

// namedAddr is the address in a URL, if it has one in place of a host's name.
func namedAddr(u *url.URL) netip.Addr {
	a, err := netip.ParseAddr(u.Hostname())
	if err != nil {
		return netip.Addr{}
	}
	return a
}

// Dialer dials the destinations alone. A nearer timeout is the caller's.
func (d Destinations) Dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{Control: d.control, Timeout: timeout, KeepAlive: 30 * time.Second}
}

// pinned returns a configuration that, besides all its own checks, takes the listed public keys alone, resumed sessions included.
func pinned(c *tls.Config, pins []policy.Fingerprint) *tls.Config {
	if c == nil || len(pins) == 0 {
		return c
	}
	c = c.Clone()
	before := c.VerifyConnection
	c.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 || !slices.Contains(pins, policy.PinOf(cs.PeerCertificates[0])) {
			return errPin
		}
		if before != nil {
			return before(cs)
		}
		return nil
	}
	return c
}
