package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// This file reads what a configuration names: files of every sort, and what is in them.

// watch notes a file that was read, or a pattern of files, as it is now.
func (b *builder) watch(name string) {
	if _, ok := b.seen[name]; !ok {
		b.seen[name] = stamp(name)
	}
}

// resolve makes a path of the configuration relative to its file, and notes that it was read.
func (b *builder) resolve(path string) string {
	path = b.relative(path)
	b.watch(path)
	return path
}

func (b *builder) relative(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(b.dir, path)
}

// display is a path as problems and rules name it: relative to the configuration where it can be.
func (b *builder) display(path string) string {
	if short, err := filepath.Rel(b.dir, path); err == nil {
		return short
	}
	return path
}

// read returns a file's content, or reports why there is none.
func (b *builder) read(key, path string) ([]byte, bool) {
	if path == "" {
		b.problem(key, "required: the path of a file")
		return nil, false
	}
	content, err := os.ReadFile(b.resolve(path))
	if err != nil {
		b.problem(key, "%v", tried(err))
		return nil, false
	}
	return content, true
}

// exists checks that a file is there and can be read, for those that another package reads.
func (b *builder) exists(key, path string) bool {
	f, err := os.Open(b.resolve(path))
	if err != nil {
		b.problem(key, "%v", tried(err))
		return false
	}
	f.Close()
	return true
}

// private checks that a file of a secret is there and can be read, and tells if everybody can. Unlike a path elsewhere, what
// stands at its key is never quoted: it may be the secret itself.
func (b *builder) private(key, path string) bool {
	if path == "" {
		b.problem(key, "required: the path of a file")
		return false
	}
	f, err := os.Open(b.resolve(path))
	if err != nil {
		b.problem(key, "%v", unquoted(err))
		return false
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Perm()&0o007 != 0 {
		b.notice("%s: other users can get at it (mode %04o)", key, info.Mode().Perm())
	}
	return true
}

// readPrivate is read for a file of a secret.
func (b *builder) readPrivate(key, path string) ([]byte, bool) {
	if !b.private(key, path) {
		return nil, false
	}
	content, err := os.ReadFile(b.resolve(path))
	if err != nil { // a directory, for one
		b.problem(key, "%v", unquoted(err))
		return nil, false
	}
	return content, true
}

// tried is a file error by the path that was tried: the configuration's is relative to its own directory.
func tried(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return fmt.Errorf("%s: %w", path.Path, path.Err)
	}
	return err
}

// unquoted drops the path from a file error.
func unquoted(err error) error {
	var path *os.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// ownDirectory resolves a directory that the process writes into, and nobody else. It makes it where it is not there.
func (b *builder) ownDirectory(key, path string) string {
	path = b.relative(path)
	switch info, err := os.Stat(path); {
	case os.IsNotExist(err):
	case err != nil:
		b.problem(key, "%v", tried(err))
	case !info.IsDir():
		b.problem(key, "it is no directory")
	case info.Mode().Perm()&0o077 != 0:
		b.problem(key, "other users can get at it (mode %04o): chmod 700", info.Mode().Perm())
	}
	return path
}

// secret returns the one line of a file that holds a secret.
func (b *builder) secret(key, path string) (string, bool) {
	content, ok := b.readPrivate(key, path)
	if !ok {
		return "", false
	}
	text := strings.TrimRight(string(content), "\r\n")
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		b.problem(key, "the file must hold one line of text")
		return "", false
	}
	return text, true
}

func (b *builder) certificate(at, certificate, keyFile string) (tls.Certificate, bool) {
	chain, ok := b.read(at+".certificate", certificate)
	key, also := b.readPrivate(at+".key", keyFile)
	if !ok || !also {
		return tls.Certificate{}, false
	}
	if !whole(chain) {
		b.problem(at+".certificate", "the file ends, or is cut, in the middle of a certificate")
		return tls.Certificate{}, false
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		b.problem(at+".certificate", "certificate and key do not load: %v", err)
		return tls.Certificate{}, false
	}
	b.validNow(at+".certificate", pair.Leaf)
	b.sound(at+".certificate", pair.Certificate)
	return pair, true
}

// validNow says where a certificate is not valid when it is read: whoever looks at it refuses it.
func (b *builder) validNow(key string, c *x509.Certificate) {
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		b.notice("%s: the certificate ended %s", key, c.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(c.NotBefore):
		b.notice("%s: the certificate is valid from %s on", key, c.NotBefore.UTC().Format(time.RFC3339))
	}
}

// authorities reads a PEM file of CA certificates. Anything else in it is a problem, not something to pass over.
func (b *builder) authorities(key, path string) []*x509.Certificate {
	content, ok := b.read(key, path)
	if !ok {
		return nil
	}
	if !whole(content) {
		b.problem(key, "the file ends, or is cut, in the middle of a certificate")
		return nil
	}
	var found []*x509.Certificate
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			b.problem(key, "the file holds something that is not a certificate")
			return nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
			b.problem(key, "certificate %d does not parse", len(found)+1)
			return nil
		case !c.IsCA:
			b.problem(key, "certificate %d is not a CA's", len(found)+1)
			return nil
		}
		b.validNow(key, c)
		found = append(found, c)
		b.soundKey(key, len(found), c.PublicKey, true) // its own signature is verified by nobody
	}
	if len(found) == 0 {
		b.problem(key, "the file holds no PEM certificate")
	}
	return found
}

// whole reports whether each PEM block that begins in a file ends there: pem.Decode passes over one that does not, and a file
// that somebody is writing would be one with fewer authorities.
func whole(content []byte) bool {
	begun := bytes.Count(content, []byte("-----BEGIN "))
	for block, rest := pem.Decode(content); block != nil; block, rest = pem.Decode(rest) {
		begun--
	}
	return begun == 0
}

func pool(cs []*x509.Certificate) *x509.CertPool {
	if cs == nil {
		return nil
	}
	p := x509.NewCertPool()
	for _, c := range cs {
		p.AddCert(c)
	}
	return p
}

// foreign reports the problems of another file, which name their own lines.
func (b *builder) foreign(key string, err error) {
	for line := range strings.Lines(err.Error()) {
		b.problem(key, "%s", strings.TrimSuffix(line, "\n"))
	}
}
