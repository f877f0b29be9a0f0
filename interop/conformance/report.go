//go:build unix

package conformance

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// Verdict is what came of one test.
type Verdict struct {
	Test    string  `json:"test"`
	Outcome string  `json:"outcome"` // passed, failed, skipped, or "not run"
	Why     string  `json:"why"`     // the line of the error that says most
	Seconds float64 `json:"seconds"`
	Reruns  int     `json:"reruns"`
}

// Report is what came of a trial.
type Report struct {
	Verdicts []Verdict // of all tests that count, in their order
	Took     time.Duration
}

// readReport reads the lines that the plugin writes: first which tests it has chosen, then a verdict for each.
func readReport(path string) (Report, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Report{}, err
	}
	var chosen struct {
		Selected []string `json:"selected"`
	}
	verdicts := map[string]Verdict{}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for first := true; lines.Scan(); first = false {
		if first {
			err = json.Unmarshal(lines.Bytes(), &chosen)
		} else {
			var v Verdict
			err = json.Unmarshal(lines.Bytes(), &v)
			verdicts[v.Test] = v
		}
		if err != nil {
			return Report{}, fmt.Errorf("%q: %w", lines.Text(), err)
		}
	}
	var r Report
	for _, name := range chosen.Selected {
		v, ok := verdicts[name]
		if !ok {
			v = Verdict{Outcome: "not run"}
		}
		v.Test = strings.TrimPrefix(name, "t/integration/")
		r.Verdicts = append(r.Verdicts, v)
	}
	return r, lines.Err()
}

// Missed are the verdicts on the tests that were not passed.
func (r Report) Missed() []Verdict {
	return slices.DeleteFunc(slices.Clone(r.Verdicts), func(v Verdict) bool { return v.Outcome == "passed" })
}

// Again counts the tests that were passed at the second attempt only.
func (r Report) Again() int {
	n := 0
	for _, v := range r.Verdicts {
		if v.Outcome == "passed" && v.Reruns > 0 {
			n++
		}
	}
	return n
}

func (r Report) String() string {
	return fmt.Sprintf("passed %d of %d comparable (%d at the second attempt, %.0f s)",
		len(r.Verdicts)-len(r.Missed()), len(r.Verdicts), r.Again(), r.Took.Seconds())
}

// modules are the files of the suite with tests that count: tests.tsv says which kinds do. The others may import what is
// not installed.
func modules(t testing.TB, suite string) []string {
	t.Helper()
	rows, err := os.ReadFile(here(t, "tests.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for row := range strings.Lines(string(rows)) {
		fields := strings.Split(row, "\t")
		if strings.HasPrefix(row, "#") || len(fields) != 6 || !slices.Contains([]string{"full", "part", "tap", "reset"}, fields[1]) {
			continue
		}
		name, _, _ := strings.Cut(fields[0], "::")
		path := filepath.Join("t", "integration", name)
		if _, err := os.Stat(filepath.Join(suite, path)); err == nil && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	return files
}
