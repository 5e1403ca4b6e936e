package deploy_test

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

type compose struct {
	Name     string                           `yaml:"name"`
	Services map[string]service               `yaml:"services"`
	Networks map[string]map[string]bool       `yaml:"networks"`
	Volumes  map[string]map[string]any        `yaml:"volumes"`
	Secrets  map[string]struct{ File string } `yaml:"secrets"`
}

type service struct {
	Build *struct {
		Context    string `yaml:"context"`
		Dockerfile string `yaml:"dockerfile"`
	} `yaml:"build"`
	Image           string                       `yaml:"image"`
	Command         []string                     `yaml:"command"`
	User            string                       `yaml:"user"`
	ReadOnly        bool                         `yaml:"read_only"`
	CapDrop         []string                     `yaml:"cap_drop"`
	SecurityOpt     []string                     `yaml:"security_opt"`
	Ulimits         map[string]int               `yaml:"ulimits"`
	MemLimit        string                       `yaml:"mem_limit"`
	MemSwapLimit    string                       `yaml:"memswap_limit"`
	PidsLimit       int                          `yaml:"pids_limit"`
	Restart         string                       `yaml:"restart"`
	StopGracePeriod string                       `yaml:"stop_grace_period"`
	DependsOn       map[string]map[string]string `yaml:"depends_on"`
	Networks        []string                     `yaml:"networks"`
	Ports           []string                     `yaml:"ports"`
	Volumes         []string                     `yaml:"volumes"`
	Tmpfs           []string                     `yaml:"tmpfs"`
	Secrets         []string                     `yaml:"secrets"`
	Healthcheck     map[string]any               `yaml:"healthcheck"`
	Logging         map[string]any               `yaml:"logging"`
}

// checkService returns what is missing of what every service must have: each rule is one that TestEveryServiceIsHardened breaks.
func checkService(s service) []string {
	var wrong []string
	rule := func(holds bool, what string) {
		if !holds {
			wrong = append(wrong, what)
		}
	}
	user := regexp.MustCompile(`^[1-9][0-9]*:[1-9][0-9]*$`)
	_, tag, tagged := strings.Cut(path.Base(s.Image), ":")
	rule(tagged && tag != "latest", "image is not pinned")
	rule(user.MatchString(s.User), "user is not numeric, or root")
	rule(s.ReadOnly, "root is writable")
	rule(slices.Equal(s.CapDrop, []string{"ALL"}), "capabilities are kept")
	rule(slices.Contains(s.SecurityOpt, "no-new-privileges:true"), "may gain privileges")
	core, limited := s.Ulimits["core"]
	rule(limited && core == 0, "core files are written")
	rule(s.MemLimit != "" && s.MemSwapLimit == s.MemLimit, "memory is unbounded, or swapped")
	rule(s.PidsLimit > 0, "processes are unbounded")
	rule(s.Restart == "unless-stopped", "is not restarted")
	rule(s.Logging != nil, "log is unbounded")
	rule(len(s.Networks) > 0, "is on the default network")
	for _, v := range s.Volumes {
		source, rest, _ := strings.Cut(v, ":")
		rule(!strings.HasPrefix(source, ".") || strings.HasSuffix(rest, ":ro"), "a folder of the host is writable")
		rule(!strings.HasPrefix(source, "/"), "an absolute path of the host is mounted")
	}
	for _, f := range s.Tmpfs {
		rule(strings.Contains(f, "noexec") && strings.Contains(f, "nosuid") && strings.Contains(f, "size="), "tmpfs is unbounded or executable")
	}
	return wrong
}

func readCompose(t *testing.T) compose {
	t.Helper()
	var c compose
	readYAML(t, "compose.yaml", &c)
	return c
}

func TestEveryServiceIsHardened(t *testing.T) {
	c := readCompose(t)
	if got := slices.Sorted(maps.Keys(c.Services)); !slices.Equal(got, []string{"gateway", "prometheus", "redis"}) {
		t.Fatalf("services %v", got)
	}
	for name, s := range c.Services {
		if wrong := checkService(s); len(wrong) > 0 {
			t.Errorf("%s: %s", name, strings.Join(wrong, "; "))
		}
		for want, spoil := range map[string]func(*service){
			"image is not pinned":                     func(s *service) { s.Image = "redis:latest" },
			"user is not numeric, or root":            func(s *service) { s.User = "0:0" },
			"root is writable":                        func(s *service) { s.ReadOnly = false },
			"capabilities are kept":                   func(s *service) { s.CapDrop = nil },
			"may gain privileges":                     func(s *service) { s.SecurityOpt = nil },
			"core files are written":                  func(s *service) { s.Ulimits = nil },
			"memory is unbounded, or swapped":         func(s *service) { s.MemSwapLimit = "1g" },
			"processes are unbounded":                 func(s *service) { s.PidsLimit = 0 },
			"is not restarted":                        func(s *service) { s.Restart = "" },
			"log is unbounded":                        func(s *service) { s.Logging = nil },
			"is on the default network":               func(s *service) { s.Networks = nil },
			"a folder of the host is writable":        func(s *service) { s.Volumes = []string{"./x:/x"} },
			"an absolute path of the host is mounted": func(s *service) { s.Volumes = []string{"/var/run/docker.sock:/x:ro"} },
			"tmpfs is unbounded or executable":        func(s *service) { s.Tmpfs = []string{"/tmp"} },
		} {
			spoilt := s
			spoil(&spoilt)
			if got := checkService(spoilt); !slices.Contains(got, want) {
				t.Errorf("%s: spoilt, %v, want %q", name, got, want)
			}
		}
	}
}

func TestOnlyWhatMustBeReachedIsPublished(t *testing.T) {
	c := readCompose(t)
	for name, want := range map[string][]string{
		"gateway": {"8443:8443", "8444:8444"}, "redis": nil, "prometheus": {"127.0.0.1:9090:9090"},
	} {
		if got := c.Services[name].Ports; !slices.Equal(got, want) {
			t.Errorf("%s publishes %v, want %v", name, got, want)
		}
	}
	if !c.Networks["store"]["internal"] || !slices.Equal(c.Services["redis"].Networks, []string{"store"}) {
		t.Error("Redis can be reached from outside its network, or reach out of it")
	}
	if slices.Contains(c.Services["prometheus"].Networks, "store") {
		t.Error("Prometheus can reach Redis")
	}
}

// prepared runs the script that makes what is mounted, and returns its folder.
func prepared(t *testing.T) string {
	t.Helper()
	program(t, "openssl", "openssl")
	dir := t.TempDir()
	if out, errs, ok := run(t, ".", "./prepare", dir); !ok {
		t.Fatalf("prepare: %s%s", out, errs)
	}
	return dir
}

// TestEverythingMountedExists: bind mounts and secrets are in the repository, or made by prepare.
func TestEverythingMountedExists(t *testing.T) {
	c := readCompose(t)
	dir := prepared(t)
	exists := func(what, source string) {
		if below, ok := strings.CutPrefix(source, "./run/"); ok {
			source = filepath.Join(dir, below)
		}
		if _, err := os.Stat(source); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	used := map[string]bool{}
	for name, s := range c.Services {
		for _, v := range s.Volumes {
			source, _, _ := strings.Cut(v, ":")
			if strings.HasPrefix(source, "./") {
				exists(name, source)
			} else if _, ok := c.Volumes[source]; !ok {
				t.Errorf("%s: no volume %s", name, source)
			}
		}
		for _, secret := range s.Secrets {
			used[secret] = true
			if _, ok := c.Secrets[secret]; !ok {
				t.Errorf("%s: no secret %s", name, secret)
			}
		}
		for _, n := range s.Networks {
			if _, ok := c.Networks[n]; !ok {
				t.Errorf("%s: no network %s", name, n)
			}
		}
	}
	for name, s := range c.Secrets {
		exists("secret "+name, s.File)
		if !used[name] {
			t.Errorf("secret %s is nobody's", name)
		}
	}
}

// TestConfigurationNamesOnlyItsOwnSecrets compares the gateway's configuration with what compose mounts for it.
func TestConfigurationNamesOnlyItsOwnSecrets(t *testing.T) {
	var named []string
	for _, m := range regexp.MustCompile(`/run/secrets/([a-z_]+)`).FindAllStringSubmatch(read(t, "compose-config.yaml"), -1) {
		named = append(named, m[1])
	}
	slices.Sort(named)
	mounted := slices.Sorted(slices.Values(readCompose(t).Services["gateway"].Secrets))
	if named = slices.Compact(named); !slices.Equal(named, mounted) {
		t.Errorf("named %v, mounted %v", named, mounted)
	}
}

func TestConfigurationListensWhereComposePublishes(t *testing.T) {
	var config struct {
		Listeners map[string]struct{ Address string } `yaml:"listeners"`
		Admin     struct{ Address string }            `yaml:"admin"`
	}
	// Not strict: the binary is, and TestComposeConfigurationIsAccepted asks it.
	if err := yaml.Unmarshal([]byte(read(t, "compose-config.yaml")), &config); err != nil || len(config.Listeners) == 0 {
		t.Fatal("no listeners", err)
	}
	var published []string
	for _, l := range config.Listeners {
		port := strings.TrimPrefix(l.Address, ":")
		published = append(published, fmt.Sprintf("%s:%s", port, port))
	}
	slices.Sort(published)
	if got := readCompose(t).Services["gateway"].Ports; !slices.Equal(got, published) {
		t.Errorf("published %v, while it listens on %v", got, published)
	}
	if target := "gateway" + config.Admin.Address; !strings.Contains(read(t, "prometheus/prometheus.yml"), target) {
		t.Errorf("Prometheus does not scrape %s", target)
	}
}
