package shelve

import "testing"

func TestIs(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"\xce\x9a\x57\x13 gnu": true, "\x13\x57\x9a\xcf gnu": true,
		"\x00\x06\x15\x61 old": true, "000000000000\x61\x15\x06\x00 hash": true,
		"SQLite format 3\x00":                            true,
		"'__version__', (0, 19)\n'entries', (512, 90)\n": true,
		"":                              false,
		"\x00\x00\x00\x00":              false,
		"{\"gelery_beat\":1}\n":         false,
		"'__version__' is not an index": false,
		"'a', (1, 2) and more\n":        false,
	} {
		if Is([]byte(text)) != want {
			t.Errorf("%q: %t", text, !want)
		}
	}
}
