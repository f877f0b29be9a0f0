package settings

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of docs/configuration.md")

// TestDocument compares the table in the documentation with the one in the code.
func TestDocument(t *testing.T) {
	t.Parallel()
	const begin, end = "<!-- settings: written by go test ./settings -update -->\n", "<!-- end of settings -->"
	path := filepath.Join("..", "docs", "configuration.md")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the table", path)
	}
	var b strings.Builder
	b.WriteString("| Setting | Type | Default | Meaning |\n|---|---|---|---|\n")
	for _, s := range Table() {
		name := "`" + s.Name + "`"
		if s.Own {
			name = "*" + name + "*"
		}
		b.WriteString("| " + name + " | " + string(s.Type) + " | " + s.Default + " | " + s.Meaning + " |\n")
	}
	want := before + begin + b.String() + end + after
	if *update {
		if err := os.WriteFile(path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
	} else if string(data) != want {
		t.Errorf("%s is not what the table says; go test ./settings -update writes it", path)
	}
}
