package rabbitmq

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/gelery/gelery/protocol/value"
)

const (
	// maxTable is the largest header table, in bytes, that is sent. It leaves 8 KiB of RabbitMQ's frame of 128 KiB to the
	// properties and to what the broker adds, such as x-death.
	maxTable = 120 << 10
	// maxEntry is the most, in bytes, that is sent of a text that we add to a table.
	maxEntry = 4 << 10
	// maxDepth is how deep tables and arrays may nest, as in a Redis envelope.
	maxDepth = 512
	// maxName is AMQP's limit on the name of a header and on a property of text.
	maxName = 255
)

var (
	errTableEnd   = errors.New("header table ends too early")
	errTableDepth = fmt.Errorf("header table nests deeper than %d levels", maxDepth)
)

// tableField is one value of a table: its type letter, and its bytes without their length.
//
// The letters are those of RabbitMQ, with their meaning there and in py-amqp: t bool, b B s u I i l L integers (of 8,
// 16, 32, 64 bits, B u i unsigned), f d floats, D decimal, S text, x bytes, A array, F table, T seconds since 1970, V
// null. Python's 64-bit integers are L.
type tableField struct {
	kind byte
	data []byte
}

// tableReader walks the fields of an array, or the names and fields of a table. Nothing is copied.
type tableReader struct {
	raw []byte
	pos int
	err error // why the walk ended, if not at the end
}

// next steps to the next entry of a table.
func (t *tableReader) next() (name []byte, f tableField, ok bool) {
	if t.pos >= len(t.raw) {
		return nil, tableField{}, false
	}
	start := t.pos + 1
	end := start + int(t.raw[t.pos])
	if end > len(t.raw) {
		t.err = errTableEnd
		return nil, tableField{}, false
	}
	t.pos = end
	f, ok = t.field()
	return t.raw[start:end], f, ok
}

// item steps to the next field of an array.
func (t *tableReader) item() (f tableField, ok bool) {
	if t.pos >= len(t.raw) {
		return tableField{}, false
	}
	return t.field()
}

// field reads a field. Its bytes are the last that were read: they end at pos.
func (t *tableReader) field() (f tableField, ok bool) {
	if t.pos >= len(t.raw) {
		t.err = errTableEnd
		return f, false
	}
	f.kind = t.raw[t.pos]
	left := t.raw[t.pos+1:]
	size := int64(0)
	switch f.kind {
	case 'V':
	case 't', 'b', 'B':
		size = 1
	case 's', 'u':
		size = 2
	case 'I', 'i', 'f':
		size = 4
	case 'D':
		size = 5
	case 'l', 'L', 'd', 'T':
		size = 8
	case 'S', 'x', 'A', 'F':
		if len(left) < 4 {
			t.err = errTableEnd
			return f, false
		}
		size = int64(binary.BigEndian.Uint32(left))
		left = left[4:]
	default:
		t.err = fmt.Errorf("header table has a field of unknown type %q", f.kind)
		return f, false
	}
	if size > int64(len(left)) {
		t.err = errTableEnd
		return f, false
	}
	f.data = left[:size:size]
	t.pos = len(t.raw) - len(left) + int(size)
	return f, true
}

// integer returns the value of a whole number.
func (f tableField) integer() (n int64, ok bool) {
	switch f.kind {
	case 'b':
		return int64(int8(f.data[0])), true
	case 'B':
		return int64(f.data[0]), true
	case 's':
		return int64(int16(binary.BigEndian.Uint16(f.data))), true
	case 'u':
		return int64(binary.BigEndian.Uint16(f.data)), true
	case 'I':
		return int64(int32(binary.BigEndian.Uint32(f.data))), true
	case 'i':
		return int64(binary.BigEndian.Uint32(f.data)), true
	case 'l', 'L':
		return int64(binary.BigEndian.Uint64(f.data)), true
	}
	return 0, false
}

// float returns the value of a floating point number.
func (f tableField) float() (x float64, ok bool) {
	switch f.kind {
	case 'f':
		return float64(math.Float32frombits(binary.BigEndian.Uint32(f.data))), true
	case 'd':
		return math.Float64frombits(binary.BigEndian.Uint64(f.data)), true
	}
	return 0, false
}

// number returns the value of a finite number of either kind.
func (f tableField) number() (x float64, ok bool) {
	if n, ok := f.integer(); ok {
		return float64(n), true
	}
	x, ok = f.float()
	return x, ok && !math.IsNaN(x) && !math.IsInf(x, 0)
}

// appendName appends the name of an entry, at most maxName bytes of it: whoever calls has checked it.
func appendName(dst []byte, name string) []byte {
	return append(append(dst, byte(len(name))), name...)
}

func appendText(dst []byte, text string) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, 'S'), uint32(len(text)))
	return append(dst, text...)
}

// appendInt appends a whole number with the letters py-amqp chooses. Every py-amqp reads L as signed; l, AMQP's own
// letter, the older ones read as unsigned.
func appendInt(dst []byte, n int64) []byte {
	if -math.MaxInt32 <= n && n <= math.MaxInt32 {
		return binary.BigEndian.AppendUint32(append(dst, 'I'), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, 'L'), uint64(n))
}

func appendFloat(dst []byte, x float64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, 'd'), math.Float64bits(x))
}

func appendBool(dst []byte, v bool) []byte {
	if v {
		return append(dst, 't', 1)
	}
	return append(dst, 't', 0)
}

// beginField appends the head of an array or table; finishField puts in its length, at being the length of dst before.
func beginField(dst []byte, kind byte) []byte { return append(dst, kind, 0, 0, 0, 0) }

func finishField(dst []byte, at int) []byte {
	binary.BigEndian.PutUint32(dst[at+1:], uint32(len(dst)-at-5))
	return dst
}

// validText reports whether text is what Python holds in a str: UTF-8, or WTF-8 with lone surrogates.
func validText(text string) bool {
	for !utf8.ValidString(text) {
		i := invalidAt(text)
		if _, ok := value.Surrogate(text[i:]); !ok {
			return false
		}
		text = text[i+3:]
	}
	return true
}

// invalidAt returns the index of the first byte that is not UTF-8.
func invalidAt(text string) int {
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRuneInString(text[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return len(text)
}

// repaired replaces each byte of text that is not UTF-8 by what replacement appends for it. Those of a lone surrogate are
// replaced too, although validText has nothing against it: one that stayed could become a pair with the next replacement.
func repaired(text string, replacement func(dst []byte, bad byte) []byte) string {
	var out []byte
	for {
		i := invalidAt(text)
		out = append(out, text[:i]...)
		if i == len(text) {
			return string(out)
		}
		out = replacement(out, text[i])
		text = text[i+1:]
	}
}

// tableEntry is a header to add to a table, or to take from it.
type tableEntry struct {
	name  string
	value any // string or int64; nil takes the header away
}

// appendEntries appends the table without the broker's own headers and those named in extra, then those of extra that
// have a value, of text at most maxEntry bytes. Of a table that is broken, or would become larger than maxTable, the
// readable headers go in as long as there is room.
func appendEntries(dst, raw []byte, extra []tableEntry) []byte {
	var added []byte
	for _, e := range extra {
		switch v := e.value.(type) {
		case string:
			added = appendText(appendName(added, e.name), readable(v[:min(len(v), maxEntry)]))
		case int64:
			added = appendInt(appendName(added, e.name), v)
		}
	}
	room := maxTable - len(added)
	t := tableReader{raw: raw}
	for {
		start := t.pos
		name, _, ok := t.next()
		if !ok {
			return append(dst, added...)
		}
		if size := t.pos - start; size <= room && !named(extra, name) && !isBrokerHeader(string(name)) {
			dst = append(dst, raw[start:t.pos]...)
			room -= size
		}
	}
}

// named reports whether extra has an entry of that name.
func named(extra []tableEntry, name []byte) bool {
	for i := range extra {
		if extra[i].name == string(name) {
			return true
		}
	}
	return false
}

// tableLookup finds a header of text or a whole number in a table: a string or an int64. Of repeated ones the last
// counts.
func tableLookup(raw []byte, name string) (v any, ok bool) {
	t := tableReader{raw: raw}
	var found tableField
	for {
		n, f, more := t.next()
		if !more {
			break
		}
		if string(n) == name {
			found = f
		}
	}
	if found.kind == 'S' {
		return string(found.data), true
	}
	if n, ok := found.integer(); ok {
		return n, true
	}
	return nil, false
}

// isBrokerHeader reports whether a header is the broker's own record or instruction, which must not be sent again. A
// message that carries x-death from its last way through dead-letter queues is silently dropped by RabbitMQ on the
// next, as going in circles; CC and BCC would deliver it to others once more.
func isBrokerHeader(name string) bool {
	switch name {
	case "x-death", "x-delivery-count", "x-acquired-count", "CC", "BCC":
		return true
	}
	return strings.HasPrefix(name, "x-first-death-") || strings.HasPrefix(name, "x-last-death-")
}
