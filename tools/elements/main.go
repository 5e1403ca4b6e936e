// Command elements builds the pages of gateway/elements: what lies in src becomes dist, which the gateway embeds.
//
// It runs in the directory of the tools module, as `go -C tools run ./elements` does. With -check it writes nothing, and
// fails when dist is not what src makes. The same source and the same esbuild make the same bytes.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/evanw/esbuild/pkg/api"
)

// entries are the files of src that pages load; each becomes one file. Name is what the global of a library is called.
var entries = []struct{ source, global string }{
	{"card.ts", ""},
	{"card.css", ""},
	{"field.ts", ""},
	{"field.css", ""},
	{"vendor-field.ts", ""},
	{"hosted-fields.ts", "Cardstile"},
}

// file is a file of dist, as manifest.json describes it.
type file struct {
	Path      string `json:"path"`
	Type      string `json:"type"`
	Integrity string `json:"integrity"`

	body []byte
}

func main() {
	dir := flag.String("dir", filepath.Join("..", "gateway", "elements"), "the directory of src and dist")
	check := flag.Bool("check", false, "write nothing; fail when dist is not what src makes")
	flag.Parse()
	if err := run(*dir, *check); err != nil {
		fmt.Fprintln(os.Stderr, "elements:", err)
		os.Exit(1)
	}
}

func run(dir string, check bool) error {
	made, err := build(filepath.Join(dir, "src"))
	if err != nil {
		return err
	}
	dist := filepath.Join(dir, "dist")
	if check {
		return compare(dist, made)
	}
	return write(dist, made)
}

// build returns the files of dist by their name, the manifest among them.
func build(src string) (map[string][]byte, error) {
	made, manifest := map[string][]byte{}, map[string]file{}
	for _, e := range entries {
		f, err := bundle(src, e.source, e.global)
		if err != nil {
			return nil, err
		}
		made[f.Path] = f.body
		manifest[strings.TrimSuffix(e.source, filepath.Ext(e.source))+filepath.Ext(f.Path)] = *f
	}
	text, err := json.MarshalIndent(manifest, "", "  ") // its names are sorted
	if err != nil {
		return nil, err
	}
	made["manifest.json"] = append(text, '\n')
	return made, nil
}

func bundle(src, source, global string) (*file, error) {
	root, err := filepath.Abs(src)
	if err != nil {
		return nil, err
	}
	result := api.Build(api.BuildOptions{
		EntryPoints:       []string{source},
		AbsWorkingDir:     root,
		Outdir:            ".",
		Bundle:            true,
		Write:             false,
		Target:            api.ES2020,
		Format:            api.FormatIIFE,
		Platform:          api.PlatformBrowser,
		GlobalName:        global,
		MinifySyntax:      true,
		MinifyWhitespace:  true,
		MinifyIdentifiers: true,
		Charset:           api.CharsetASCII,
		LegalComments:     api.LegalCommentsNone,
		TsconfigRaw:       `{"compilerOptions":{"strict":true}}`, // none is looked for
		LogLevel:          api.LogLevelSilent,
	})
	var failed []error
	for _, m := range slices.Concat(result.Errors, result.Warnings) {
		if m.Location != nil {
			failed = append(failed, fmt.Errorf("%s:%d: %s", m.Location.File, m.Location.Line, m.Text))
			continue
		}
		failed = append(failed, fmt.Errorf("%s: %s", source, m.Text))
	}
	if len(failed) > 0 {
		return nil, errors.Join(failed...)
	}
	if len(result.OutputFiles) != 1 {
		return nil, fmt.Errorf("%s became %d files", source, len(result.OutputFiles))
	}
	return describe(source, result.OutputFiles[0].Contents), nil
}

// describe names a file by what is in it.
func describe(source string, body []byte) *file {
	ext, contentType := ".js", "text/javascript; charset=utf-8"
	if filepath.Ext(source) == ".css" {
		ext, contentType = ".css", "text/css; charset=utf-8"
	}
	name, integrity := sha256.Sum256(body), sha512.Sum384(body)
	return &file{
		Path:      strings.TrimSuffix(source, filepath.Ext(source)) + "." + hex.EncodeToString(name[:])[:10] + ext,
		Type:      contentType,
		Integrity: "sha384-" + base64.StdEncoding.EncodeToString(integrity[:]),
		body:      body,
	}
}

// write makes dist hold the given files and no others.
func write(dist string, made map[string][]byte) error {
	if err := os.RemoveAll(dist); err != nil {
		return err
	}
	if err := os.MkdirAll(dist, 0o755); err != nil {
		return err
	}
	for name, body := range made {
		if err := os.WriteFile(filepath.Join(dist, name), body, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// compare returns what differs, as one error.
func compare(dist string, made map[string][]byte) error {
	var differs []string
	have, err := os.ReadDir(dist)
	if err != nil {
		return err
	}
	for _, f := range have {
		if _, ok := made[f.Name()]; !ok {
			differs = append(differs, f.Name()+" is left over")
		}
	}
	for name, body := range made {
		switch on, err := os.ReadFile(filepath.Join(dist, name)); {
		case errors.Is(err, os.ErrNotExist):
			differs = append(differs, name+" is missing")
		case err != nil:
			return err
		case !bytes.Equal(on, body):
			differs = append(differs, name+" is another")
		}
	}
	if len(differs) == 0 {
		return nil
	}
	slices.Sort(differs)
	return fmt.Errorf("dist is not what src makes, type `make elements`:\n\t%s", strings.Join(differs, "\n\t"))
}
