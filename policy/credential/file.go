package credential

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/cardstile/cardstile/policy"
)

// Entry is one credential in a credentials file:
//
//	{
//	  "version": 1,
//	  "credentials": [
//	    {
//	      "id": "5f2c9a0b1d",
//	      "partner": "gp-demo",
//	      "kind": "api_key",
//	      "digest": "<64 hex digits>",
//	      "environment": "test",
//	      "created": "2026-11-23T12:00:00Z",
//	      "scope": ["payments"],
//	      "note": "staging backend",
//	      "revoked": "2026-12-01T08:30:00Z"
//	    }
//	  ]
//	}
//
// scope, note and revoked may be left out; a key without scope may be used for
// everything that its partner may do. The file has no secret in it, and yet
// whoever can write it can make credentials: mode 0600.
type Entry struct {
	ID          string      `json:"id"`
	Partner     string      `json:"partner"`
	Kind        policy.Kind `json:"kind"`
	Digest      string      `json:"digest"` // hex SHA-256 of the credential's text
	Environment string      `json:"environment"`
	Created     time.Time   `json:"created"`
	Scope       []string    `json:"scope,omitempty"`
	Note        string      `json:"note,omitempty"`
	Revoked     *time.Time  `json:"revoked,omitempty"`
}

const (
	fileVersion       = 1
	maxNoteBytes      = 200
	maxEntryNameBytes = 64
	maxScopeBytes     = 256 // with a space between the words
)

type fileForm struct {
	Version     int     `json:"version"`
	Credentials []Entry `json:"credentials"`
}

// problem says what is wrong with an entry, or "".
func (e *Entry) problem() string {
	switch digest, err := hex.DecodeString(e.Digest); {
	case !entryName(e.ID):
		return "the id is missing, or has other characters than letters, digits, dots, underscores and hyphens"
	case !entryName(e.Partner):
		return "the partner is missing, or has other characters than letters, digits, dots, underscores and hyphens"
	case e.Kind != policy.KindAPIKey:
		return fmt.Sprintf("the kind must be %q", policy.KindAPIKey)
	case err != nil || len(digest) != 32 || hex.EncodeToString(digest) != e.Digest:
		return "the digest must be 64 lower-case hex digits"
	case !validEnvironment(e.Environment):
		return `the environment must be "test" or "production"`
	case e.Created.IsZero():
		return "the time of creation is missing"
	case e.Revoked != nil && e.Revoked.IsZero():
		return "the time of revocation is zero"
	case !validScope(e.Scope):
		return fmt.Sprintf("the scope must be different words of visible ASCII without quotes, commas and backslashes, of at most %d bytes", maxScopeBytes)
	case len(e.Note) > maxNoteBytes || !printable(e.Note):
		return fmt.Sprintf("the note must be at most %d bytes of printable text", maxNoteBytes)
	}
	return ""
}

func entryName(name string) bool {
	if name == "" || len(name) > maxEntryNameBytes {
		return false
	}
	for _, c := range []byte(name) {
		alphanumeric := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !alphanumeric && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validScope checks the words of a scope: RFC 6749 section 3.3, without the
// comma, which separates them on our command line.
func validScope(words []string) bool {
	size := 0
	for i, word := range words {
		if word == "" || slices.Contains(words[:i], word) {
			return false
		}
		for _, c := range []byte(word) {
			if c <= ' ' || c > '~' || c == '"' || c == '\\' || c == ',' {
				return false
			}
		}
		size += len(word) + 1
	}
	return size <= maxScopeBytes+1
}

func printable(text string) bool {
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

// List returns the entries of a credentials file, revoked ones too, in the
// order of the file.
func List(path string) ([]Entry, error) {
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("credentials: %w", err)
	}
	return parseFile(path, source)
}

// parseFile reads the file strictly: no unknown, repeated or differently
// written key, nothing after the end. Every bad entry is reported.
func parseFile(name string, source []byte) ([]Entry, error) {
	if err := exactKeys(source); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	var form fileForm
	if err := json.Unmarshal(source, &form); err != nil {
		return nil, fmt.Errorf("%s: %w", name, at(source, err))
	}
	if form.Version != fileVersion {
		return nil, fmt.Errorf("%s: version %d is not known, only %d", name, form.Version, fileVersion)
	}
	var problems []error
	ids, digests := map[string]bool{}, map[string]bool{}
	for i := range form.Credentials {
		entry := &form.Credentials[i]
		problem := entry.problem()
		switch {
		case problem != "":
		case ids[entry.ID]:
			problem = "another entry has this id"
		case digests[entry.Digest]:
			problem = "another entry has this digest"
		}
		if problem != "" {
			problems = append(problems, fmt.Errorf("%s: credential %d (%.64q): %s", name, i+1, entry.ID, problem))
		}
		ids[entry.ID], digests[entry.Digest] = true, true
	}
	if err := errors.Join(problems...); err != nil {
		return nil, err
	}
	return form.Credentials, nil
}

// The keys that an object may have, by how deep it stands.
var fileKeys = [][]string{
	{"version", "credentials"},
	{"id", "partner", "kind", "digest", "environment", "created", "scope", "note", "revoked"},
}

// exactKeys refuses keys that encoding/json would take: unknown ones, ones of
// another case, and the second of two.
func exactKeys(source []byte) error {
	decoder := json.NewDecoder(bytes.NewReader(source))
	var objects []map[string]bool // of the objects that are open, outermost first; nil for an array
	expectKey := false
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) && len(objects) == 0 {
			return nil
		}
		if err != nil {
			return at(source, err)
		}
		switch delim, isDelim := token.(json.Delim); {
		case isDelim && delim == '{':
			objects = append(objects, map[string]bool{})
		case isDelim && delim == '[':
			objects = append(objects, nil)
		case isDelim:
			objects = objects[:len(objects)-1]
		case expectKey:
			if err := claimKey(objects, token.(string)); err != nil {
				return fmt.Errorf("line %d: %w", line(source, decoder.InputOffset()), err)
			}
			expectKey = false
			continue
		}
		expectKey = len(objects) > 0 && objects[len(objects)-1] != nil
	}
}

// claimKey notes a key of the innermost object.
func claimKey(objects []map[string]bool, key string) error {
	depth := -1
	for _, object := range objects {
		if object != nil {
			depth++
		}
	}
	if depth >= len(fileKeys) || !slices.Contains(fileKeys[depth], key) {
		return fmt.Errorf("unknown key %.64q", key)
	}
	innermost := objects[len(objects)-1]
	if innermost[key] {
		return fmt.Errorf("key %q stands twice", key)
	}
	innermost[key] = true
	return nil
}

// at says on which line the decoder stopped, where it says so itself.
func at(source []byte, err error) error {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("line %d: %w", line(source, syntax.Offset), err)
	}
	if typed, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("line %d: %w", line(source, typed.Offset), err)
	}
	return err
}

func line(source []byte, offset int64) int {
	return 1 + bytes.Count(source[:min(max(offset, 0), int64(len(source)))], []byte("\n"))
}

// change rewrites the file with what edit makes of its entries: all of it or
// nothing, and one change at a time on systems with flock.
func change(path string, create bool, edit func([]Entry) ([]Entry, error)) error {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // replace the file, not the link to it
	}
	unlock, err := lockDirectory(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer unlock()
	var entries []Entry
	source, err := os.ReadFile(path)
	switch {
	case err == nil:
		if entries, err = parseFile(path, source); err != nil {
			return err
		}
	case !create || !errors.Is(err, os.ErrNotExist):
		return err
	}
	if entries, err = edit(entries); err != nil {
		return err
	}
	text, err := json.MarshalIndent(fileForm{fileVersion, entries}, "", "  ")
	if err != nil {
		return err
	}
	text = append(text, '\n')
	if _, err := parseFile(path, text); err != nil {
		return fmt.Errorf("internal error: %w", err)
	}
	return replace(path, text)
}

// replace writes a file so that it has either its old content or its new one,
// whatever happens in between. It keeps mode and owner; a new file is 0600.
func replace(path string, content []byte) (err error) {
	temporary, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = temporary.Close()
			_ = os.Remove(temporary.Name())
		}
	}()
	if info, err := os.Stat(path); err == nil {
		if err := keepOwner(temporary, info); err != nil {
			return err
		}
		if err := temporary.Chmod(info.Mode().Perm()); err != nil {
			return err
		}
	}
	if _, err := temporary.Write(content); err != nil {
		return err
	}
	if err := temporary.Sync(); err != nil {
		return err
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	if err := os.Rename(temporary.Name(), path); err != nil {
		return err
	}
	return syncDirectory(filepath.Dir(path))
}

// syncDirectory makes the rename last.
func syncDirectory(path string) error {
	directory, err := os.Open(path)
	if err != nil {
		return err
	}
	defer directory.Close()
	return directory.Sync()
}
