package face

import "github.com/cardstile/cardstile/gateway/exchange"

// Answers are the tables of failures, by face; "problem" is that of no face.
var Answers = map[string]map[exchange.Kind]answer{"bridge": bridgeAnswers, "exa": exaAnswers, "gnosispay": gnosisPayAnswers, "paymentsgate": paymentsGateAnswers, "payroc": payrocAnswers, "problem": problems}

// Says reports whether a face has an answer of its own to a kind, or to what stands in for it.
func Says(name string, kind exchange.Kind) bool {
	_, own := Answers[name][kind]
	instead, stands := stands[kind]
	_, other := Answers[name][instead]
	return own || stands && other
}

// Names lists the faces.
func Names() []string {
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	return names
}
