package main

import (
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// This file judges where listeners stand.

// hostPort splits an address of the configuration, or reports what it should be.
func (b *builder) hostPort(key, address, want string) (host string, port uint16, ok bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		b.problem(key, "want %s", want)
		return "", 0, false
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		b.problem(key, "want a port from 0 to 65535")
		return "", 0, false
	}
	return host, uint16(n), true
}

// checkPort refuses a URL's port that is none: a connection would fail with it, in an exchange.
func (b *builder) checkPort(key string, u *url.URL) bool {
	if strings.HasSuffix(u.Host, ":") || u.Port() != "" && !isPort(u.Port()) {
		b.problem(key, "want a port from 1 to 65535, or none")
		return false
	}
	return true
}

// isPort reports whether connections can go to a port.
func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

// checkAddresses refuses two listeners in one place: the second one would not start.
func (b *builder) checkAddresses() {
	type place struct {
		name, host, port string
	}
	var taken []place
	add := func(key, name, address string) {
		host, port, err := net.SplitHostPort(address)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 { // told already; or any free one
			return
		}
		for _, p := range taken {
			if p.port == port && overlap(p.host, host) {
				b.problem(key, "%s listens there", p.name)
				return
			}
		}
		taken = append(taken, place{name, host, port})
	}
	for _, name := range slices.Sorted(maps.Keys(b.config.Listeners)) {
		add("listeners."+name+".address", "listener "+name, b.config.Listeners[name].Address)
	}
	add("admin.address", "the admin listener", b.config.Admin.Address)
	if c := b.config.Certificates; c != nil && c.ACME != nil && c.ACME.HTTPAddress != "" {
		add("certificates.acme.http_address", "", c.ACME.HTTPAddress)
	}
}

// overlap reports whether sockets on two hosts, with one port, are in one another's way. No host, :: and 0.0.0.0
// are every address, of IPv4 and IPv6.
func overlap(one, other string) bool {
	a, b := hostAddr(one), hostAddr(other)
	if !a.IsValid() || !b.IsValid() {
		return one == other
	}
	return a == b || a.IsUnspecified() || b.IsUnspecified()
}

// hostAddr is a host's address. That of a name is not known here, but for localhost.
func hostAddr(host string) netip.Addr {
	switch host {
	case "":
		return netip.IPv6Unspecified()
	case "localhost":
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	a, _ := netip.ParseAddr(host)
	return a.Unmap()
}
