package monitor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/gelery/gelery/internal/fnmatch"
)

const (
	// longestPattern bounds a pattern, in bytes.
	longestPattern = 255
	// most repetitions and groups of a pattern: Python tries one possibility after the other.
	mostRepetitions, mostGroups = 5, 5
)

// CheckPattern tells whether a pattern of node names may be broadcast. A Python worker that cannot read a pattern loses its
// mailbox, on Redis until it is started anew, so only what Go and all Pythons read alike passes. A "glob" has *, ? and sets: [a-z0-9_]
// or [!a-z]. A "pcre" has letters, digits, . ^ $ | (groups), sets, \d \w \s and their capitals, escaped punctuation, and
// one * + or ? behind what is no group; a group may have ?. Both: at most 255 bytes and 5 repetitions, a regular expression 5 groups.
func CheckPattern(pattern, matcher string) error {
	var err error
	switch {
	case matcher != "glob" && matcher != "pcre":
		return fmt.Errorf("matcher %q is unknown; known are glob and pcre", matcher)
	case len(pattern) > longestPattern:
		return fmt.Errorf("the pattern has more than %d bytes", longestPattern)
	case !utf8.ValidString(pattern):
		err = fmt.Errorf("it is not UTF-8")
	case matcher == "glob":
		err = checkGlob([]rune(pattern))
	default:
		err = checkExpression([]rune(pattern))
	}
	if err != nil {
		return fmt.Errorf("%s pattern %q cannot be sent to all workers: %w", matcher, pattern, err)
	}
	return nil
}

func checkGlob(p []rune) error {
	repetitions := 0
	for i := 0; i < len(p); i++ {
		switch p[i] {
		case '*':
			repetitions++
		case '[':
			end, err := checkSet(p, i+1, '!')
			if err != nil {
				return err
			}
			i = end
		}
	}
	if repetitions > mostRepetitions {
		return fmt.Errorf("it has more than %d *", mostRepetitions)
	}
	_, err := fnmatch.Compile(string(p))
	return err
}

// checkExpression reads a regular expression. The kind is that of what stands before: it tells what may be repeated.
func checkExpression(p []rune) error {
	const nothing, single, group = 0, 1, 2
	repetitions, groups, before := 0, 0, nothing
	for i := 0; i < len(p); i++ {
		kind := nothing
		switch r := p[i]; {
		case r == '*' || r == '+' || r == '?':
			if before == nothing || before == group && r != '?' {
				return fmt.Errorf("%q must not stand at %d", r, i)
			}
			repetitions++
		case r == '(':
			groups++
		case r == ')':
			kind = group
		case r == '^' || r == '$' || r == '|':
		case r == '[':
			end, err := checkSet(p, i+1, '^')
			if err != nil {
				return err
			}
			i, kind = end, single
		case r == '\\':
			if i++; i == len(p) || !escapable(p[i]) {
				return fmt.Errorf(`only \d \w \s \D \W \S and ASCII punctuation may be escaped`)
			}
			kind = single
		case r == '{' || r == '}' || r == ']':
			return fmt.Errorf("%q must be escaped", r)
		default:
			kind = single
		}
		before = kind
	}
	if repetitions > mostRepetitions || groups > mostGroups {
		return fmt.Errorf("it has more than %d repetitions or %d groups", mostRepetitions, mostGroups)
	}
	_, err := regexp.Compile(string(p))
	return err
}

func escapable(r rune) bool {
	return strings.ContainsRune("dwsDWS", r) || r < utf8.RuneSelf && r > ' ' && r != 0x7f && !unicode.IsLetter(r) && !unicode.IsDigit(r)
}

// checkSet reads a set from behind its "[", and tells where its "]" is: letters, digits, some punctuation, and ranges of letters and digits.
func checkSet(p []rune, i int, not rune) (int, error) {
	if i < len(p) && p[i] == not {
		i++
	}
	n := slices.Index(p[i:], ']')
	if n < 1 {
		return 0, fmt.Errorf("a [set] is empty or not closed")
	}
	end := i + n
	for ; i < end; i++ {
		switch {
		case !unicode.IsLetter(p[i]) && !unicode.IsDigit(p[i]) && !strings.ContainsRune("_.@", p[i]):
			return 0, fmt.Errorf("%q must not stand in a [set]", p[i])
		case i+1 < end && p[i+1] == '-':
			if i+2 >= end || !alphanumeric(p[i]) || !alphanumeric(p[i+2]) || p[i] > p[i+2] {
				return 0, fmt.Errorf("a range of a [set] must be of ASCII letters or digits, the lower first")
			}
			i += 2
		}
	}
	return end, nil
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}
