// Package drill tries whether a store lets every single-use token through once: gateways' workers mint and redeem over
// wires that break, each call is recorded with when it began and ended, and what was answered is judged. It answers one
// question: is a token ever given to two?
//
// Each token's history has to be one that a single, sequential token could have (model.go), and what was minted under a
// tenure that lasted has to be there (judge.go).
//
// Run is the whole of it, against a Redis that somebody names: `cardstile prove`. internal/chaos has the same parts, and starts servers of its own
// to break.
//
// Which faults there are follows from a seed, and when from what the workers got done; which call meets which fault follows
// from the machine, so a seed makes a failure likely again, not certain.
package drill
