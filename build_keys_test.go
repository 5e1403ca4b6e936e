package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"go.uber.org/zap"

	"github.com/cardstile/cardstile/vault/keys"
)

// TestOpenAll: so many keys are opened at once as may be, age files one after another, and each gets its own.
func TestOpenAll(t *testing.T) {
	for _, n := range []int{1, 2, 3, 20} {
		synctest.Test(t, func(t *testing.T) {
			var list []*opening
			for i := range 8 {
				kind := []string{keys.KindAge, keys.KindSealed}[i%2]
				list = append(list, &opening{config: keys.Config{ID: fmt.Sprint(i), Kind: kind}})
			}
			began, goOn, done := make(chan string, len(list)), make(chan struct{}), make(chan struct{})
			ended := make(chan string, len(list))
			go func() {
				defer close(done)
				openAll(list, n, func(c keys.Config) (*keys.Key, error) {
					began <- c.Kind
					<-goOn
					ended <- c.Kind
					return nil, errors.New(c.ID)
				})
			}()
			running, most := map[string]int{}, 0
			for range list {
				synctest.Wait()
				for len(ended) > 0 {
					running[<-ended]--
				}
				for len(began) > 0 {
					running[<-began]++
				}
				if running[keys.KindAge] > 1 || running[keys.KindAge]+running[keys.KindSealed] > n {
					t.Errorf("%d at once: %v are being opened", n, running)
				}
				most = max(most, running[keys.KindAge]+running[keys.KindSealed])
				goOn <- struct{}{}
			}
			<-done
			if want := min(n, 5); most != want { // four sealed ones, and one of age
				t.Errorf("%d at once: never more than %d were, want %d", n, most, want)
			}
			for i, o := range list {
				if o.err == nil || o.err.Error() != fmt.Sprint(i) {
					t.Errorf("key %d got what is another's: %v", i, o.err)
				}
			}
		})
	}
}

func TestAtOnce(t *testing.T) {
	for _, c := range []struct {
		processors int
		reload     bool
		want       int
	}{{1, false, 1}, {1, true, 1}, {2, false, 2}, {2, true, 1}, {8, false, 8}, {8, true, 7}} {
		if got := atOnce(c.processors, c.reload); got != c.want {
			t.Errorf("%d processors, reload %t: %d", c.processors, c.reload, got)
		}
	}
}

// sealedHouse is a house two of whose keys have a passphrase: session-demo and storage-demo.
func sealedHouse(t *testing.T) *house {
	t.Helper()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	h.put("passphrase", "a long passphrase\n")
	for _, use := range []string{"session", "storage"} {
		h.seal(use, h.read(use+"-key.pem"))
		h.edit("config.yaml", "use: "+use+", file: "+use+"-key.pem", "use: "+use+", kind: sealed, file: "+use+"-key.sealed, passphrase_file: passphrase")
	}
	return h
}

// put has a file replaced at once, as a reload may look at any time.
func (h *house) put(name, content string) {
	h.t.Helper()
	if err := errors.Join(os.WriteFile(h.path(name+".new"), []byte(content), 0o600), os.Rename(h.path(name+".new"), h.path(name))); err != nil {
		h.t.Fatal(err)
	}
}

// seal puts a key into the file of a use.
func (h *house) seal(use string, content []byte) {
	h.t.Helper()
	sealed, err := sealWith(keys.KindSealed, content, h.path("passphrase"))
	if err != nil {
		h.t.Fatal(err)
	}
	h.put(use+"-key.sealed", string(sealed))
}

// TestReloadGoesOnWithSealedKeys: a reload opens those alone that have changed, and goes on with the others, whatever came of the
// reloads before it; and one that does not open keeps the configuration from being used as at a start.
func TestReloadGoesOnWithSealedKeys(t *testing.T) {
	t.Parallel()
	h := sealedHouse(t)
	b, err := load(h.path("config.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProcess(b, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close() //nolint:errcheck // nobody is left to tell
	first, err := b.keys["storage-demo"].Sealer("test")
	if err != nil {
		t.Fatal(err)
	}
	kept, err := first.Seal(nil, nil, []byte("by the first"))
	if err != nil {
		t.Fatal(err)
	}
	another, err := keys.Generate(keys.UseSession, 0)
	if err != nil {
		t.Fatal(err)
	}
	sealed := []string{"session-demo", "storage-demo"}
	own, config, holders := h.read("session-key.sealed"), string(h.read("config.yaml")), string(h.read("holders.yaml"))
	for _, step := range []struct {
		name   string
		change func()
		wrong  []string // what it is told; in force is what was before
		opened []string // keys
	}{
		{"a pin", func() {
			h.put("config.yaml", strings.Replace(config, "certificate: {subject:", "certificate: {pins: ["+strings.Repeat("ab", 32)+"], subject:", 1))
		}, nil, nil},
		{"the same files again", func() { h.put("session-key.sealed", string(own)); h.put("passphrase", "a long passphrase\n") }, nil, nil},
		{"holders that are none", func() { h.put("holders.yaml", "broken") }, []string{"holders"}, nil},
		{"mended", func() { h.put("holders.yaml", holders) }, nil, nil},
		{"a wrong passphrase", func() { h.put("passphrase", "a long passphrasf\n") }, []string{"keys[0]", "keys[1]"}, nil},
		{"still", func() {}, []string{"keys[0]", "keys[1]"}, nil},
		{"the right one", func() { h.put("passphrase", "a long passphrase\n") }, nil, nil},
		{"half a key file", func() { h.put("session-key.sealed", string(own[:len(own)/2])) }, []string{"keys[0]"}, nil},
		{"another key, and holders that are none", func() { h.seal("session", another); h.put("holders.yaml", "broken") }, []string{"holders"}, nil},
		{"another key", func() { h.put("holders.yaml", holders) }, nil, sealed[:1]},
		{"nothing", func() {}, nil, nil},
		{"the first one", func() { h.put("session-key.sealed", string(own)) }, nil, sealed[:1]},
	} {
		before := maps.Clone(p.keys)
		step.change()
		b, err := p.reload(h.path("config.yaml"))
		if len(step.wrong) > 0 {
			found, _ := errors.AsType[problems](err)
			var at []string
			for _, f := range found {
				at = append(at, f.path)
			}
			if !slices.Equal(at, step.wrong) || !maps.Equal(p.keys, before) {
				t.Errorf("%s: told is %v; as before: %t", step.name, err, maps.Equal(p.keys, before))
			}
		} else if err != nil || !maps.Equal(p.keys, b.keys) {
			t.Errorf("%s: %v; its keys in force: %t", step.name, err, maps.Equal(p.keys, b.keys))
		}
		for _, id := range sealed {
			if opened := p.keys[id] != before[id]; opened != slices.Contains(step.opened, id) {
				t.Errorf("%s: %s was opened: %t", step.name, id, opened)
			}
		}
		now, err := p.keys["storage-demo"].Sealer("test")
		if err != nil {
			t.Fatal(err)
		}
		if text, err := now.Open(nil, nil, kept); err != nil || string(text) != "by the first" {
			t.Errorf("%s: the key in force does not open what it sealed: %v", step.name, err)
		}
		public, _ := keys.PublicPEM(p.keys["session-demo"])
		if isOwn := string(public) == string(h.read("session-public.pem")); isOwn != (step.name != "another key" && step.name != "nothing") {
			t.Errorf("%s: the key of the beginning is in force: %t", step.name, isOwn)
		}
	}
}

// TestCommandsOpenWhatTheyNeed: those that look into the store open the keys that seal it, where it is shared; a partner is switched
// off whatever is wrong with the others.
func TestCommandsOpenWhatTheyNeed(t *testing.T) {
	t.Parallel()
	h := newHouse(t, filepath.Join(t.TempDir(), "w"), newCanary())
	config, storage := string(h.read("config.yaml")), string(h.read("storage-key.pem"))
	redis := strings.Replace(config, "store: {memory: {logins_file: logins}}", `store: {redis: {addresses: ["127.0.0.1:1"]}}`, 1) // nobody is asked
	open := func() error {
		s, err := openStandings(h.path("config.yaml"), "gp-demo")
		if err == nil {
			s.close()
		}
		return err
	}
	if _, err := load(h.path("config.yaml")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"session", "digest", "cookie", "jwt", "audit"} {
		h.put(name+"-key.pem", "broken")
	}
	if _, err := load(h.path("config.yaml")); err == nil {
		t.Error("a whole configuration with broken keys is taken")
	}
	h.put("config.yaml", redis)
	if err := open(); err != nil {
		t.Errorf("with the key of use storage alone: %v", err)
	}
	h.put("storage-key.pem", "broken")
	if err := open(); err == nil || !strings.Contains(err.Error(), ": keys[1]: ") || strings.Contains(err.Error(), "keys[0]") {
		t.Errorf("with a broken one: %v", err)
	}
	h.put("config.yaml", config)
	if err := open(); !errors.Is(err, errMemory) {
		t.Errorf("with a store in memory: %v", err)
	}
	h.put("config.yaml", strings.Replace(redis, "{id: storage-demo, use: storage,", "{id: storage-demo, use: digest,", 1))
	h.put("storage-key.pem", storage)
	if err := open(); err == nil || !strings.Contains(err.Error(), "a key of use storage is required") {
		t.Errorf("without one: %v", err)
	}
}
