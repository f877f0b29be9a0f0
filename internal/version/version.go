// Package version compares the versions of servers.
package version

import (
	"strconv"
	"strings"
)

// Version is major, minor, patch.
type Version [3]int

// Parse reads "7.0", "7.0.15" or "4.1.0-rc.1", of which the first three numbers count.
func Parse(text string) (v Version, ok bool) {
	text, _, _ = strings.Cut(text, "-")
	text, _, _ = strings.Cut(text, "+")
	for i, part := range strings.SplitN(text, ".", 4) {
		if i == len(v) {
			break
		}
		n, err := strconv.Atoi(part)
		if err != nil || n < 0 {
			return Version{}, false
		}
		v[i] = n
	}
	return v, true
}

// Before tells whether v is older than another version.
func (v Version) Before(major, minor, patch int) bool {
	for i, n := range [3]int{major, minor, patch} {
		if v[i] != n {
			return v[i] < n
		}
	}
	return false
}

// Within tells whether v is of one series and older than its patch: a hole that was mended in each series.
func (v Version) Within(major, minor, patch int) bool {
	return v[0] == major && v[1] == minor && v[2] < patch
}
