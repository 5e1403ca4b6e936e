package elements

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

//go:embed dist
var dist embed.FS

const assetPrefix = "/elements/"

// Asset is a file that pages load. Its name has its digest in it, so that it can be cached for ever.
type Asset struct {
	Path        string // "/elements/<file>"
	ContentType string
	Integrity   string // for the attribute of this name, sha384-…
	Body        []byte
	// Headers are those that go with it, Content-Type among them: the library of hosted fields is loaded by pages of
	// other origins, with its digest, which takes a CORS header that anyone may have.
	Headers []Header
}

// HostedFieldsLibrary is the name, in the manifest, of the script that a merchant's page loads; see [Lookup].
const HostedFieldsLibrary = "hosted-fields.js"

// Assets returns all files, sorted by path.
func Assets() []Asset {
	return slices.SortedFunc(maps.Values(manifest()), func(a, b Asset) int { return strings.Compare(a.Path, b.Path) })
}

// Lookup returns an asset by its name without the digest, as in "hosted-fields.js". It panics for a name that is none.
func Lookup(name string) Asset {
	a, ok := manifest()[name]
	if !ok {
		panic(fmt.Sprintf("elements: internal error: no asset %q", name))
	}
	return a
}

// manifest reads what tools/elements wrote. What is embedded is known to be whole: a test holds it to that.
func manifest() map[string]Asset {
	var files map[string]struct{ Path, Type, Integrity string }
	text, err := dist.ReadFile("dist/manifest.json")
	if err == nil {
		err = json.Unmarshal(text, &files)
	}
	assets := make(map[string]Asset, len(files))
	for name, f := range files {
		body, readErr := dist.ReadFile("dist/" + f.Path)
		if readErr != nil {
			err = readErr
		}
		assets[name] = Asset{Path: assetPrefix + f.Path, ContentType: f.Type, Integrity: f.Integrity, Body: body, Headers: assetHeaders(name, f.Type)}
	}
	if err != nil {
		panic("elements: internal error: " + err.Error())
	}
	return assets
}

func assetHeaders(name, contentType string) []Header {
	h := []Header{
		{"Content-Type", contentType},
		{"Cache-Control", "public, max-age=31536000, immutable"},
		{"X-Content-Type-Options", "nosniff"},
	}
	if name == HostedFieldsLibrary {
		return append(h, Header{"Cross-Origin-Resource-Policy", "cross-origin"}, Header{"Access-Control-Allow-Origin", "*"})
	}
	return append(h, Header{"Cross-Origin-Resource-Policy", "same-origin"})
}
