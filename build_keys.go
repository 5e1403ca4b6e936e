package main

import (
	"crypto/fips140"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"

	"github.com/cardstile/cardstile/vault/keys"
)

// This file loads our own keys.

// loadKeys opens all of them, and says what is missing.
func (b *builder) loadKeys() {
	b.openKeys("")
	for _, use := range []keys.Use{keys.UseStorage, keys.UseDigest, keys.UseAudit} {
		b.missing(use)
	}
}

// loadStorageKeys opens those that seal what a shared store keeps: all that a command needs which looks into it. What it does not
// need is not judged, so that a partner can be switched off whatever is wrong with another key.
func (b *builder) loadStorageKeys() {
	if b.config.Store.Redis == nil {
		return
	}
	b.openKeys(keys.UseStorage)
	b.missing(keys.UseStorage)
}

// opening is a key that the configuration names rightly.
type opening struct {
	at     string
	config keys.Config
	key    *keys.Key
	err    error
}

// openKeys opens the keys of one use, or of all where it is "".
func (b *builder) openKeys(only keys.Use) {
	var list []*opening
	for i, c := range b.config.Keys {
		if only != "" && c.Use != string(only) {
			continue
		}
		if config, ok := b.keyConfig(fmt.Sprintf("keys[%d]", i), c, list); ok {
			list = append(list, &opening{at: fmt.Sprintf("keys[%d]", i), config: config})
		}
	}
	openAll(list, atOnce(runtime.GOMAXPROCS(0), b.inForce != nil), func(c keys.Config) (*keys.Key, error) {
		return keys.Reload(c, b.inForce[c.ID])
	})
	var plain []string
	for _, o := range list {
		if o.err != nil {
			b.problem(o.at, "%v", o.err)
			continue
		}
		if o.key.Plain() && production(o.config.Environment) {
			b.problem(o.at+".kind", "a plain key file is not for production: seal it with `cardstile keys generate --passphrase-file`, and use kind age or sealed")
		}
		if o.key.Plain() {
			plain = append(plain, o.config.ID)
		}
		b.keys[o.config.ID] = o.key
	}
	if len(plain) > 0 {
		b.notice("keys: in plain files: %s", listed(plain))
	}
}

// keyConfig judges what the configuration says of a key, beside those before it.
func (b *builder) keyConfig(at string, c KeyConfig, before []*opening) (config keys.Config, ok bool) {
	environment := b.environment(at+".environment", c.Environment)
	use, err := keys.ParseUse(c.Use)
	if err != nil {
		b.problem(at+".use", "%v", err)
		return config, false
	}
	if c.Kind != "" && !slices.Contains(keys.Kinds(), c.Kind) {
		b.problem(at+".kind", "unknown kind (known: %s)", strings.Join(keys.Kinds(), ", "))
		return config, false
	}
	if c.File == "" {
		b.problem(at+".file", "required: the path of a key file")
		return config, false
	}
	if slices.ContainsFunc(before, func(o *opening) bool { return o.config.ID == c.ID }) {
		b.problem(at+".id", "another key has this id")
		return config, false
	}
	if c.Kind == keys.KindAge {
		if b.outside(at+".kind", outsideAge); fips140.Enforced() {
			return config, false // it does not open
		}
	}
	config = keys.Config{ID: c.ID, Use: use, Kind: c.Kind, File: b.resolve(c.File), Environment: environment}
	ok = b.private(at+".file", c.File)
	if c.PassphraseFile != "" {
		config.PassphraseFile = b.resolve(c.PassphraseFile)
		ok = b.private(at+".passphrase_file", c.PassphraseFile) && ok
	}
	return config, ok
}

// atOnce is how many keys are opened at a time: at a start one on each processor, and in a reload one is left to exchanges.
func atOnce(processors int, reload bool) int {
	if reload {
		processors--
	}
	return max(1, processors)
}

// openAll opens keys, n at a time. Of age files one after another has its turn: scrypt takes 256 MiB for each.
func openAll(list []*opening, n int, open func(keys.Config) (*keys.Key, error)) {
	slots, memory := make(chan struct{}, n), make(chan struct{}, 1)
	var all sync.WaitGroup
	for _, o := range list {
		all.Go(func() {
			if o.config.Kind == keys.KindAge {
				memory <- struct{}{}
				defer func() { <-memory }()
			}
			slots <- struct{}{}
			defer func() { <-slots }()
			o.key, o.err = open(o.config)
		})
	}
	all.Wait()
}

// missing says that a key of a use is required, or what is done without one.
func (b *builder) missing(use keys.Use) {
	if slices.ContainsFunc(b.config.Keys, func(c KeyConfig) bool { return c.Use == string(use) }) { // where it did not load, that was told
		return
	}
	switch {
	case b.config.Store.Redis != nil && use != keys.UseAudit:
		b.problem("keys", "a key of use %s is required where instances share a store", use)
	case production(b.config.Environment):
		b.problem("keys", "a key of use %s is required in production", use)
	case use == keys.UseAudit:
		b.notice("keys: no key of use audit: one is made beside the log, and whoever can write its directory can forge the log")
	default:
		b.notice("keys: no key of use %s: one is generated at each start", use)
	}
}

// keysFor returns the keys of a use, primary first, as the configuration orders them.
func (b *builder) keysFor(use keys.Use) []*keys.Key {
	var found []*keys.Key
	for _, c := range b.config.Keys {
		if k := b.keys[c.ID]; k != nil && k.Use() == use {
			found = append(found, k)
		}
	}
	return found
}

// keyChain returns the key of an id, followed by the previous one where there is one.
func (b *builder) keyChain(at string, use keys.Use, environment string, ids ...string) []*keys.Key {
	var found []*keys.Key
	names := []string{"", "previous_"}
	for i, id := range ids {
		if id == "" {
			continue
		}
		key := at + "." + names[i] + string(use) + "_key"
		switch k := b.keys[id]; {
		case k == nil:
			if !slices.ContainsFunc(b.config.Keys, func(c KeyConfig) bool { return c.ID == id }) { // else its problem was told
				b.problem(key, "no key has this id")
			}
		case k.Use() != use:
			b.problem(key, "the key is of use %s, not %s", k.Use(), use)
		case k.Environment() != environment:
			b.problem(key, "the key is of environment %s, the route of %s", k.Environment(), environment)
		default:
			found = append(found, k)
		}
	}
	return found
}
