//go:build !unix

package ca

import "errors"

// lock fails: without one two processes could give out the same state.
func lock(string, bool) (func(), error) { return nil, errors.New("no file locks on this system") }
