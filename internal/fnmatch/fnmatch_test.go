package fnmatch_test

import (
	"strings"
	"testing"

	"github.com/gelery/gelery/internal/fnmatch"
)

// TestCompile has the answers of Python's fnmatch.fnmatchcase.
func TestCompile(t *testing.T) {
	t.Parallel()
	tests := []struct {
		glob, yes, no string // words
	}{
		{"tasks.*", "tasks. tasks.a tasks.a.b", "tasks xtasks.a TASKS.a"},
		{"*", "a tasks.x", ""},
		{"*.add", ".add a.b.add", "add a.addx"},
		{"a?c*", "abc a.cd", "ac"},
		{"[ab]*", "a bx", "c [ab]"},
		{"[!ab]*", "c !", "a b"},
		{"[]x]*", "] xy", "[ y"},
		{"[a-c]*", "a b-", "d -"},
		{`[\]*`, `\ \a`, "["},
		{"[^a]*", "^ a", "b"}, // in Python a caret means itself
		{"[*", "[ [a", "a"},
		{"a+b*", "a+b a+bc", "aab"},
	}
	for _, tt := range tests {
		re, err := fnmatch.Compile(tt.glob)
		if err != nil {
			t.Errorf("%s: %v", tt.glob, err)
			continue
		}
		for word := range strings.FieldsSeq(tt.yes) {
			if !re.MatchString(word) {
				t.Errorf("%s does not match %s (%s)", tt.glob, word, re)
			}
		}
		for word := range strings.FieldsSeq(tt.no) {
			if re.MatchString(word) {
				t.Errorf("%s matches %s (%s)", tt.glob, word, re)
			}
		}
	}
}
