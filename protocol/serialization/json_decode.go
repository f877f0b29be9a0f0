package serialization

import (
	"encoding/base64"
	"errors"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

func (s jsonSerializer) Decode(data []byte) (any, error) {
	v, err := decodeJSON(data)
	return decoded(v, s, err)
}

// DecodeJSON reads one JSON value as Python's json and kombu do: NaN and Infinity are read, integers of any size
// (up to value.MaxDigits) stay exact, 1.0 stays a float, a number too large for a float is infinite, the last of
// duplicate keys wins, a lone surrogate is kept as WTF-8. kombu's typed objects become the values they stand for; an
// object with an unknown __type__ stays a dict, where kombu refuses the whole document. Depth is limited to MaxDepth,
// size to MaxBody, the number of values to MaxValues. An error is a *DecodeError.
func DecodeJSON(data []byte) (any, error) { return JSON.Decode(data) }

func decodeJSON(data []byte) (any, error) {
	if err := checkSize(data, MaxBody); err != nil {
		return nil, err
	}
	d := jsonDecoders.Get().(*jsonDecoder)
	d.data, d.pos, d.count = data, 0, 0
	v, err := d.document()
	d.release()
	return v, err
}

// jsonDecoder keeps the members of open containers on two stacks, so that each list and dict is made at its final
// size.
type jsonDecoder struct {
	data  []byte
	pos   int
	count int // values so far
	items []any
	keys  []string
	text  []byte // a string under construction
}

var jsonDecoders = sync.Pool{New: func() any { return new(jsonDecoder) }}

// maxKept bounds what an idle decoder holds on to after a large document.
const maxKept = 1024

func (d *jsonDecoder) release() {
	clear(d.items) // what an error left behind
	clear(d.keys)
	if cap(d.items) > maxKept {
		d.items = nil
	}
	if cap(d.keys) > maxKept {
		d.keys = nil
	}
	if cap(d.text) > 16*maxKept {
		d.text = nil
	}
	d.data, d.items, d.keys = nil, d.items[:0], d.keys[:0]
	jsonDecoders.Put(d)
}

func (d *jsonDecoder) document() (any, error) {
	d.space()
	v, err := d.value(0)
	if err != nil {
		return nil, fmt.Errorf("%w at byte %d", err, d.pos)
	}
	d.space()
	if d.pos < len(d.data) {
		return nil, fmt.Errorf("%w at byte %d", errTrailing, d.pos)
	}
	return v, nil
}

func (d *jsonDecoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0, which begins no token, at the end.
func (d *jsonDecoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

var errSyntax = errors.New("invalid JSON")

func (d *jsonDecoder) syntax() error {
	if d.pos >= len(d.data) {
		return errTruncate
	}
	return errSyntax
}

func (d *jsonDecoder) value(depth int) (any, error) {
	if d.count++; d.count > MaxValues {
		return nil, errTooMany
	}
	switch c := d.peek(); c {
	case '{':
		return d.object(depth)
	case '[':
		return d.array(depth)
	case '"':
		return d.str()
	case 'n':
		return nil, d.word("null")
	case 't':
		return true, d.word("true")
	case 'f':
		return false, d.word("false")
	case 'N':
		return math.NaN(), d.word("NaN")
	case 'I':
		return math.Inf(1), d.word("Infinity")
	default:
		if c == '-' || c-'0' <= 9 {
			return d.number()
		}
		return nil, d.syntax()
	}
}

func (d *jsonDecoder) word(word string) error {
	if len(d.data)-d.pos < len(word) || string(d.data[d.pos:d.pos+len(word)]) != word {
		return errSyntax
	}
	d.pos += len(word)
	return nil
}

func (d *jsonDecoder) array(depth int) (any, error) {
	if depth >= MaxDepth {
		return nil, errTooDeep
	}
	d.pos++
	d.space()
	if d.peek() == ']' {
		d.pos++
		return []any{}, nil
	}
	base := len(d.items)
	for {
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		d.items = append(d.items, v)
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
			d.space()
		case ']':
			d.pos++
			list := make([]any, len(d.items)-base)
			copy(list, d.items[base:])
			clear(d.items[base:])
			d.items = d.items[:base]
			return list, nil
		default:
			return nil, d.syntax()
		}
	}
}

func (d *jsonDecoder) object(depth int) (any, error) {
	d.count += dictCost
	if depth >= MaxDepth {
		return nil, errTooDeep
	}
	d.pos++
	d.space()
	if d.peek() == '}' {
		d.pos++
		return map[string]any{}, nil
	}
	base, keyBase := len(d.items), len(d.keys)
	for {
		key, err := d.key()
		if err != nil {
			return nil, err
		}
		v, err := d.value(depth + 1)
		if err != nil {
			return nil, err
		}
		d.keys, d.items = append(d.keys, key), append(d.items, v)
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
			d.space()
		case '}':
			d.pos++
			v, err := newObject(d.keys[keyBase:], d.items[base:])
			clear(d.items[base:])
			clear(d.keys[keyBase:])
			d.keys, d.items = d.keys[:keyBase], d.items[:base]
			return v, err
		default:
			return nil, d.syntax()
		}
	}
}

// key reads a key, its colon and the space around that.
func (d *jsonDecoder) key() (string, error) {
	if d.peek() != '"' {
		return "", d.syntax()
	}
	text, err := d.scanString()
	if err != nil {
		return "", err
	}
	d.space()
	if d.peek() != ':' {
		return "", d.syntax()
	}
	d.pos++
	d.space()
	return internKey(text), nil
}

// internKey saves the allocation for the keys every message has.
func internKey(text []byte) string {
	switch string(text) {
	case "callbacks":
		return "callbacks"
	case "errbacks":
		return "errbacks"
	case "chain":
		return "chain"
	case "chord":
		return "chord"
	case "task":
		return "task"
	case "args":
		return "args"
	case "kwargs":
		return "kwargs"
	case "options":
		return "options"
	case "subtask_type":
		return "subtask_type"
	case "immutable":
		return "immutable"
	case "task_id":
		return "task_id"
	case "__type__":
		return typeKey
	case "__value__":
		return valueKey
	}
	return string(text)
}

const (
	typeKey  = "__type__"
	valueKey = "__value__"
)

func newObject(keys []string, items []any) (any, error) {
	if len(keys) == 2 {
		var kind, content any
		switch {
		case keys[0] == typeKey && keys[1] == valueKey:
			kind, content = items[0], items[1]
		case keys[0] == valueKey && keys[1] == typeKey:
			kind, content = items[1], items[0]
		}
		if name, ok := kind.(string); ok {
			if v, known, err := typedValue(name, content); known {
				return v, err
			}
		}
	}
	dict := make(map[string]any, len(keys))
	for i, key := range keys {
		dict[key] = items[i]
	}
	return dict, nil
}

// typedValue turns kombu's typed object into its value. known is false for a type kombu does not have, and for a
// time of day with a zone, which has no Go form.
func typedValue(name string, content any) (v any, known bool, err error) {
	text, isText := content.(string)
	switch name {
	case "uuid":
		if dict, ok := content.(map[string]any); ok {
			text, isText = dict["hex"].(string)
		}
		if isText {
			v, err = uuid.Parse(text)
		}
	case "datetime":
		t, aware, parseErr := value.ParseISO(text)
		if v, err = t, parseErr; !aware {
			v = value.LocalTime{Time: t}
		}
	case "date":
		v, err = value.ParseDate(text)
	case "time":
		if v, err = value.ParseTimeOfDay(text); err != nil && isText {
			if _, _, zoned := value.ParseISO("2000-01-01T" + text); zoned == nil {
				return nil, false, nil
			}
		}
	case "decimal":
		v, err = value.ParseDecimal(text)
	case "bytes":
		v = []byte(text)
	case "base64":
		v, err = base64.StdEncoding.DecodeString(text)
	default:
		return nil, false, nil
	}
	if err == nil && !isText {
		err = fmt.Errorf("__value__ of a %s is not a str", name)
	}
	if err != nil {
		return nil, true, err
	}
	return v, true, nil
}

func (d *jsonDecoder) str() (any, error) {
	text, err := d.scanString()
	if err != nil {
		return nil, err
	}
	return string(text), nil
}

// scanString returns the text of a string token. It is valid until the next call.
func (d *jsonDecoder) scanString() ([]byte, error) {
	d.pos++
	start := d.pos
	ascii := true
	for i, c := range d.data[start:] {
		switch {
		case c == '"':
			text := d.data[start : start+i]
			if !ascii && !utf8.Valid(text) {
				return nil, errUTF8
			}
			d.pos = start + i + 1
			return text, nil
		case c == '\\':
			d.text = append(d.text[:0], d.data[start:start+i]...)
			d.pos = start + i
			return d.scanEscaped()
		case c < 0x20:
			d.pos = start + i
			return nil, errControl
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	d.pos = len(d.data)
	return nil, errTruncate
}

var (
	errUTF8    = errors.New("invalid UTF-8")
	errControl = errors.New("control character in a string")
)

// scanEscaped goes on from the first backslash, with what stands before it in d.text.
func (d *jsonDecoder) scanEscaped() ([]byte, error) {
	checked := 0 // d.text is UTF-8 up to here, or WTF-8 from an escape
	for d.pos < len(d.data) {
		c := d.data[d.pos]
		switch {
		case c == '"':
			if !utf8.Valid(d.text[checked:]) {
				return nil, errUTF8
			}
			d.pos++
			return d.text, nil
		case c == '\\':
			if !utf8.Valid(d.text[checked:]) {
				return nil, errUTF8
			}
			if err := d.escape(); err != nil {
				return nil, err
			}
			checked = len(d.text)
		case c < 0x20:
			return nil, errControl
		default:
			d.text = append(d.text, c)
			d.pos++
		}
	}
	return nil, errTruncate
}

func (d *jsonDecoder) escape() error {
	if d.pos+1 >= len(d.data) {
		d.pos = len(d.data)
		return errTruncate
	}
	c := d.data[d.pos+1]
	switch c {
	case '"', '\\', '/':
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
		return d.unicodeEscape()
	default:
		return errSyntax
	}
	d.text = append(d.text, c)
	d.pos += 2
	return nil
}

func (d *jsonDecoder) unicodeEscape() error {
	r, ok := hex4(d.data[d.pos+2:])
	if !ok {
		return d.syntax()
	}
	d.pos += 6
	if r < 0xd800 || r > 0xdfff {
		d.text = utf8.AppendRune(d.text, r)
		return nil
	}
	if r < 0xdc00 && d.pos+1 < len(d.data) && d.data[d.pos] == '\\' && d.data[d.pos+1] == 'u' {
		if low, ok := hex4(d.data[d.pos+2:]); ok && low >= 0xdc00 && low <= 0xdfff {
			d.pos += 6
			d.text = utf8.AppendRune(d.text, (r-0xd800)<<10|(low-0xdc00)+0x10000)
			return nil
		}
	}
	d.text = value.AppendSurrogate(d.text, r)
	return nil
}

func hex4(text []byte) (r rune, ok bool) {
	if len(text) < 4 {
		return 0, false
	}
	for _, c := range text[:4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

func (d *jsonDecoder) number() (any, error) {
	start := d.pos
	negative := d.data[d.pos] == '-'
	if negative {
		d.pos++
		if d.peek() == 'I' {
			return math.Inf(-1), d.word("Infinity")
		}
	}
	n, digits := d.digits()
	if digits > 1 && d.data[d.pos-digits] == '0' {
		return nil, errSyntax
	}
	if digits == 0 {
		return nil, d.syntax()
	}
	isFloat := false
	if d.peek() == '.' {
		isFloat = true
		d.pos++
		if _, fraction := d.digits(); fraction == 0 {
			return nil, d.syntax()
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		isFloat = true
		d.pos++
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		if _, exponent := d.digits(); exponent == 0 {
			return nil, d.syntax()
		}
	}
	text := d.data[start:d.pos]
	switch {
	case isFloat: // out of range is infinite, as in Python
		f, err := strconv.ParseFloat(string(text), 64)
		if err != nil && !errors.Is(err, strconv.ErrRange) {
			return nil, errSyntax
		}
		return f, nil
	case digits <= 18:
		if negative {
			n = -n
		}
		return n, nil
	case digits > value.MaxDigits:
		return nil, errDigits
	}
	return parseInt(string(text))
}

// digits skips a run of digits and returns their value, which is right for up to 18 of them.
func (d *jsonDecoder) digits() (n int64, count int) {
	start := d.pos
	for d.pos < len(d.data) && d.data[d.pos]-'0' <= 9 {
		n = n*10 + int64(d.data[d.pos]-'0')
		d.pos++
	}
	return n, d.pos - start
}

var errDigits = fmt.Errorf("int of more than %d digits", value.MaxDigits)

// parseInt reads decimal text of any size up to Python's own limit, past which conversion takes quadratic time.
func parseInt(text string) (any, error) {
	if len(strings.TrimPrefix(text, "-")) > value.MaxDigits {
		return nil, errDigits
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, nil
	}
	b, ok := new(big.Int).SetString(text, 10)
	if !ok {
		return nil, errors.New("invalid int")
	}
	return b, nil
}
