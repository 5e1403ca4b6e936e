package main

import (
	demopage "github.com/cardstile/cardstile/deploy/demo"
	"github.com/cardstile/cardstile/gateway/elements"
)

// page is the website of the demo's partner, which shows elements at work. It stands below /demo/ on the public listener, and calls
// the gateway that is there as any partner would: with the partner's certificate and API key, which browsers never get.
func (d *demo) page(doc demoFile) (*demopage.Page, error) {
	t, err := newTester(d.dir, doc) // for its clients, which trust the demo's authority alone
	if err != nil {
		return nil, err
	}
	library := elements.Lookup(elements.HostedFieldsLibrary)
	return demopage.New(demopage.Config{
		PublicURL: doc.PublicURL, Public: t.client,
		PartnersURL: doc.PartnersURL, Partner: t.partner,
		App: doc.GnosisPay.AppID, Card: doc.Card.ID, UserToken: doc.GnosisPay.UserToken,
		APIKey: doc.Payroc.APIKey, Terminal: doc.Payroc.TerminalID, LibVersion: doc.Payroc.LibVersion,
		Library: library.Path, Integrity: library.Integrity,
	})
}
