// Package shelve knows the files that Python's shelve makes, so that a file of Celery's is not taken for a damaged one of Gelery's.
package shelve

import (
	"bytes"
	"regexp"
	"slices"
)

// magics are what the files begin with, or Berkeley DB's newer form has at its twelfth byte.
var magics = [][]byte{
	{0xce, 0x9a, 0x57, 0x13}, {0xcd, 0x9a, 0x57, 0x13}, {0xcf, 0x9a, 0x57, 0x13}, // GNU dbm
	{0x61, 0x15, 0x06, 0x00}, // Berkeley DB
}

// dumb is a line of dbm.dumb's index: a key, and where its value is.
var dumb = regexp.MustCompile(`^['"][^\n]*['"], \(\d+, \d+\)\r?\n`)

// Is tells whether the bytes are of one of the files that shelve makes: GNU dbm, Berkeley DB, SQLite, or the text of dbm.dumb.
func Is(b []byte) bool {
	if bytes.HasPrefix(b, []byte("SQLite format 3\x00")) || dumb.Match(b[:min(len(b), 4096)]) {
		return true
	}
	return slices.ContainsFunc(magics, func(magic []byte) bool {
		turned := slices.Clone(magic) // as a machine of the other byte order writes it
		slices.Reverse(turned)
		for _, m := range [][]byte{magic, turned} {
			if bytes.HasPrefix(b, m) || len(b) >= 16 && bytes.Equal(b[12:16], m) {
				return true
			}
		}
		return false
	})
}
