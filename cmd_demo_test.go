package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestWelcomeOfAnyDirectory has a shell go where the demo's first command says.
func TestWelcomeOfAnyDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"plain", "two words", "it's", "$HOME", "`id`", "-", "-P", `back\slash`, "*", "~", "a\"b"} {
		if err := os.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}
		want, err := filepath.Abs(name)
		if err != nil {
			t.Fatal(err)
		}
		welcome := (&demo{dir: name}).welcome()
		var cd string
		for line := range strings.Lines(welcome) {
			if strings.HasPrefix(line, "  cd ") {
				cd = line
			}
		}
		out, err := exec.Command("sh", "-ec", cd+"pwd").CombinedOutput()
		if got := strings.TrimSuffix(string(out), "\n"); err != nil || got != want {
			t.Errorf("%q: a shell goes to %q, want %q (%v)", name, got, want, err)
		}
	}
}

func TestCardNumber(t *testing.T) {
	for text, want := range map[string]bool{
		"4111111111111111": true, "4111111111111112": false, "411111111111111": false, "378282246310005": true, "6304000000000000": true,
		"000000000000": true, "00000000000": false, "0000000000000000000": true, "00000000000000000000": false, "41111111 1111111": false, "411111111111111\u0661": false,
	} {
		if got := cardNumber(text); got != want {
			t.Errorf("%q: %t", text, got)
		}
	}
}
