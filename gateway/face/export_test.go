package face

import "github.com/cardstile/cardstile/gateway/exchange"

// Answers are the tables of failures, by face; "problem" is that of no face.
var Answers = map[string]map[exchange.Kind]answer{"exa": exaAnswers, "gnosispay": gnosisPayAnswers, "problem": problems}

// Names lists the faces.
func Names() []string {
	names := make([]string, 0, len(kinds))
	for name := range kinds {
		names = append(names, name)
	}
	return names
}
