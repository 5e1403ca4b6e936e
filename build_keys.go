package main

import (
	"crypto/fips140"
	"fmt"
	"slices"
	"strings"

	"github.com/cardstile/cardstile/vault/keys"
)

// This file loads our own keys.

func (b *builder) loadKeys() {
	var plain []string
	for i, c := range b.config.Keys {
		at := fmt.Sprintf("keys[%d]", i)
		environment := b.environment(at+".environment", c.Environment)
		use, err := keys.ParseUse(c.Use)
		if err != nil {
			b.problem(at+".use", "%v", err)
			continue
		}
		if c.Kind != "" && !slices.Contains(keys.Kinds(), c.Kind) {
			b.problem(at+".kind", "unknown kind (known: %s)", strings.Join(keys.Kinds(), ", "))
			continue
		}
		if c.File == "" {
			b.problem(at+".file", "required: the path of a key file")
			continue
		}
		if b.keys[c.ID] != nil {
			b.problem(at+".id", "another key has this id")
			continue
		}
		if c.Kind == keys.KindAge {
			if b.outside(at+".kind", outsideAge); fips140.Enforced() {
				continue // it does not open
			}
		}
		config := keys.Config{ID: c.ID, Use: use, Kind: c.Kind, File: b.resolve(c.File), Environment: environment}
		there := b.private(at+".file", c.File)
		if c.PassphraseFile != "" {
			config.PassphraseFile = b.resolve(c.PassphraseFile)
			there = b.private(at+".passphrase_file", c.PassphraseFile) && there
		}
		if !there {
			continue
		}
		key, err := keys.Load(config)
		if err != nil {
			b.problem(at, "%v", err)
			continue
		}
		if key.Plain() && production(environment) {
			b.problem(at+".kind", "a plain key file is not for production: seal it with `cardstile keys generate --passphrase-file`, and use kind age or sealed")
		}
		if key.Plain() {
			plain = append(plain, c.ID)
		}
		b.keys[c.ID] = key
	}
	if len(plain) > 0 {
		b.notice("keys: in plain files: %s", listed(plain))
	}
	shared := b.config.Store.Redis != nil
	for _, use := range []keys.Use{keys.UseStorage, keys.UseDigest, keys.UseAudit} {
		if slices.ContainsFunc(b.config.Keys, func(c KeyConfig) bool { return c.Use == string(use) }) { // where it did not load, that was told
			continue
		}
		switch {
		case shared && use != keys.UseAudit:
			b.problem("keys", "a key of use %s is required where instances share a store", use)
		case production(b.config.Environment):
			b.problem("keys", "a key of use %s is required in production", use)
		case use == keys.UseAudit:
			b.notice("keys: no key of use audit: one is made beside the log, and whoever can write its directory can forge the log")
		default:
			b.notice("keys: no key of use %s: one is generated at each start", use)
		}
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
