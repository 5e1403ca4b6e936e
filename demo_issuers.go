package main

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"time"

	"github.com/cardstile/cardstile/deploy/sandbox"
)

// This file starts the demo's sandbox issuers.

// demoIssuer is what the demo needs of each.
type demoIssuer interface {
	Serve(net.Listener) error
	Shutdown(context.Context) error
}

// makeIssuers makes them, and serves none. secure is nil for whoever serves them in another way.
func (d *demo) makeIssuers(secure *tls.Config) (map[string]demoIssuer, error) {
	key, err := d.rsaKey("rain-key.pem")
	if err != nil {
		return nil, err
	}
	if d.rain, err = sandbox.NewRain(sandbox.RainConfig{APIKey: d.state.RainKey, Key: key, Cards: d.state.Cards, Users: d.state.Users, TLS: secure}); err != nil {
		return nil, err
	}
	d.payments, err = sandbox.NewPayments(sandbox.PaymentsConfig{
		APIKeys: map[string]string{d.state.PaymentsKey: demoAccount}, Cards: d.state.Cards, TLS: secure,
	})
	if err != nil {
		return nil, err
	}
	if key, err = d.rsaKey("payroc-key.pem"); err != nil {
		return nil, err
	}
	if d.payroc, err = sandbox.NewPayroc(sandbox.PayrocConfig{APIKey: d.state.CheckoutKey, Key: key, Terminals: []string{demoTerminal}, TLS: secure}); err != nil {
		return nil, err
	}
	if key, err = d.rsaKey("cards-key.pem"); err != nil {
		return nil, err
	}
	d.cards, err = sandbox.NewGnosisCards(sandbox.GnosisCardsConfig{APIKeys: map[string]string{d.state.UploadKey: demoPartner}, Key: key, TLS: secure})
	return map[string]demoIssuer{"rain": d.rain, "payments": d.payments, "payroc": d.payroc, "cards": d.cards}, err
}

// issuerTLS is the issuers' side of TLS.
func (d *demo) issuerTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(d.path("issuer-server.pem"), d.path("issuer-server-key.pem"))
	return &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}, err
}

// serveIssuers starts the sandbox issuers where they stood before, or at free ports.
func (d *demo) serveIssuers() (stop func(), err error) {
	secure, err := d.issuerTLS()
	if err != nil {
		return nil, err
	}
	issuers, err := d.makeIssuers(secure)
	if err != nil {
		return nil, err
	}
	listeners := map[string]net.Listener{}
	for name := range issuers {
		if listeners[name], err = d.listen(name); err != nil {
			delete(listeners, name)
			for _, ln := range listeners {
				err = errors.Join(err, ln.Close())
			}
			return nil, err
		}
	}
	ended := make(chan error, len(issuers))
	for name, is := range issuers {
		go func() { ended <- is.Serve(listeners[name]) }()
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		for _, is := range issuers {
			is.Shutdown(ctx) //nolint:errcheck // the demo is ending
		}
		for range issuers {
			<-ended
		}
	}, nil
}

// listen listens where an issuer stood before, or at a free port, and remembers where.
func (d *demo) listen(name string) (net.Listener, error) {
	was := d.state.Addresses[name]
	if was != "" {
		if ln, err := net.Listen("tcp", was); err == nil {
			return ln, nil
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	d.state.Addresses[name] = ln.Addr().String()
	return ln, nil
}

// url is an issuer's base.
func (d *demo) url(name string) string { return "https://" + d.state.Addresses[name] }
