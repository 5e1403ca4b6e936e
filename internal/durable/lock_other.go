//go:build !unix

package durable

import "errors"

// Lock fails: without one two processes could give out the same state.
func Lock(string, bool) (func(), error) { return nil, errors.New("no file locks on this system") }
