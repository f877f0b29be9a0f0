package value

import (
	"math"
	"math/big"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Repr returns Python's repr of v, which may be canonical or any Go value: {'k': [1, None]}. Keys of a dict are
// sorted. The text stops near max bytes, with "..." for what is left out and brackets closed, like Celery's saferepr;
// max <= 0 sets no bound. A value that cannot be sent shows as its Go type, <chan int>.
func Repr(v any, max int) string {
	w := newReprWriter(max)
	w.value(v, 0)
	return string(w.buf)
}

// ReprTuple returns the repr of args as a tuple, the argsrepr header: (1, 'x', None), (1,) or ().
func ReprTuple(args []any, max int) string {
	w := newReprWriter(max)
	return w.tuple(args)
}

// tuple writes arguments, with their secrets hidden.
func (w *reprWriter) tuple(args []any) string {
	w.buf = append(w.buf, '(')
	for i, v := range args {
		if i > 0 {
			w.text(", ")
		}
		if w.full() {
			w.text("...")
			break
		}
		if w.secrets != nil && w.secrets.hidesParam(i) {
			w.text(hidden)
			continue
		}
		w.value(v, 1)
	}
	if len(args) == 1 {
		w.buf = append(w.buf, ',')
	}
	w.buf = append(w.buf, ')')
	return string(w.buf)
}

// maxSortedKeys bounds the work for a dict of which a bounded text shows only the beginning.
const maxSortedKeys = 4096

type reprWriter struct {
	buf     []byte
	max     int
	secrets *Secrets // nil: there are none
}

func newReprWriter(max int) reprWriter {
	if max <= 0 {
		max = math.MaxInt
	}
	return reprWriter{buf: make([]byte, 0, min(max, 112)+16), max: max}
}

func (w *reprWriter) full() bool { return len(w.buf) >= w.max }

func (w *reprWriter) text(s string) { w.buf = append(w.buf, s...) }

func (w *reprWriter) value(v any, depth int) {
	if depth > MaxDepth {
		w.text("...")
		return
	}
	switch v := v.(type) {
	case nil:
		w.text("None")
	case bool:
		if v {
			w.text("True")
		} else {
			w.text("False")
		}
	case int:
		w.buf = strconv.AppendInt(w.buf, int64(v), 10)
	case int64:
		w.buf = strconv.AppendInt(w.buf, v, 10)
	case float64:
		w.buf = AppendFloat(w.buf, v)
	case string:
		w.str(v)
	case []byte:
		w.bytes(v)
	case []any:
		w.buf = append(w.buf, '[')
		w.items(v, depth)
		w.buf = append(w.buf, ']')
	case map[string]any:
		w.dict(v, depth)
	default:
		w.rare(v, depth)
	}
}

func (w *reprWriter) rare(v any, depth int) {
	switch v := v.(type) {
	case *big.Int:
		if v == nil {
			w.text("None")
		} else if w.max < math.MaxInt && v.BitLen() > w.max*4 { // conversion to decimal is quadratic
			w.text("<int of " + strconv.Itoa(v.BitLen()) + " bits>")
		} else {
			w.buf = v.Append(w.buf, 10)
		}
	case time.Time:
		w.datetime(v, true)
	case LocalTime:
		w.datetime(v.Time, false)
	case Date:
		w.call("datetime.date", v.Year, int(v.Month), v.Day)
	case TimeOfDay:
		hour, minute, second, micro := v.clock()
		w.call("datetime.time", withoutZeros([]int{hour, minute, second, micro}, 2)...)
	case Decimal:
		w.text("Decimal('" + string(v) + "')")
	case uuid.UUID:
		w.text("UUID('" + v.String() + "')")
	default:
		w.goValue(v, depth)
	}
}

// goValue converts first. Of a long slice only as many elements as the text has room for.
func (w *reprWriter) goValue(v any, depth int) {
	if rv := reflect.ValueOf(v); rv.Kind() == reflect.Slice && rv.Len() > w.max && rv.Type().Elem().Kind() != reflect.Uint8 {
		v = rv.Slice(0, w.max).Interface()
	}
	canonical, err := of(v, depth)
	if err != nil || !isCanonical(canonical) {
		w.text("<" + reflect.TypeOf(v).String() + ">")
		return
	}
	w.value(canonical, depth)
}

// isCanonical guards goValue against an endless loop.
func isCanonical(v any) bool { return PythonType(v) != "" }

func (w *reprWriter) items(list []any, depth int) {
	for i, v := range list {
		if i > 0 {
			w.text(", ")
		}
		if w.full() {
			w.text("...")
			return
		}
		w.value(v, depth+1)
	}
}

func (w *reprWriter) dict(dict map[string]any, depth int) {
	w.buf = append(w.buf, '{')
	defer func() { w.buf = append(w.buf, '}') }()
	first := true
	entry := func(key string) (goOn bool) {
		if !first {
			w.text(", ")
		}
		first = false
		if w.full() {
			w.text("...")
			return false
		}
		w.str(key)
		w.text(": ")
		if w.secrets != nil && w.secrets.Hides(key) {
			w.text(hidden)
			return true
		}
		w.value(dict[key], depth+1)
		return true
	}
	if len(dict) > maxSortedKeys && w.max < math.MaxInt {
		for key := range dict {
			if !entry(key) {
				return
			}
		}
		return
	}
	var few [16]string
	keys := few[:0]
	for key := range dict {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		if !entry(key) {
			return
		}
	}
}

// str writes the repr of a str: single quotes unless the text has those and no double ones.
func (w *reprWriter) str(s string) {
	s, cut := w.clip(s)
	quote := quoteFor(s)
	w.buf = append(w.buf, quote)
	for i := 0; i < len(s); {
		if w.full() { // escapes took the room
			cut = true
			break
		}
		c := s[i]
		if c >= 0x20 && c < 0x7f {
			if c == quote || c == '\\' {
				w.buf = append(w.buf, '\\')
			}
			w.buf = append(w.buf, c)
			i++
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && size == 1 {
			if surrogate, ok := Surrogate(s[i:]); ok {
				r, size = surrogate, 3
			}
		}
		w.escape(r, s[i:i+size])
		i += size
	}
	if cut {
		w.text("...")
	}
	w.buf = append(w.buf, quote)
}

func quoteFor(s string) byte {
	if strings.IndexByte(s, '\'') >= 0 && strings.IndexByte(s, '"') < 0 {
		return '"'
	}
	return '\''
}

// clip cuts s to the room left, but not inside a character.
func (w *reprWriter) clip(s string) (kept string, cut bool) {
	room := max(w.max-len(w.buf), 0)
	if len(s) <= room {
		return s, false
	}
	for room > 0 && !utf8.RuneStart(s[room]) {
		room--
	}
	return s[:room], true
}

func (w *reprWriter) escape(r rune, raw string) {
	switch {
	case r == '\n':
		w.text(`\n`)
	case r == '\r':
		w.text(`\r`)
	case r == '\t':
		w.text(`\t`)
	case r == utf8.RuneError && len(raw) == 1: // a stray byte, as Python's surrogateescape shows it
		w.text(`\udc`)
		w.hex(int(raw[0]), 2)
	case unicode.IsPrint(r):
		w.text(raw)
	case r <= 0xff:
		w.text(`\x`)
		w.hex(int(r), 2)
	case r <= 0xffff:
		w.text(`\u`)
		w.hex(int(r), 4)
	default:
		w.text(`\U`)
		w.hex(int(r), 8)
	}
}

func (w *reprWriter) hex(n, width int) {
	const digits = "0123456789abcdef"
	for shift := (width - 1) * 4; shift >= 0; shift -= 4 {
		w.buf = append(w.buf, digits[n>>shift&15])
	}
}

func (w *reprWriter) bytes(b []byte) {
	room := max(w.max-len(w.buf), 0)
	cut := len(b) > room
	if cut {
		b = b[:room]
	}
	quote := quoteFor(string(b))
	w.buf = append(w.buf, 'b', quote)
	for _, c := range b {
		if w.full() {
			cut = true
			break
		}
		switch {
		case c == quote || c == '\\':
			w.buf = append(w.buf, '\\', c)
		case c >= 0x20 && c < 0x7f:
			w.buf = append(w.buf, c)
		case c == '\n' || c == '\r' || c == '\t':
			w.escape(rune(c), "")
		default:
			w.text(`\x`)
			w.hex(int(c), 2)
		}
	}
	if cut {
		w.text("...")
	}
	w.buf = append(w.buf, quote)
}

func (w *reprWriter) call(name string, args ...int) {
	w.text(name)
	w.buf = append(w.buf, '(')
	for i, n := range args {
		if i > 0 {
			w.text(", ")
		}
		w.buf = strconv.AppendInt(w.buf, int64(n), 10)
	}
	w.buf = append(w.buf, ')')
}

// withoutZeros drops trailing zeros, of seconds and microseconds, beyond the first keep numbers.
func withoutZeros(numbers []int, keep int) []int {
	for len(numbers) > keep && numbers[len(numbers)-1] == 0 {
		numbers = numbers[:len(numbers)-1]
	}
	return numbers
}

func (w *reprWriter) datetime(t time.Time, aware bool) {
	year, month, day := t.Date()
	hour, minute, second := t.Clock()
	w.call("datetime.datetime",
		withoutZeros([]int{year, int(month), day, hour, minute, second, t.Nanosecond() / 1000}, 5)...)
	if !aware {
		return
	}
	w.buf = w.buf[:len(w.buf)-1] // the closing bracket
	w.text(", tzinfo=datetime.timezone")
	_, offset := t.Zone()
	switch {
	case offset == 0:
		w.text(".utc)")
		return
	case offset < 0: // a timedelta counts whole days down and seconds up
		w.text("(datetime.timedelta(days=-1, seconds=")
		offset += 86400
	default:
		w.text("(datetime.timedelta(seconds=")
	}
	w.buf = strconv.AppendInt(w.buf, int64(offset), 10)
	w.text(")))")
}

// AppendFloat appends Python's repr of f: the shortest text that reads back as f, always with ".0" or an exponent;
// nan, inf and -inf.
func AppendFloat(dst []byte, f float64) []byte {
	switch abs := math.Abs(f); {
	case math.IsNaN(f):
		return append(dst, "nan"...)
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	case abs != 0 && abs < 1e-4 || abs >= 1e16:
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, 64)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}

// Surrogate reads a lone surrogate, in its three WTF-8 bytes, off the front of s.
func Surrogate(s string) (r rune, ok bool) {
	if len(s) < 3 || s[0] != 0xed || s[1] < 0xa0 || s[1] > 0xbf || s[2]&0xc0 != 0x80 {
		return 0, false
	}
	return 0xd000 | rune(s[1]&0x3f)<<6 | rune(s[2]&0x3f), true
}

// AppendSurrogate appends the three WTF-8 bytes of r, which lies in D800 to DFFF.
func AppendSurrogate(dst []byte, r rune) []byte {
	return append(dst, 0xed, 0x80|byte(r>>6)&0x3f, 0x80|byte(r)&0x3f)
}
