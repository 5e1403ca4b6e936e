package gateway_test

import (
	"github.com/cardstile/cardstile/gateway"
	"github.com/cardstile/cardstile/gateway/elements"
	"github.com/cardstile/cardstile/gateway/exchange"
)

// assets are the files of our pages, as main has them served.
func assets() []gateway.File {
	var files []gateway.File
	for _, a := range elements.Assets() {
		files = append(files, gateway.File{Path: a.Path, Headers: headers(a.Headers), Body: a.Body, Immutable: true})
	}
	return files
}

func headers(of []elements.Header) []exchange.HeaderField {
	all := make([]exchange.HeaderField, len(of))
	for i, h := range of {
		all[i] = exchange.HeaderField{Name: h.Name, Value: h.Value}
	}
	return all
}

func writePage(page *elements.Page, out *exchange.Response) {
	out.Header, out.Body = headers(page.Headers), append(out.Body[:0], page.HTML...)
}
