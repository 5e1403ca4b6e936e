// Package sandbox answers one question: what does a card issuer say?
//
// It holds issuers to try Cardstile against: real HTTP servers that implement an issuer's published contract with real RSA and AES, reached
// over the network as the real one would be. Beside them stand the devices of cardholders and partners, which draw sessions and proofs and
// sign. The demo, the stories of the tests and the benchmarks use both.
//
// The package is the other party, so it shares nothing with ours: it imports the standard library alone, and its cryptography is written a
// second time, from the contract. Where it and the vault understand each other, two independent readings of the contract agree.
// For the same reason it is outside the fence around card data: an issuer knows its cards, and a cardholder's device reads them.
// Its cards are made up. It does not log, and it does not authenticate anyone by more than the API key: it is no model for a production issuer.
package sandbox
