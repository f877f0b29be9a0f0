package rabbitmq

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol/serialization"
	"github.com/gelery/gelery/protocol/value"
)

// tableJSON appends a table as one JSON object, in its order, as Python would write it. Of a broken table it has what
// stands before the defect. Bytes that are no text become the lone surrogates U+DC80 to U+DCFF, as Python's
// surrogateescape has it.
func tableJSON(dst []byte, raw []byte) []byte {
	dst, _ = appendTableJSON(dst, raw, 1)
	return dst
}

// appendTableJSON is tableJSON that says what is wrong with the table.
func appendTableJSON(dst, raw []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return append(dst, "null"...), errTableDepth
	}
	t := tableReader{raw: raw}
	dst = append(dst, '{')
	for n := 0; ; n++ {
		name, f, ok := t.next()
		if !ok {
			return append(dst, '}'), t.err
		}
		if n > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(appendTextJSON(dst, name), ": "...)
		var err error
		if dst, err = appendFieldJSON(dst, f, depth); err != nil {
			return append(dst, '}'), err
		}
	}
}

// appendFieldJSON appends a value. What it appends is JSON also beside an error.
func appendFieldJSON(dst []byte, f tableField, depth int) ([]byte, error) {
	switch f.kind {
	case 'V':
		return append(dst, "null"...), nil
	case 't':
		return strconv.AppendBool(dst, f.data[0] != 0), nil
	case 'S', 'x':
		return appendTextJSON(dst, f.data), nil
	case 'f', 'd':
		x, _ := f.float()
		return appendFloatJSON(dst, x), nil
	case 'T':
		return strconv.AppendUint(dst, binary.BigEndian.Uint64(f.data), 10), nil
	case 'D':
		return appendDecimalJSON(dst, f.data[0], int32(binary.BigEndian.Uint32(f.data[1:]))), nil
	case 'F':
		return appendTableJSON(dst, f.data, depth+1)
	case 'A':
		return appendArrayJSON(dst, f.data, depth+1)
	}
	n, _ := f.integer()
	return strconv.AppendInt(dst, n, 10), nil
}

func appendArrayJSON(dst, raw []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return append(dst, "null"...), errTableDepth
	}
	t := tableReader{raw: raw}
	dst = append(dst, '[')
	for n := 0; ; n++ {
		f, ok := t.item()
		if !ok {
			return append(dst, ']'), t.err
		}
		if n > 0 {
			dst = append(dst, ", "...)
		}
		var err error
		if dst, err = appendFieldJSON(dst, f, depth); err != nil {
			return append(dst, ']'), err
		}
	}
}

func appendTextJSON(dst, data []byte) []byte {
	text := string(data)
	if !validText(text) {
		text = repaired(text, func(dst []byte, bad byte) []byte {
			return value.AppendSurrogate(dst, 0xDC00+rune(bad))
		})
	}
	return serialization.AppendString(dst, text)
}

func appendFloatJSON(dst []byte, x float64) []byte {
	switch {
	case math.IsNaN(x):
		return append(dst, "NaN"...)
	case math.IsInf(x, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(x, -1):
		return append(dst, "-Infinity"...)
	}
	return value.AppendFloat(dst, x)
}

// appendDecimalJSON writes n / 10^scale.
func appendDecimalJSON(dst []byte, scale byte, n int32) []byte {
	dst = strconv.AppendInt(dst, int64(n), 10)
	if scale > 0 {
		dst = strconv.AppendInt(append(dst, 'e'), -int64(scale), 10)
	}
	return dst
}

// errNotJSON is text that Python's reader would refuse. It goes out as null, as it does in an envelope.
var errNotJSON = errors.New("not JSON")

// appendJSONField appends a JSON text as a field: objects as tables, arrays as arrays, numbers by their form. The error
// is errNotJSON, also for text that is nested too deep, or says what AMQP cannot carry.
func appendJSONField(dst, text []byte, depth int) ([]byte, error) {
	if !utf8.Valid(text) {
		return dst, errNotJSON
	}
	r := jsonReader{text: text}
	dst, err := r.value(dst, depth)
	if r.space(); err == nil && r.pos < len(text) {
		err = errNotJSON
	}
	return dst, err
}

// jsonReader turns JSON into fields as it reads, so that the order of objects is kept.
type jsonReader struct {
	text []byte
	pos  int
}

func (r *jsonReader) space() {
	for ; r.pos < len(r.text); r.pos++ {
		switch r.text[r.pos] {
		case ' ', '\n', '\t', '\r':
		default:
			return
		}
	}
}

// peek skips white space and returns the byte there, 0 at the end.
func (r *jsonReader) peek() byte {
	r.space()
	if r.pos < len(r.text) {
		return r.text[r.pos]
	}
	return 0
}

// skip steps over the text if it is what comes next.
func (r *jsonReader) skip(text string) bool {
	if !bytes.HasPrefix(r.text[r.pos:], []byte(text)) {
		return false
	}
	r.pos += len(text)
	return true
}

func (r *jsonReader) value(dst []byte, depth int) ([]byte, error) {
	switch c := r.peek(); {
	case c == '{':
		return r.container(dst, 'F', '}', depth+1)
	case c == '[':
		return r.container(dst, 'A', ']', depth+1)
	case c == '"':
		at := len(dst)
		dst, err := r.string(append(dst, 'S', 0, 0, 0, 0))
		return finishField(dst, at), err
	case r.skip("null"):
		return append(dst, 'V'), nil
	case r.skip("true"):
		return appendBool(dst, true), nil
	case r.skip("false"):
		return appendBool(dst, false), nil
	case r.skip("NaN"):
		return appendFloat(dst, math.NaN()), nil
	case r.skip("Infinity"):
		return appendFloat(dst, math.Inf(1)), nil
	case r.skip("-Infinity"):
		return appendFloat(dst, math.Inf(-1)), nil
	}
	return r.number(dst)
}

// container reads an object as a table, or an array as an array.
func (r *jsonReader) container(dst []byte, kind, end byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return dst, errNotJSON
	}
	r.pos++
	at := len(dst)
	dst = beginField(dst, kind)
	for n := 0; r.peek() != end; n++ {
		if n > 0 && !r.skip(",") {
			return dst, errNotJSON
		}
		var err error
		if kind == 'F' {
			if dst, err = r.name(dst); err != nil {
				return dst, err
			}
		}
		if dst, err = r.value(dst, depth); err != nil {
			return dst, err
		}
	}
	r.pos++
	return finishField(dst, at), nil
}

// name reads a key and its colon.
func (r *jsonReader) name(dst []byte) ([]byte, error) {
	if r.peek() != '"' {
		return dst, errNotJSON
	}
	at := len(dst)
	dst, err := r.string(append(dst, 0))
	if err != nil {
		return dst, err
	}
	size := len(dst) - at - 1
	if size > maxName {
		return dst, fmt.Errorf("key %.40q has %d bytes: a key of an AMQP table has at most %d", dst[at+1:], size, maxName)
	}
	dst[at] = byte(size)
	if r.peek() != ':' {
		return dst, errNotJSON
	}
	r.pos++
	return dst, nil
}

// string appends the text of a string. A lone surrogate becomes its three WTF-8 bytes, which py-amqp reads.
func (r *jsonReader) string(dst []byte) ([]byte, error) {
	r.pos++
	for start := r.pos; r.pos < len(r.text); {
		switch c := r.text[r.pos]; {
		case c == '"':
			dst = append(dst, r.text[start:r.pos]...)
			r.pos++
			return dst, nil
		case c == '\\':
			dst = append(dst, r.text[start:r.pos]...)
			var ok bool
			if dst, ok = r.escape(dst); !ok {
				return dst, errNotJSON
			}
			start = r.pos
		case c < ' ':
			return dst, errNotJSON
		default:
			r.pos++
		}
	}
	return dst, errNotJSON
}

// escape appends what the escape that follows stands for.
func (r *jsonReader) escape(dst []byte) ([]byte, bool) {
	const letters, meanings = `"\/bfnrt`, "\"\\/\b\f\n\r\t"
	if r.pos+1 >= len(r.text) {
		return dst, false
	}
	c := r.text[r.pos+1]
	if i := bytes.IndexByte([]byte(letters), c); i >= 0 {
		r.pos += 2
		return append(dst, meanings[i]), true
	}
	code, ok := r.unicode()
	if !ok {
		return dst, false
	}
	if !utf16.IsSurrogate(code) {
		return utf8.AppendRune(dst, code), true
	}
	before := r.pos
	if low, ok := r.unicode(); ok {
		if pair := utf16.DecodeRune(code, low); pair != utf8.RuneError {
			return utf8.AppendRune(dst, pair), true
		}
	}
	r.pos = before
	return value.AppendSurrogate(dst, code), true
}

// unicode reads \uXXXX.
func (r *jsonReader) unicode() (rune, bool) {
	if len(r.text)-r.pos < 6 || r.text[r.pos] != '\\' || r.text[r.pos+1] != 'u' {
		return 0, false
	}
	var code rune
	for _, c := range r.text[r.pos+2 : r.pos+6] {
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
		code = code<<4 | rune(c)
	}
	r.pos += 6
	return code, true
}

// number reads a number. One with a point or an exponent is a float, infinite when it is out of range, as in Python.
func (r *jsonReader) number(dst []byte) ([]byte, error) {
	start := r.pos
	r.skip("-")
	whole := r.digits()
	if whole == 0 || whole > 1 && r.text[r.pos-whole] == '0' {
		return dst, errNotJSON
	}
	isFloat := false
	if r.skip(".") {
		isFloat = true
		if r.digits() == 0 {
			return dst, errNotJSON
		}
	}
	if r.skip("e") || r.skip("E") {
		isFloat = true
		if !r.skip("+") {
			r.skip("-")
		}
		if r.digits() == 0 {
			return dst, errNotJSON
		}
	}
	text := string(r.text[start:r.pos])
	if isFloat {
		x, _ := strconv.ParseFloat(text, 64) // an error is that of the range, and x infinite
		return appendFloat(dst, x), nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return dst, fmt.Errorf("integer %.40s does not fit the 64 bits of AMQP: send it as a string", text)
	}
	return appendInt(dst, n), nil
}

func (r *jsonReader) digits() (n int) {
	for ; r.pos < len(r.text) && '0' <= r.text[r.pos] && r.text[r.pos] <= '9'; r.pos++ {
		n++
	}
	return n
}
