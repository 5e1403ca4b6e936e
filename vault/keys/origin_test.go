package keys_test

import (
	"bytes"
	"crypto/pbkdf2"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cardstile/cardstile/vault/keys"
)

// sealings are the kinds whose files have a passphrase, as fast as a test wants them.
var sealings = map[string]func(content, passphrase []byte) ([]byte, error){keys.KindAge: keys.SealFast, keys.KindSealed: keys.SealFIPSFast}

// TestReloadGoesOnWithAKey: what is the same, byte for byte, is not opened again, and whatever else is.
func TestReloadGoesOnWithAKey(t *testing.T) {
	content, other := generate(t, keys.UseSession), generate(t, keys.UseDigest)
	for kind, seal := range sealings {
		sealed := func(content []byte, passphrase string) []byte {
			p, err := seal(content, []byte(passphrase))
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		dir := t.TempDir()
		put := func(name string, content []byte) string {
			t.Helper()
			path := filepath.Join(dir, name)
			if err := errors.Join(os.WriteFile(path+".new", content, 0o600), os.Rename(path+".new", path)); err != nil {
				t.Fatal(err)
			}
			return path
		}
		first := sealed(content, "correct horse")
		begin := func() (keys.Config, *keys.Key) {
			t.Helper()
			c := keys.Config{ID: "k", Use: keys.UseSession, Kind: kind, File: put("key", first), PassphraseFile: put("passphrase", []byte("correct horse\n")), Environment: "test"}
			k, err := keys.Load(c)
			if err != nil {
				t.Fatal(err)
			}
			return c, k
		}
		plain, err := keys.Load(keys.Config{ID: "k", Use: keys.UseSession, File: put("plain", content), Environment: "test"})
		if err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			change func(c *keys.Config, before **keys.Key)
			want   string // "same", "opened", or an error
		}{
			"nothing":                   {func(*keys.Config, **keys.Key) {}, "same"},
			"both files written anew":   {func(*keys.Config, **keys.Key) { put("key", first); put("passphrase", []byte("correct horse\n")) }, "same"},
			"the passphrase's line end": {func(*keys.Config, **keys.Key) { put("passphrase", []byte("correct horse")) }, "same"},
			"where the files are": {func(c *keys.Config, _ **keys.Key) {
				c.File, c.PassphraseFile = put("a", first), put("b", []byte("correct horse"))
			}, "same"},
			"the passphrase":       {func(*keys.Config, **keys.Key) { put("passphrase", []byte("correct hors\n")) }, "wrong passphrase"},
			"no passphrase":        {func(*keys.Config, **keys.Key) { put("passphrase", []byte("\n")) }, "empty passphrase"},
			"no passphrase's file": {func(c *keys.Config, _ **keys.Key) { c.PassphraseFile = filepath.Join(dir, "nowhere") }, "no such file"},
			"no file":              {func(c *keys.Config, _ **keys.Key) { c.File = filepath.Join(dir, "nowhere") }, "no such file"},
			"one byte":             {func(*keys.Config, **keys.Key) { put("key", flipped(first, len(first)/2)) }, "wrong passphrase"},
			"a byte behind it":     {func(*keys.Config, **keys.Key) { put("key", append(bytes.Clone(first), '\n')) }, "opened"},
			"sealed anew":          {func(*keys.Config, **keys.Key) { put("key", sealed(content, "correct horse")) }, "opened"},
			"sealed by another one": {func(*keys.Config, **keys.Key) {
				put("key", sealed(content, "another"))
				put("passphrase", []byte("another"))
			}, "opened"},
			"another key's file":          {func(*keys.Config, **keys.Key) { put("key", sealed(other, "correct horse")) }, "inside: "},
			"a plain file":                {func(*keys.Config, **keys.Key) { put("key", content) }, "not a"},
			"the kind":                    {func(c *keys.Config, _ **keys.Key) { c.Kind = otherKind(kind) }, "not a"},
			"to a plain kind":             {func(c *keys.Config, _ **keys.Key) { c.Kind = "pem" }, "takes no passphrase file"},
			"the use":                     {func(c *keys.Config, _ **keys.Key) { c.Use = keys.UseIssuer }, "opened"},
			"to a use that does not fit":  {func(c *keys.Config, _ **keys.Key) { c.Use = keys.UseDigest }, "inside: "},
			"the id":                      {func(c *keys.Config, _ **keys.Key) { c.ID = "l" }, "opened"},
			"the environment":             {func(c *keys.Config, _ **keys.Key) { c.Environment = "production" }, "opened"},
			"from no key":                 {func(_ *keys.Config, before **keys.Key) { *before = nil }, "opened"},
			"from a plain key":            {func(_ *keys.Config, before **keys.Key) { *before = plain }, "opened"},
			"to an id that cannot be one": {func(c *keys.Config, _ **keys.Key) { c.ID = "" }, "id must be"},
		} {
			config, before := begin()
			c.change(&config, &before)
			got, err := keys.Reload(config, before)
			switch {
			case c.want == "same" || c.want == "opened":
				if err != nil || (got == before) != (c.want == "same") {
					t.Errorf("%s: %s: %v, the same: %t; want %s", kind, name, err, got == before, c.want)
				} else if got.ID() != config.ID || got.Use() != config.Use || got.Environment() != config.Environment || got.Plain() || !got.Public().Equal(plain.Public()) {
					t.Errorf("%s: %s: it is not what the configuration says: %v", kind, name, got)
				}
			case err == nil || got != nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "horse"):
				t.Errorf("%s: %s: %v, want %q", kind, name, err, c.want)
			}
		}
	}
}

func otherKind(kind string) string {
	if kind == keys.KindAge {
		return keys.KindSealed
	}
	return keys.KindAge
}

// TestReloadOpensPlainKeys: they take no time, and have no mark.
func TestReloadOpensPlainKeys(t *testing.T) {
	c := keys.Config{ID: "k", Use: keys.UseDigest, File: write(t, generate(t, keys.UseDigest))}
	k, err := keys.Load(c)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := keys.Reload(c, k); err != nil || again == k {
		t.Errorf("%v, the same: %t", err, again == k)
	}
	if salt, mark := keys.OriginOf(k); salt != nil || mark != nil {
		t.Error("a plain key has a mark")
	}
}

// TestOriginTellsLittle: a mark is a slow digest under a salt of its own, computed here by hand, and is not printed.
func TestOriginTellsLittle(t *testing.T) {
	content := generate(t, keys.UseDigest)
	sealed := sealedFIPS(t, content)
	digest := sha256.Sum256(sealed)
	var salts, marks [][]byte
	for range 2 {
		k, err := loadFIPS(t, keys.UseDigest, sealed, "correct horse\n")
		if err != nil {
			t.Fatal(err)
		}
		salt, mark := keys.OriginOf(k)
		salts, marks = append(salts, salt), append(marks, mark)
		want, err := pbkdf2.Key(sha256.New, "correct horse", slices.Concat(salt, digest[:]), 50_000, 32)
		if err != nil || len(salt) != 16 || !bytes.Equal(mark, want) {
			t.Errorf("salt of %d bytes, mark as it should be: %t, %v", len(salt), bytes.Equal(mark, want), err)
		}
		printed := fmt.Sprintf("%v %+v %#v %s %x %q", k, k, k, k, k, struct{ k *keys.Key }{k})
		printed += fmt.Sprintf("%s %x", struct{ k *keys.Key }{k}, struct{ k *keys.Key }{k}) //nolint:govet // the wrong verb is the point
		for _, secret := range [][]byte{salt, mark} {
			if strings.Contains(printed, fmt.Sprintf("%x", secret)) || strings.Contains(printed, string(secret)) || strings.Contains(printed, strings.Trim(fmt.Sprint(secret), "[]")) {
				t.Errorf("printed: %s", printed)
			}
		}
	}
	if bytes.Equal(salts[0], salts[1]) || bytes.Equal(marks[0], marks[1]) {
		t.Error("two keys of one file and passphrase are marked alike")
	}
}
