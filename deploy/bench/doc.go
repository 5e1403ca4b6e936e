// Command bench answers one question: what does an exchange cost, beside the proxies that one would use instead?
//
// It runs Cardstile, a bare httputil.ReverseProxy and nginx on this machine, with the same certificates and in front of the
// same sandbox issuers, and measures the processor time that each of them spends per exchange. The measured server has the
// first processor to itself and one Go processor (GOMAXPROCS=1); the load and the issuers run in other processes, on the
// second. All servers take their turn in each round, so that what disturbs the machine disturbs them alike.
//
// It is run from the repository's root, by `make bench`. README.md says what the rows mean.
package main
