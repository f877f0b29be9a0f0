package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDesignNamesFilesThatExist keeps the maps in the documents true: every path they name is there.
func TestDesignNamesFilesThatExist(t *testing.T) {
	t.Parallel()
	root := filepath.Join("..", "..")
	path := regexp.MustCompile(`\b(?:[a-z_]+/)+[a-z_]+\.(?:go|lua|md|sh|py)\b`)
	for _, document := range []string{"DESIGN.md", "README.md", "CONTRIBUTING.md", "docs/guarantees.md", "docs/benchmarks.md"} {
		text, err := os.ReadFile(filepath.Join(root, document))
		if err != nil {
			t.Errorf("%s: %v", document, err)
			continue
		}
		for _, p := range path.FindAllString(string(text), -1) {
			if _, err := os.Stat(filepath.Join(root, p)); err != nil {
				t.Errorf("%s names %s, which is not there", document, p)
			}
		}
	}
}
