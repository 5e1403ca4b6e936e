package deploy_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
)

// built is the binary, made once as the Dockerfile makes it.
var built struct {
	once sync.Once
	path string
	err  error
	said []byte
}

// binary builds the static binary with the Dockerfile's own command and returns its path.
func binary(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		command := regexp.MustCompile(`CGO_ENABLED=0 go build [^\n]*? -o /out/cardstile \.`).FindString(read(t, "Dockerfile"))
		if command == "" {
			t.Fatal("the Dockerfile has no build command")
		}
		dir, err := os.MkdirTemp("", "cardstile")
		if err != nil {
			t.Fatal(err)
		}
		built.path = filepath.Join(dir, "cardstile")
		cmd := exec.Command("sh", "-c", strings.Replace(command, "/out/cardstile", built.path, 1))
		cmd.Dir = ".."
		cmd.Env = append(os.Environ(), "VERSION=test-of-deploy")
		built.said, built.err = cmd.CombinedOutput()
	})
	if built.err != nil {
		t.Fatalf("build: %v: %s", built.err, built.said)
	}
	return built.path
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.path != "" {
		os.RemoveAll(filepath.Dir(built.path))
	}
	os.Exit(code)
}

// TestBinaryRunsInEmptyRoot runs the binary where there is nothing but the binary, as its image does: no libc, no /etc, no /proc.
func TestBinaryRunsInEmptyRoot(t *testing.T) {
	path := binary(t)
	root := t.TempDir()
	if err := os.Link(path, filepath.Join(root, "cardstile")); err != nil {
		content := read(t, path) // on another file system
		if err := os.WriteFile(filepath.Join(root, "cardstile"), []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	name, args := program(t, "chroot", "coreutils"), []string{root, "/cardstile", "version"}
	if os.Getuid() != 0 {
		name, args = program(t, "unshare", "util-linux"), append([]string{"--map-root-user", name}, args...)
	}
	out, errs, ok := run(t, ".", name, args...)
	if !ok || errs != "" || !strings.Contains(out, "test-of-deploy") {
		t.Errorf("version in an empty root: %q, %q", out, errs)
	}
}

// TestComposeConfigurationIsAccepted has the binary check what compose mounts, with the paths of the container put where prepare wrote.
func TestComposeConfigurationIsAccepted(t *testing.T) {
	path := binary(t)
	dir := prepared(t)
	write(t, filepath.Join(dir, "policy.cedar"), read(t, "compose-policy.cedar"))
	text := strings.NewReplacer("/run/secrets/", filepath.Join(dir, "secrets")+"/", "/var/log/cardstile/", dir+"/").Replace(read(t, "compose-config.yaml"))
	config := filepath.Join(dir, "config.yaml")
	write(t, config, text)
	if out, errs, ok := run(t, dir, path, "check", "--config", config); !ok {
		t.Errorf("%s%s", out, errs)
	}
	write(t, config, text+"\nunknown: 1\n")
	if _, errs, ok := run(t, dir, path, "check", "--config", config); ok || !strings.Contains(errs, "unknown") {
		t.Errorf("an unknown key is accepted: %s", errs)
	}
}
