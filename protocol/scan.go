package protocol

import (
	"math"
	"math/bits"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	// maxDepth is how deep an envelope may nest. Python's own reader gives up near a thousand levels; a message it
	// cannot read must not be called readable here.
	maxDepth = 512
	// maxIntDigits is Python's limit on the digits of an integer; its JSON reader raises beyond it.
	maxIntDigits = 4300
	// cloneAbove is the size of an envelope, in bytes, above which the strings taken from it are copied: a header
	// that is kept must not keep megabytes of base64 alive. Below it they share one copy of the text.
	cloneAbove = 16 << 10
)

// scanner walks JSON text as Python's strict reader does: it takes the tokens NaN, Infinity and -Infinity and refuses
// control characters in strings, integers of more than maxIntDigits digits and anything deeper than maxDepth. It is a
// pull parser without state of its own beside the position: the caller says what it expects next.
//
// Of all errors the first is kept. After one that leaves it unknown how the text goes on, a failure, every call fails;
// after a mere defect the walk goes on, so that the headers behind a bad body can still be read.
type scanner struct {
	text   string
	pos    int
	depth  int
	clone  bool
	broken bool // failed: nothing more can be read
	err    *EnvelopeError
}

func newScanner(raw []byte) scanner {
	s := scanner{text: string(raw), clone: len(raw) > cloneAbove}
	// Python decodes the bytes before it parses them, so bad UTF-8 is no JSON, wherever it stands.
	if !utf8.ValidString(s.text) {
		s.defect("not UTF-8 text", validPrefix(s.text))
	}
	return s
}

func validPrefix(text string) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// defect notes an error in what was read.
func (s *scanner) defect(reason string, offset int) {
	if s.err == nil {
		s.err = &EnvelopeError{Reason: reason, Offset: offset}
	}
}

// fail notes an error and ends the walk.
func (s *scanner) fail(reason string, offset int) bool {
	s.defect(reason, offset)
	s.broken = true
	return false
}

func (s *scanner) unexpected() bool {
	if s.broken {
		return false
	}
	if s.pos >= len(s.text) {
		return s.fail("not JSON: the text ends too early", s.pos)
	}
	r, _ := utf8.DecodeRuneInString(s.text[s.pos:])
	return s.fail("not JSON: unexpected "+strconv.QuoteRune(r), s.pos)
}

// peek skips white space and returns the byte there, 0 at the end or after a failure.
func (s *scanner) peek() byte {
	if s.broken {
		return 0
	}
	for ; s.pos < len(s.text); s.pos++ {
		c := s.text[s.pos]
		if c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) bool {
	if s.peek() != c {
		return s.unexpected()
	}
	s.pos++
	return true
}

// open enters an object or array.
func (s *scanner) open(c byte) bool {
	if !s.expect(c) {
		return false
	}
	if s.depth++; s.depth > maxDepth {
		return s.fail("nested deeper than "+strconv.Itoa(maxDepth)+" levels", s.pos-1)
	}
	return true
}

// member steps to the n-th member of the object that was opened and returns its key, the position before its value.
// At the end of the object it steps out and returns false.
func (s *scanner) member(n int) (key string, ok bool) {
	if !s.next(n, '}') {
		return "", false
	}
	if key, ok = s.string(); !ok || !s.expect(':') {
		return "", false
	}
	return key, true
}

// next steps to the n-th item of the array (or object) that was opened, or steps out of it and returns false.
func (s *scanner) next(n int, end byte) bool {
	if s.peek() == end {
		s.pos++
		s.depth--
		return false
	}
	if n == 0 {
		return !s.broken
	}
	if !s.expect(',') {
		return false
	}
	// A comma promises another item: `[1,]` is not JSON.
	if s.peek() == end {
		return s.unexpected()
	}
	return !s.broken
}

// end checks that nothing but white space is left, and reports whether the whole text was without error.
func (s *scanner) end() bool {
	s.peek()
	if !s.broken && s.pos < len(s.text) {
		s.defect("text after the end of the JSON document", s.pos)
	}
	return s.err == nil
}

// string reads a string that may be kept.
func (s *scanner) string() (string, bool) {
	text, shared, ok := s.sharedString()
	if shared && s.clone {
		text = strings.Clone(text)
	}
	return text, ok
}

// sharedString reads a string and tells whether it shares the scanner's text. A lone surrogate becomes its three
// WTF-8 bytes.
func (s *scanner) sharedString() (text string, shared, ok bool) {
	if !s.expect('"') {
		return "", false, false
	}
	start := s.pos
	end, escaped := s.stringEnd(start)
	if end < 0 {
		return "", false, false
	}
	s.pos = end + 1
	if escaped {
		return unescape(s.text[start:end]), false, true
	}
	return s.text[start:end], true, true
}

// stringEnd returns the index of the closing quote of the string whose text starts at i, or -1 after a failure.
func (s *scanner) stringEnd(i int) (end int, escaped bool) {
	text := s.text
	for {
		i = plainEnd(text, i)
		if i >= len(text) {
			break
		}
		switch text[i] {
		case '"':
			return i, escaped
		case '\\':
			escaped = true
			if i++; i < len(text) && !validEscape(text[i:]) {
				s.fail("not JSON: bad escape in a string", i-1)
				return -1, false
			}
			i++
		default:
			s.fail("not JSON: control character in a string", i)
			return -1, false
		}
	}
	s.fail("not JSON: the text ends too early", len(text))
	return -1, false
}

// plainEnd returns the index, from i on, of the first byte of text that does not stand for itself in a JSON string: a
// quote, a backslash or a control character. Eight bytes are looked at together, because strings are most of an
// envelope.
func plainEnd(text string, i int) int {
	const ones, highs = 0x0101010101010101, 0x8080808080808080
	for ; len(text)-i >= 8; i += 8 {
		t := text[i : i+8]
		w := uint64(t[0]) | uint64(t[1])<<8 | uint64(t[2])<<16 | uint64(t[3])<<24 |
			uint64(t[4])<<32 | uint64(t[5])<<40 | uint64(t[6])<<48 | uint64(t[7])<<56
		quote := w ^ ones*'"'
		slash := w ^ ones*'\\'
		// The lowest bit set is exact: a borrow can only come from a byte that is itself a hit.
		hits := ((w-ones*' ')&^w | (quote-ones)&^quote | (slash-ones)&^slash) & highs
		if hits != 0 {
			return i + bits.TrailingZeros64(hits)/8
		}
	}
	for i < len(text) && !notPlain[text[i]] {
		i++
	}
	return i
}

// notPlain marks the bytes that do not stand for themselves in a JSON string.
var notPlain = func() (t [256]bool) {
	for c := range 0x20 {
		t[c] = true
	}
	t['"'], t['\\'] = true, true
	return t
}()

// validEscape reports whether text, what follows a backslash, begins with an escape.
func validEscape(text string) bool {
	switch text[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return true
	case 'u':
		_, ok := hex4(text[1:])
		return ok
	}
	return false
}

func hex4(text string) (rune, bool) {
	if len(text) < 4 {
		return 0, false
	}
	var r rune
	for i := range 4 {
		c := text[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		case 'A' <= c && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// unescape resolves the escapes of a string that stringEnd has checked.
func unescape(text string) string {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c != '\\' {
			out = append(out, c)
			continue
		}
		i++
		switch c = text[i]; c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(text[i+1:])
			i += 4
			if utf16.IsSurrogate(r) && strings.HasPrefix(text[i+1:], `\u`) {
				low, _ := hex4(text[i+3:])
				if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
					r = pair
					i += 6
				}
			}
			out = appendWTF8(out, r)
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

// appendWTF8 is utf8.AppendRune that writes a surrogate too.
func appendWTF8(dst []byte, r rune) []byte {
	if utf16.IsSurrogate(r) {
		return append(dst, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F)
	}
	return utf8.AppendRune(dst, r)
}

// skip checks a value of any kind and steps over it. It returns where the value begins and ends.
func (s *scanner) skip() (start, end int, ok bool) {
	c := s.peek()
	start = s.pos
	switch c {
	case '{':
		ok = s.skipObject()
	case '[':
		ok = s.skipArray()
	case '"':
		if e, _ := s.stringEnd(s.pos + 1); e >= 0 {
			s.pos, ok = e+1, true
		}
	case 't':
		ok = s.word("true")
	case 'f':
		ok = s.word("false")
	case 'n':
		ok = s.word("null")
	default:
		ok = s.skipNumber()
	}
	return start, s.pos, ok
}

func (s *scanner) skipObject() bool {
	if !s.open('{') {
		return false
	}
	for n := 0; s.next(n, '}'); n++ {
		if s.peek() != '"' {
			return s.unexpected()
		}
		if _, _, ok := s.skip(); !ok || !s.expect(':') {
			return false
		}
		if _, _, ok := s.skip(); !ok {
			return false
		}
	}
	return !s.broken
}

func (s *scanner) skipArray() bool {
	if !s.open('[') {
		return false
	}
	for n := 0; s.next(n, ']'); n++ {
		if _, _, ok := s.skip(); !ok {
			return false
		}
	}
	return !s.broken
}

func (s *scanner) word(w string) bool {
	if s.broken || !strings.HasPrefix(s.text[s.pos:], w) {
		return s.unexpected()
	}
	s.pos += len(w)
	return true
}

// skipNumber steps over a number or one of Python's three tokens for what is none.
func (s *scanner) skipNumber() bool {
	if s.broken {
		return false
	}
	start := s.pos
	if start < len(s.text) && s.text[start] == '-' {
		s.pos++
	}
	switch c := s.at(); {
	case c == 'N' && s.pos == start:
		return s.word("NaN")
	case c == 'I':
		return s.word("Infinity")
	case c == '0':
		s.pos++
	case '1' <= c && c <= '9':
		s.digits()
	default:
		return s.unexpected()
	}
	integer := s.pos - start
	if s.at() == '.' {
		integer = 0
		if s.pos++; s.digits() == 0 {
			return s.unexpected()
		}
	}
	if c := s.at(); c == 'e' || c == 'E' {
		integer = 0
		s.pos++
		if c := s.at(); c == '+' || c == '-' {
			s.pos++
		}
		if s.digits() == 0 {
			return s.unexpected()
		}
	}
	if integer > maxIntDigits {
		s.defect("an integer of more than "+strconv.Itoa(maxIntDigits)+" digits", start)
	}
	return true
}

func (s *scanner) at() byte {
	if s.pos < len(s.text) {
		return s.text[s.pos]
	}
	return 0
}

func (s *scanner) digits() (n int) {
	for ; s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9'; s.pos++ {
		n++
	}
	return n
}

// wrong steps over a value of the wrong kind and notes that it is one.
func (s *scanner) wrong(reason string) {
	if start, _, ok := s.skip(); ok {
		s.defect(reason, start)
	}
}

// The readers below take a value of one kind. A value of another kind is stepped over and reported with ok false:
// what that means is the caller's to say. Null is its own answer.

func (s *scanner) null() bool {
	if s.peek() != 'n' {
		return false
	}
	return s.word("null")
}

// str reads a string.
func (s *scanner) str() (v string, ok bool) {
	if s.peek() == '"' {
		return s.string()
	}
	s.skip()
	return "", false
}

// label reads a string, or a number by its text.
func (s *scanner) label() (v string, ok bool) {
	if s.peek() == '"' {
		return s.string()
	}
	start, _, _ := s.skip()
	if s.broken || s.text[start] != '-' && (s.text[start] < '0' || s.text[start] > '9') {
		return "", false
	}
	return strings.Clone(s.text[start:s.pos]), true
}

func (s *scanner) bool() (v, ok bool) {
	start, end, _ := s.skip()
	switch s.text[start:end] {
	case "true":
		return true, true
	case "false":
		return false, true
	}
	return false, false
}

// float reads a finite number.
func (s *scanner) float() (float64, bool) {
	c := s.peek()
	start, end, ok := s.skip()
	if !ok || c != '-' && (c < '0' || c > '9') || s.text[end-1] > '9' {
		return 0, false
	}
	f, err := strconv.ParseFloat(s.text[start:end], 64)
	return f, err == nil
}

// int reads a whole number that fits 32 bits. "2.0" is one: a client that carries headers through floats writes it,
// and Python takes it.
func (s *scanner) int() (int, bool) {
	f, ok := s.float()
	if !ok || f != math.Trunc(f) || math.Abs(f) > math.MaxInt32 {
		return 0, false
	}
	return int(f), true
}
