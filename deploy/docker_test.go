package deploy_test

import (
	"encoding/json"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// instruction is one instruction of a Dockerfile, its continued lines joined.
type instruction struct{ name, args string }

func parseDockerfile(text string) []instruction {
	var out []instruction
	var joined string
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if head, more := strings.CutSuffix(line, `\`); more {
			joined += head
			continue
		}
		name, args, _ := strings.Cut(joined+line, " ")
		out = append(out, instruction{strings.ToUpper(name), strings.TrimSpace(args)})
		joined = ""
	}
	return out
}

// checkDockerfile returns what is wrong with the image: each rule is one that TestDockerfile breaks.
func checkDockerfile(text, goVersion string) []string {
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	all := parseDockerfile(text)
	last := map[string]string{} // of the last stage
	var copies []string
	var stages []string
	build := ""
	for _, i := range all {
		switch i.name {
		case "FROM":
			image, _, _ := strings.Cut(i.args, " ")
			stages = append(stages, image)
			_, tag, tagged := strings.Cut(path.Base(image), ":")
			if image != "scratch" && (!tagged || tag == "latest") {
				complain("image %s is not pinned", image)
			}
			clear(last)
			copies = nil
		case "ADD":
			complain("ADD fetches and unpacks: COPY")
		case "RUN":
			if strings.Contains(i.args, "go build") {
				build = i.args
			}
			if len(stages) > 0 && stages[len(stages)-1] == "scratch" {
				complain("RUN in an empty image")
			}
		case "COPY":
			copies = append(copies, i.args)
		}
		last[i.name] = i.args
	}
	if len(stages) < 2 || stages[len(stages)-1] != "scratch" {
		complain("the last stage is not empty: %v", stages)
	}
	if len(stages) == 0 || !strings.HasPrefix(stages[0], "golang:"+goVersion+".") {
		complain("built with %v, while go.mod asks for %s", stages, goVersion)
	}
	for _, flag := range []string{"CGO_ENABLED=0", " -trimpath ", `-ldflags="-s -w `} {
		if !strings.Contains(build, flag) {
			complain("the build lacks %s", strings.TrimSpace(flag))
		}
	}
	if user := regexp.MustCompile(`^([0-9]+):([0-9]+)$`).FindStringSubmatch(last["USER"]); user == nil || user[1] == "0" || user[2] == "0" {
		complain("USER %q is not a numeric user and group other than root", last["USER"])
	}
	var entry, command []string
	if err := json.Unmarshal([]byte(last["ENTRYPOINT"]), &entry); err != nil || len(entry) != 1 || path.Base(entry[0]) != "cardstile" {
		complain("ENTRYPOINT %s is not the binary", last["ENTRYPOINT"])
	}
	if err := json.Unmarshal([]byte(last["CMD"]), &command); err != nil || len(command) == 0 || command[0] != "serve" {
		complain("CMD %s does not serve", last["CMD"])
	}
	built := regexp.MustCompile(` -o (\S+) \.`).FindStringSubmatch(build)
	if built == nil || len(entry) != 1 || !slices.Contains(copies, "--from=build "+built[1]+" "+entry[0]) {
		complain("what is built is not what is started")
	}
	return wrong
}

// goVersion returns the major and minor version of go.mod's go line.
func goVersion(t *testing.T) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(read(t, "../go.mod"))
	if m == nil {
		t.Fatal("go.mod has no go line")
	}
	return m[1]
}

func TestDockerfile(t *testing.T) {
	text := read(t, "Dockerfile")
	version := goVersion(t)
	if wrong := checkDockerfile(text, version); len(wrong) > 0 {
		t.Fatal(strings.Join(wrong, "\n"))
	}
	for _, c := range []struct{ from, to, want string }{
		{"golang:1.26.8-bookworm", "golang:latest", "image golang:latest is not pinned"},
		{"golang:1.26.8-bookworm", "golang", "image golang is not pinned"},
		{"golang:1.26.8-bookworm", "golang:1.25.1", "go.mod asks for"},
		{"FROM scratch", "FROM debian:12", "the last stage is not empty"},
		{"CGO_ENABLED=0", "CGO_ENABLED=1", "the build lacks CGO_ENABLED=0"},
		{"-trimpath ", "", "the build lacks -trimpath"},
		{"-s -w ", "", "the build lacks -ldflags"},
		{"USER 65532:65532", "", "USER"},
		{"USER 65532:65532", "USER 0:0", "USER"},
		{"USER 65532:65532", "USER nobody", "USER"},
		{`ENTRYPOINT ["/cardstile"]`, "ENTRYPOINT /cardstile", "ENTRYPOINT"},
		{`ENTRYPOINT ["/cardstile"]`, `ENTRYPOINT ["/other"]`, "ENTRYPOINT"},
		{`CMD ["serve"`, `CMD ["demo"`, "CMD"},
		{"-o /out/cardstile", "-o /out/other", "what is built is not what is started"},
		{"COPY go.mod", "ADD go.mod", "ADD"},
		{"EXPOSE", "RUN true\nEXPOSE", "RUN in an empty image"},
	} {
		changed := strings.Replace(text, c.from, c.to, 1)
		if changed == text {
			t.Errorf("%s is not in the Dockerfile", c.from)
		}
		if wrong := strings.Join(checkDockerfile(changed, version), "\n"); !strings.Contains(wrong, c.want) {
			t.Errorf("%s → %s: %q, want %q", c.from, c.to, wrong, c.want)
		}
	}
}

// TestImageHoldsWhatTheMakefileBuilds: the same binary, built with the same flags.
func TestImageHoldsWhatTheMakefileBuilds(t *testing.T) {
	makefile, dockerfile := read(t, "../Makefile"), read(t, "Dockerfile")
	recipe := regexp.MustCompile(`(?m)^build:\n\t(.+)$`).FindStringSubmatch(makefile)
	if recipe == nil {
		t.Fatal("the Makefile has no target build")
	}
	for _, part := range []struct{ makefile, text, dockerfile string }{
		{recipe[1], "CGO_ENABLED=0 ", "CGO_ENABLED=0 "},
		{recipe[1], " -trimpath ", " -trimpath "},
		{recipe[1], " -o bin/cardstile .", " -o /out/cardstile ."},
		{makefile, "LDFLAGS := -s -w -X main.version=$(VERSION)\n", `-ldflags="-s -w -X main.version=${VERSION}"`},
	} {
		if !strings.Contains(part.makefile, part.text) || !strings.Contains(dockerfile, part.dockerfile) {
			t.Errorf("the Makefile should have %q, and the Dockerfile %q", part.text, part.dockerfile)
		}
	}
}

// TestBuildContextHasWhatIsEmbedded: the build context leaves everything out that is not named, so what the code embeds must be named.
func TestBuildContextHasWhatIsEmbedded(t *testing.T) {
	ignore := read(t, "Dockerfile.dockerignore")
	if !strings.HasPrefix(strings.TrimLeft(regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(ignore, ""), "\n"), "**\n") {
		t.Error("the build context does not begin empty: secrets could be in it")
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	// What the packages of this module that the binary is made of embed, one file a line.
	const format = `{{if and .Module .Module.Main}}{{$dir := .Dir}}{{range .EmbedFiles}}{{$dir}}/{{.}}{{"\n"}}{{end}}{{end}}`
	out, errs, ok := run(t, root, program(t, "go", "golang"), "list", "-deps", "-f", format, ".")
	if !ok || strings.TrimSpace(out) == "" {
		t.Fatalf("go list: %s", errs)
	}
	for _, file := range strings.Fields(out) {
		where, err := filepath.Rel(root, file)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(strings.Split(ignore, "\n"), func(line string) bool {
			kept, ok := strings.CutPrefix(line, "!")
			suffix, any := strings.CutPrefix(kept, "**/*")
			folder, below := strings.CutSuffix(kept, "/**")
			return ok && (kept == where || any && strings.HasSuffix(where, suffix) || below && strings.HasPrefix(where, folder+"/"))
		}) {
			t.Errorf("%s is embedded, and the build context leaves it out", where)
		}
	}
}
