// Package fnmatch is Python's fnmatch, the patterns of task routes and of remote control's glob.
package fnmatch

import (
	"fmt"
	"regexp"
	"strings"
)

// Compile translates a pattern: * any text, ? one character, [ab] and [!ab] one of a set or none of it. The whole text must
// match, letter case included.
func Compile(glob string) (*regexp.Regexp, error) {
	var b strings.Builder
	b.WriteString(`(?s)\A`)
	for i := 0; i < len(glob); i++ {
		switch ch := glob[i]; ch {
		case '*':
			b.WriteString(`.*`)
		case '?':
			b.WriteByte('.')
		case '[':
			set, n := globSet(glob[i:])
			b.WriteString(set)
			i += n - 1
		default:
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", glob, err)
	}
	return re, nil
}

// globSet translates a leading "[…]" and tells its length; a "[" that is never closed stands for itself.
func globSet(s string) (string, int) {
	i := 1
	if i < len(s) && s[i] == '!' {
		i++
	}
	first := i
	// A "]" at the first place belongs to the set.
	end := strings.IndexByte(s[min(first+1, len(s)):], ']')
	if end < 0 {
		return `\[`, 1
	}
	end += first + 1
	set := strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `^`, `\^`, `&`, `\&`, `~`, `\~`).Replace(s[first:end])
	if first == 2 {
		return "[^" + set + "]", end + 1
	}
	return "[" + set + "]", end + 1
}
