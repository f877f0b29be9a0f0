package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
)

// TestYAML: what is written can be read, and is what was given; JSON's escapes too.
func TestYAML(t *testing.T) {
	t.Parallel()
	text, err := wireJSON(map[string]any{"emoji": "\U0001f600 é", "lines": "Traceback:\n  x\n", "odd": "\x1b\t\u2028 ", "": nil,
		"words": []any{"yes", "null", "1", "1e3", "---", "- a", "a: b", "# no", "2026-11-26", "", "~", "<<"}, "empty": []any{map[string]any{}, []any{}}})
	if err != nil {
		t.Fatal(err)
	}
	text = json.RawMessage(strings.ReplaceAll(string(text), "\U0001f600", `\ud83d\ude00`)) // as events have it
	type document struct {
		Z     json.RawMessage `json:"z"`
		A     int             `json:"a"`
		Large json.RawMessage `json:"large"`
	}
	v := document{text, -3, json.RawMessage(`[18446744073709551615, 1e+22, 5e-05, 0.1, 1.0, true, false]`)}
	var b strings.Builder
	if err := outputYAML.next(&b, v); err != nil || outputYAML.next(&b, "second") != nil {
		t.Fatal(err)
	}
	got := b.String()
	for _, want := range []string{"---\nz:\n", "\na: -3\nlarge:\n  - 18446744073709551615\n  - 1.0e+22\n  - 5.0e-05\n  - 0.1\n  - 1.0\n  - true\n  - false\n---\nsecond\n", "- \"yes\"\n"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in %s", want, got)
		}
	}
	var read, expected map[string]any
	if err := yaml.Unmarshal([]byte(got), &read); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(any(expected), read["z"]); d != "" {
		t.Errorf("%s in %s", d, got)
	}
	if err := outputYAML.document(&b, make(chan int)); err == nil {
		t.Error("what has no form is written")
	}
}
