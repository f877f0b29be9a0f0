package serialization

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"math"
	"math/big"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

// jsonSerializer is kombu's json. plain leaves out the typed objects of kombu 5.3.
type jsonSerializer struct{ plain bool }

var (
	// JSON writes values JSON has no form for as kombu 5.3 and later do: {"__type__": "decimal", "__value__": "1.50"}.
	JSON Serializer = jsonSerializer{}

	// PlainJSON is for fleets in which a Celery 5.2 still runs, which hands the typed objects to the task as dicts. It
	// writes dates, decimals and UUIDs as 5.2 does, as plain strings, and refuses bytes. It reads what JSON reads.
	PlainJSON Serializer = jsonSerializer{plain: true}
)

func (jsonSerializer) Name() string            { return "json" }
func (jsonSerializer) ContentType() string     { return "application/json" }
func (jsonSerializer) ContentEncoding() string { return "utf-8" }

func (s jsonSerializer) Append(dst []byte, v any) ([]byte, error) {
	e := jsonEncoder(s)
	dst, err := e.value(dst, v, 0)
	return encoded(dst, s, err)
}

// AppendJSON appends v, any Go value, as JSON. It writes UTF-8 as it is and escapes no HTML. Floats always have ".0"
// or an exponent and are shortest; NaN, Infinity and -Infinity are bare words, as Python writes them. A lone
// surrogate is written as its escape; any other byte that is not UTF-8 becomes U+FFFD. Keys are sorted. An error is an *EncodeError.
func AppendJSON(dst []byte, v any) ([]byte, error) { return JSON.Append(dst, v) }

type jsonEncoder struct{ plain bool }

var (
	errPlainBytes = errors.New("bytes have no form that Celery 5.2 reads")
	errBigInt     = errors.New("int of more digits than Python reads")
)

func (e jsonEncoder) value(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case bool:
		return strconv.AppendBool(dst, v), nil
	case string:
		return AppendString(dst, v), nil
	case int64:
		return strconv.AppendInt(dst, v, 10), nil
	case int:
		return strconv.AppendInt(dst, int64(v), 10), nil
	case float64:
		return appendJSONFloat(dst, v), nil
	case []any:
		return e.list(dst, v, depth)
	case map[string]any:
		return e.dict(dst, v, depth)
	}
	return e.rare(dst, v, depth)
}

func (e jsonEncoder) list(dst []byte, list []any, depth int) ([]byte, error) {
	if depth >= value.MaxDepth {
		return dst, value.ErrDepth
	}
	dst = append(dst, '[')
	var err error
	for i, v := range list {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = e.value(dst, v, depth+1); err != nil {
			return dst, value.WithPath(err, "["+strconv.Itoa(i)+"]")
		}
	}
	return append(dst, ']'), nil
}

func (e jsonEncoder) dict(dst []byte, dict map[string]any, depth int) ([]byte, error) {
	if depth >= value.MaxDepth {
		return dst, value.ErrDepth
	}
	dst = append(dst, '{')
	var err error
	var few [8]string
	for i, key := range sortedKeys(few[:0], dict) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(AppendString(dst, key), ':')
		if dst, err = e.value(dst, dict[key], depth+1); err != nil {
			return dst, value.WithPath(err, key)
		}
	}
	return append(dst, '}'), nil
}

// sortedKeys appends the keys of dict in order. Every serializer writes them so: the same value gives the same bytes,
// by which Redis tells whether a part of a chord has been reported before.
func sortedKeys(keys []string, dict map[string]any) []string {
	for key := range dict {
		keys = append(keys, key)
	}
	if len(keys) > 1 {
		slices.Sort(keys)
	}
	return keys
}

func (e jsonEncoder) rare(dst []byte, v any, depth int) ([]byte, error) {
	switch v := v.(type) {
	case *big.Int:
		if v == nil {
			return append(dst, "null"...), nil
		}
		return appendBig(dst, v)
	case []byte:
		return e.bytes(dst, v)
	case time.Time, value.LocalTime, value.Date, value.TimeOfDay, value.Decimal, uuid.UUID:
		canonical, err := value.Of(v) // checks its range
		if err != nil {
			return dst, err
		}
		if e.plain {
			return appendPlain(dst, canonical), nil
		}
		return appendTyped(dst, canonical), nil
	}
	canonical, err := value.Of(v)
	if err != nil {
		return dst, err
	}
	if value.PythonType(canonical) == "" {
		return dst, errors.New("not a canonical value")
	}
	return e.value(dst, canonical, depth)
}

func appendBig(dst []byte, v *big.Int) ([]byte, error) {
	if v.BitLen() > value.MaxDigits*10/3 { // a digit is at least 3 bits and a third: do not even convert it
		return dst, errBigInt
	}
	start := len(dst)
	dst = v.Append(dst, 10)
	digits := len(dst) - start
	if v.Sign() < 0 {
		digits--
	}
	if digits > value.MaxDigits {
		return dst, errBigInt
	}
	return dst, nil
}

func appendJSONFloat(dst []byte, f float64) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	}
	return value.AppendFloat(dst, f)
}

func (e jsonEncoder) bytes(dst, data []byte) ([]byte, error) {
	switch {
	case e.plain:
		return dst, errPlainBytes
	case utf8.Valid(data):
		dst = append(dst, `{"__type__":"bytes","__value__":`...)
		dst = AppendString(dst, string(data))
	default:
		dst = append(dst, `{"__type__":"base64","__value__":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, data)
		dst = append(dst, '"')
	}
	return append(dst, '}'), nil
}

// appendTyped writes the object kombu knows the type by.
func appendTyped(dst []byte, v any) []byte {
	kind := ""
	switch v := v.(type) {
	case uuid.UUID:
		dst = append(dst, `{"__type__":"uuid","__value__":{"hex":"`...)
		return append(hex.AppendEncode(dst, v[:]), `"}}`...)
	case time.Time, value.LocalTime:
		kind = "datetime"
	case value.Date:
		kind = "date"
	case value.TimeOfDay:
		kind = "time"
	case value.Decimal:
		kind = "decimal"
	}
	dst = append(dst, `{"__type__":"`...)
	dst = append(dst, kind...)
	dst = append(dst, `","__value__":`...)
	return append(appendText(dst, v), '}')
}

// appendPlain writes the string kombu 5.2 wrote: a date is midnight, and UTC is Z.
func appendPlain(dst []byte, v any) []byte {
	switch v := v.(type) {
	case value.Date:
		dst = append(append(dst, '"'), v.String()...)
		return append(dst, `T00:00:00"`...)
	case time.Time:
		if _, offset := v.Zone(); offset == 0 {
			text := value.AppendISO(append(dst, '"'), v)
			return append(text[:len(text)-len("+00:00")], `Z"`...)
		}
	}
	return appendText(dst, v)
}

func appendText(dst []byte, v any) []byte {
	var buf [64]byte
	text, _ := value.AppendText(buf[:0], v)
	return AppendString(dst, string(text)) // a Decimal may hold any text
}

const hexDigits = "0123456789abcdef"

// asItIs are the ASCII characters that a JSON string holds unchanged.
var asItIs = func() (plain [256]bool) {
	for c := byte(0x20); c < utf8.RuneSelf; c++ {
		plain[c] = c != '"' && c != '\\'
	}
	return plain
}()

// AppendString appends text as a JSON string, for those who write JSON by hand. UTF-8 stays as it is, the WTF-8 bytes of a
// lone surrogate become its escape, any other bad byte U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	start := 0 // of the run that is written as it is
	for i := 0; i < len(s); {
		c := s[i]
		if asItIs[c] {
			i++
			continue
		}
		if c < utf8.RuneSelf {
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, c)
			i++
			start = i
			continue
		}
		r, size := utf8.DecodeRuneInString(s[i:])
		if r != utf8.RuneError || size > 1 {
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		if surrogate, ok := value.Surrogate(s[i:]); ok {
			dst = appendUnicodeEscape(dst, surrogate)
			i += 3
		} else {
			dst = append(dst, "\ufffd"...)
			i++
		}
		start = i
	}
	return append(append(dst, s[start:]...), '"')
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
	}
	return appendUnicodeEscape(dst, rune(c))
}

func appendUnicodeEscape(dst []byte, r rune) []byte {
	return append(dst, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}
