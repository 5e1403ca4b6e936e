package deploy_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

const unitFile = "systemd/cardstile.service"

// maxExposure is the most that systemd-analyze security may say, on its scale from 0 (locked in) to 10.
const maxExposure = 2.0

// verify returns what systemd-analyze verify has to say of a unit whose binary exists: it exits with 0 on unknown keys, so any word counts.
func verify(t *testing.T, unit string) string {
	t.Helper()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cardstile.service")
	write(t, file, strings.ReplaceAll(unit, "/usr/local/bin/cardstile", binary))
	out, errs, ok := run(t, ".", program(t, "systemd-analyze", "systemd"), "verify", file)
	if !ok {
		errs += "exit status not 0"
	}
	return out + errs
}

func TestUnitIsValid(t *testing.T) {
	unit := read(t, unitFile)
	if said := verify(t, unit); said != "" {
		t.Error(said)
	}
	for _, c := range []struct{ from, to string }{
		{"LimitCORE=0", "LimitCores=0"}, {"Type=exec", "Type=exact"}, {"PrivateTmp=yes", "PrivateTmp=perhaps"},
		{"ExecStart=/usr/local/bin/cardstile", "ExecStart=/usr/local/bin/no-such-program"},
	} {
		changed := strings.Replace(unit, c.from, c.to, 1)
		if changed == unit || verify(t, changed) == "" {
			t.Errorf("%s → %s: not noticed", c.from, c.to)
		}
	}
}

// exposure returns the overall exposure level of a unit.
func exposure(t *testing.T, unit string) float64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cardstile.service")
	write(t, file, unit)
	out, errs, ok := run(t, ".", program(t, "systemd-analyze", "systemd"), "security", "--offline=true", "--no-pager", file)
	m := regexp.MustCompile(`Overall exposure level for cardstile\.service: ([0-9.]+) `).FindStringSubmatch(out)
	if !ok || m == nil {
		t.Fatalf("systemd-analyze security: %s%s", out, errs)
	}
	level, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return level
}

func TestUnitIsLockedIn(t *testing.T) {
	unit := read(t, unitFile)
	level := exposure(t, unit)
	t.Logf("overall exposure level %.1f, at most %.1f", level, maxExposure)
	if level > maxExposure {
		t.Errorf("overall exposure level %.1f, want at most %.1f", level, maxExposure)
	}
	bare := regexp.MustCompile(`(?m)^(Protect|Private|Restrict|SystemCall|Capability|NoNewPrivileges|User|Group|Memory)[A-Za-z]*=.*\n`).ReplaceAllString(unit, "")
	if level := exposure(t, bare); level <= maxExposure {
		t.Errorf("without its locks the level is still %.1f: it measures nothing", level)
	}
}

// TestUnitHas lists what the security score does not look at.
func TestUnitHas(t *testing.T) {
	unit := read(t, unitFile)
	for _, line := range []string{
		"Type=exec",
		"ExecStart=/usr/local/bin/cardstile serve --config /etc/cardstile/config.yaml",
		"ExecReload=/bin/kill -HUP $MAINPID",
		"LoadCredential=secrets:/etc/cardstile/secrets",
		"LimitCORE=0",
		"MemorySwapMax=0",
		"MemoryDenyWriteExecute=yes",
		"User=cardstile",
	} {
		if !strings.Contains(unit, "\n"+line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if environment := regexp.MustCompile(`(?m)^(Environment|PassEnvironment|SetCredential)`).FindString(unit); environment != "" {
		t.Errorf("%s: a secret in it could be read by everyone", environment)
	}
}

func TestSystemUser(t *testing.T) {
	out, errs, ok := run(t, ".", program(t, "systemd-sysusers", "systemd"), "--dry-run", "--root="+t.TempDir(), filepath.Join(workingDirectory(t), "systemd/cardstile.sysusers.conf"))
	if !ok || !strings.Contains(out+errs, "cardstile") {
		t.Errorf("%s%s", out, errs)
	}
	if said := out + errs; strings.Contains(said, "Unknown") || strings.Contains(said, "Invalid") || strings.Contains(said, "Failed") {
		t.Error(said)
	}
}

func workingDirectory(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
