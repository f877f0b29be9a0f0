package worker

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"
)

// NodeName expands a worker's node name as `celery worker -n` does: %h is the host's name, %n its part before the first
// dot, %d the rest. Without "@" the pattern is the host part. A part that is missing is "celery", or the host's name.
func NodeName(pattern string) (string, error) {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	short, domain, _ := strings.Cut(host, ".")
	node, place, ok := strings.Cut(pattern, "@")
	if !ok {
		node, place = "", pattern
	}
	full := cmp.Or(node, "celery") + "@" + cmp.Or(place, "%h")
	const escaped = "\x00" // a percent sign that is meant
	name := strings.NewReplacer("%h", host, "%n", short, "%d", domain, "%%", escaped).Replace(full)
	// A name with bytes that are no text would reach others as another name.
	odd := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError }
	if strings.Contains(name, "%") || strings.HasSuffix(name, "@") || strings.ContainsFunc(pattern, odd) {
		return "", fmt.Errorf("worker config: Hostname: %q is no node name; expected for example worker1@%%h", pattern)
	}
	return strings.ReplaceAll(name, escaped, "%"), nil
}
