package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"
)

// revocationSteps are those of a CA's servers.
var revocationSteps = []step{
	{"authority NAME DIR [INDEX]: a server of a CA's files, and of openssl's answers about the certificates in an index; $NAME is its URL", 2, doAuthority},
	{"authority-stops NAME: for good", 1, doAuthorityStops},
}

func doAuthority(s *story, ts *testscript.TestScript, args []string) error {
	dir, index := ts.MkAbs(args[1]), ""
	if len(args) > 2 {
		index = ts.MkAbs(args[2])
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			http.ServeFile(w, r, at(filepath.Base(r.URL.Path)))
			return
		}
		answer := filepath.Join(s.t.TempDir(), "answer")
		cmd := exec.CommandContext(r.Context(), "openssl", "ocsp", "-index", index, "-CA", at("ca.pem"), "-rsigner", at("ca.pem"), "-rkey", at("ca-key.pem"),
			"-ndays", "1", "-reqin", "-", "-respout", answer)
		cmd.Stdin = r.Body
		if said, err := cmd.CombinedOutput(); err != nil {
			s.t.Errorf("openssl: %v\n%s", err, said)
		}
		http.ServeFile(w, r, answer)
	}))
	s.t.Cleanup(server.Close)
	s.cas[args[0]] = server
	ts.Setenv(args[0], server.URL)
	return nil
}

func doAuthorityStops(s *story, _ *testscript.TestScript, args []string) error {
	server := s.cas[args[0]]
	if server == nil {
		return fmt.Errorf("no authority %s", args[0])
	}
	server.Close()
	return nil
}
