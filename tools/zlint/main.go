// Zlint lints certificates and revocation lists with every lint that zlint has, and prints what is not passed. It is a
// module of its own, so that nothing of zlint is in the binary.
package main

import (
	"encoding/pem"
	"fmt"
	"os"

	"github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"
)

// waived are lints of the CA/Browser Forum's rules for TLS servers, which zlint runs on every certificate, also on those
// that cannot be a server's, and why each is passed over.
var waived = map[string]string{
	"w_ct_sct_policy_count_unsatisfied":                             "browsers want proofs of publication of servers' certificates",
	"n_ca_digital_signature_not_set":                                "it is for a CA that signs OCSP answers itself, and this one signs none",
	"e_subj_orgunit_in_ca_cert":                                     "names of a company's own CA may have units, as those of the web's have not",
	"w_root_ca_basic_constraints_path_len_constraint_field_present": "roots of the web have intermediates, and this one must not",
}

func main() {
	failed := false
	for _, name := range os.Args[1:] {
		passed, err := check(name)
		if err != nil {
			fmt.Fprintln(os.Stderr, name+":", err)
		}
		failed = failed || err != nil || !passed
	}
	if failed {
		os.Exit(1)
	}
}

func check(name string) (bool, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return false, err
	}
	block, _ := pem.Decode(content)
	if block == nil {
		return false, fmt.Errorf("not PEM")
	}
	var set *zlint.ResultSet
	if block.Type == "X509 CRL" {
		list, err := x509.ParseRevocationList(block.Bytes)
		if err != nil {
			return false, err
		}
		set = zlint.LintRevocationList(list)
	} else {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return false, err
		}
		set = zlint.LintCertificate(c)
	}
	ran, passed := 0, true
	for id, r := range set.Results {
		if r.Status >= lint.Pass {
			ran++
		}
		if r.Status <= lint.Pass {
			continue
		}
		if reason := waived[id]; reason != "" {
			fmt.Printf("%s: %s: waived: %s\n", name, id, reason)
			continue
		}
		passed = false
		fmt.Printf("%s: %s: %s %s\n", name, id, r.Status, r.Details)
	}
	if ran == 0 {
		return false, fmt.Errorf("no lint applied")
	}
	fmt.Printf("%s: %d lints applied\n", name, ran)
	return passed, nil
}
