package protocol

import (
	"math"
	"strconv"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// appendString appends text as a JSON string. UTF-8 stays as it is, the WTF-8 bytes of a lone surrogate become its
// escape, any other bad byte U+FFFD.
func appendString(dst []byte, text string) []byte {
	dst = append(dst, '"')
	from := 0
	for i := 0; i < len(text); {
		c := text[i]
		if c < utf8.RuneSelf {
			if notPlain[c] {
				dst = append(dst, text[from:i]...)
				dst = appendEscape(dst, c)
				from = i + 1
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			dst = append(dst, text[from:i]...)
			r, n = wtf8Surrogate(text[i:])
			dst = append(dst, '\\', 'u', hexDigits[r>>12], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
			from = i + n
		}
		i += n
	}
	dst = append(dst, text[from:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}

// wtf8Surrogate returns the surrogate whose three bytes text begins with, or U+FFFD and one byte.
func wtf8Surrogate(text string) (rune, int) {
	if len(text) >= 3 && text[0] == 0xED && text[1]&0xE0 == 0xA0 && text[2]&0xC0 == 0x80 {
		return 0xD000 | rune(text[1]&0x3F)<<6 | rune(text[2]&0x3F), 3
	}
	return utf8.RuneError, 1
}

// appendSeconds appends a time limit: null for none, and without a fraction where there is none, as Python writes the
// integers its users give.
func appendSeconds(dst []byte, seconds float64) []byte {
	switch {
	case seconds <= 0 || math.IsNaN(seconds) || math.IsInf(seconds, 0):
		return append(dst, "null"...)
	case seconds == math.Trunc(seconds) && seconds < 1<<53:
		return strconv.AppendInt(dst, int64(seconds), 10)
	}
	return strconv.AppendFloat(dst, seconds, 'g', -1, 64)
}
