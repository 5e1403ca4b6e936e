package main

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"maps"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocsFaces runs the commands of each page of docs/faces against a demo, in order and in one shell, as a reader who pastes
// them: what a block of sh prints is what the block of text or json after it says, or nothing where there is none. In what is
// said, … stands for one or more characters of a line.
func TestDocsFaces(t *testing.T) {
	t.Parallel()
	pages, err := filepath.Glob("docs/faces/*.md")
	if err != nil || len(pages) < 5 {
		t.Fatalf("pages: %v, %v", pages, err)
	}
	docs, err := filepath.Abs("docs")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range pages {
		content, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		blocks, err := commandsOf(string(content))
		if err != nil {
			t.Fatalf("%s: %v", page, err)
		}
		if len(blocks) == 0 {
			continue
		}
		t.Run(strings.TrimSuffix(filepath.Base(page), ".md"), func(t *testing.T) {
			t.Parallel()
			runPage(t, docs, blocks)
		})
	}
}

// docCommand is a block of sh with what it prints.
type docCommand struct {
	line         int
	text, prints string
}

// commandsOf reads the blocks of a page.
func commandsOf(page string) (blocks []docCommand, err error) {
	var fence string // the language of the block that is open
	var body strings.Builder
	open, after, begin := false, false, 0
	for i, line := range strings.Split(page, "\n") {
		language, isFence := strings.CutPrefix(line, "```")
		switch {
		case !isFence && open:
			body.WriteString(line + "\n")
		case !isFence:
			after = after && strings.TrimSpace(line) == ""
		case !open:
			open, fence, begin = true, language, i+1
			body.Reset()
		default:
			open = false
			switch {
			case fence == "sh":
				blocks = append(blocks, docCommand{line: begin, text: body.String()})
			case (fence == "text" || fence == "json") && after:
				blocks[len(blocks)-1].prints = body.String()
			case fence == "text" || fence == "json":
				return nil, fmt.Errorf("line %d: no block of sh prints this", begin)
			}
			after = fence == "sh"
		}
	}
	if open {
		return nil, fmt.Errorf("line %d: a block without an end", begin)
	}
	return blocks, nil
}

// asSaid reports whether a text is what a page says.
func asSaid(said, got string) bool {
	pattern := strings.ReplaceAll(regexp.QuoteMeta(strings.TrimSpace(said)), "…", `[^\n]+`)
	return regexp.MustCompile(`^` + pattern + `$`).MatchString(strings.TrimSpace(got))
}

func runPage(t *testing.T, docs string, blocks []docCommand) {
	dir := filepath.Join(t.TempDir(), ".cardstile")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{".lock": nil} // as a first start leaves it that was cut short
	maps.Copy(files, sharedKeys(t))          // RSA keys take long to make
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"docs": docs, "bin": filepath.Dir(binary(t))} {
		if err := os.Symlink(target, filepath.Join(dir, "..", name)); err != nil {
			t.Fatal(err)
		}
	}
	demo := start(t, filepath.Dir(dir), binary(t), "demo", "--ports-from", fmt.Sprint(threePorts(t)))
	eventually(t, "demo.json", func() bool {
		if !demo.running() {
			t.Fatalf("the demo ended:\n%s", demo.log())
		}
		_, err := os.Stat(filepath.Join(dir, "demo.json"))
		return err == nil
	})

	const end = "end of block"
	var script strings.Builder
	for _, b := range blocks {
		fmt.Fprintf(&script, "%s\nprintf '\\n%s\\n'\n", b.text, end)
	}
	cmd := exec.Command("bash", "-c", script.String())
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("bash: %v", err)
	}
	printed := strings.Split(out.String(), "\n"+end+"\n")
	if len(printed) != len(blocks)+1 {
		t.Fatalf("the shell got through %d of %d blocks:\n%s", len(printed)-1, len(blocks), out.String())
	}
	for i, b := range blocks {
		if !asSaid(b.prints, printed[i]) {
			t.Errorf("line %d:\n%sprinted\n%s\nand not\n%s", b.line, b.text, printed[i], b.prints)
		}
	}
}

// threePorts returns the first of three in a row that nobody listens on at the moment. They are none that a system gives to whoever
// asks for any (from 32768 on by default in Linux): another test's connection would have them before the program does.
func threePorts(t testing.TB) int {
	t.Helper()
	const lowest, highest = 10_000, 32_000
	for {
		n, err := rand.Int(rand.Reader, big.NewInt((highest-lowest)/3))
		if err != nil {
			t.Fatal(err)
		}
		port, free := lowest+3*int(n.Int64()), true
		for next := port; next < port+3; next++ {
			ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", next))
			if free = free && err == nil; err == nil {
				ln.Close()
			}
		}
		if free {
			return port
		}
	}
}

// TestDocsAreReadAsWritten shows what is taken for a command, and for what it prints.
func TestDocsAreReadAsWritten(t *testing.T) {
	blocks, err := commandsOf("```sh\na\n```\n\n```text\nb\n```\n\n```sh\nc\n```\nwords\n\n```\npicture\n```\n")
	if err != nil || len(blocks) != 2 || blocks[0] != (docCommand{1, "a\n", "b\n"}) || blocks[1] != (docCommand{9, "c\n", ""}) {
		t.Errorf("%+v, %v", blocks, err)
	}
	for _, page := range []string{"```text\na\n```\n", "```sh\na\n```\nwords\n\n```json\n{}\n```\n", "```sh\na\n"} {
		if _, err := commandsOf(page); err == nil {
			t.Errorf("%q is taken", page)
		}
	}
	for _, c := range []struct {
		said, got string
		want      bool
	}{
		{"a", "a\n", true}, {"a…c", "abc", true}, {"a…c", "ac", false}, {"a…c", "a\nc", false}, {"a.c", "abc", false}, {"", "a", false}, {"a", "", false},
	} {
		if asSaid(c.said, c.got) != c.want {
			t.Errorf("%q for %q: %t", c.got, c.said, !c.want)
		}
	}
}
