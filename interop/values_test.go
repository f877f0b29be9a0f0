package interop

import (
	"bytes"
	"fmt"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

// set is an argument set of python/values.py in Go's words, and who carries it unchanged both ways.
type set struct {
	name string
	args []any
	// via lists the serializers that carry it. msgpack has no type for dates, Decimals, UUIDs and big integers, yaml none
	// for times, Decimals and UUIDs; Python refuses to send those. PyYAML writes a lone surrogate as an escape that YAML
	// does not allow.
	via []string
	// typed values need kombu's typed JSON on the side that reads, which Celery 5.2 has not.
	typed bool
}

var (
	everySerializer = []string{"json", "msgpack", "yaml"}
	jsonAndYAML     = []string{"json", "yaml"}
	onlyJSON        = []string{"json"}
)

var sets = []set{
	{name: "none", via: everySerializer, args: []any{nil}},
	{name: "bool", via: everySerializer, args: []any{true, false}},
	{name: "int", via: everySerializer, args: []any{
		int64(0), int64(1), int64(-1), int64(1) << 31, int64(1)<<53 + 1, int64(math.MaxInt64), int64(math.MinInt64),
	}},
	{name: "bigint", via: jsonAndYAML, args: []any{
		power(2, 63), power(2, 64), new(big.Int).Neg(power(2, 70)), power(10, 100),
	}},
	{name: "float", via: everySerializer, args: []any{
		1.0, math.Copysign(0, -1), 0.1, 1e22, 1e-7, 5e-324, math.MaxFloat64, 123456789.0,
	}},
	{name: "nan", via: everySerializer, args: []any{math.NaN(), math.Inf(1), math.Inf(-1)}},
	{name: "str", via: everySerializer, args: []any{
		"", "a", " ", "yes", "null", "1", "1.0", "2026-01-02", "~", "- a: b", "line\nline\ttab\r\n",
	}},
	{name: "unicode", via: everySerializer, args: []any{
		"héllo", "日本", "😀", "\u2028\u2029", "<&>\"'\\/", "\x00\x01\x7f",
	}},
	{name: "surrogate", via: onlyJSON, args: []any{"\xed\xa0\x80", "a\xed\xbf\xbfz"}},
	{name: "bytes", typed: true, via: everySerializer, args: []any{
		[]byte{}, []byte("ab"), []byte("\xff\x00\x80"), []byte("hé"),
	}},
	{name: "datetime", typed: true, via: jsonAndYAML, args: []any{
		time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.FixedZone("", 5*3600+30*60)),
	}},
	{name: "localtime", typed: true, via: jsonAndYAML, args: []any{
		value.LocalTime{Time: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		value.LocalTime{Time: time.Date(1969, 12, 31, 23, 59, 59, 999999000, time.UTC)},
	}},
	{name: "date", typed: true, via: jsonAndYAML, args: []any{
		value.Date{Year: 2026, Month: 1, Day: 2}, value.Date{Year: 1, Month: 1, Day: 1}, value.Date{Year: 9999, Month: 12, Day: 31},
	}},
	{name: "time", typed: true, via: onlyJSON, args: []any{
		value.TimeOfDay(0), value.TimeOfDay(24*time.Hour - time.Microsecond),
	}},
	{name: "decimal", typed: true, via: onlyJSON, args: []any{
		value.Decimal("1.10"), value.Decimal("-0"), value.Decimal("1E+5"), value.Decimal("1E-24"),
	}},
	{name: "uuid", typed: true, via: onlyJSON, args: []any{
		uuid.MustParse("12345678-1234-4678-9234-567812345678"), uuid.UUID{},
	}},
	{name: "empty", via: everySerializer, args: []any{"", []any{}, map[string]any{}}},
	{name: "nested", via: everySerializer, args: []any{
		map[string]any{"a": []any{int64(1), map[string]any{"b": []any{nil, true, "x", 2.5}}}, "c": map[string]any{}},
		[]any{[]any{[]any{[]any{}}}},
		map[string]any{"": map[string]any{"k k": map[string]any{"é": []any{int64(1)}}}},
	}},
	{name: "deep", via: everySerializer, args: deep(60)},
	{name: "many", via: everySerializer, args: many(300)},
}

// big is checked on its own: 10 MB through every combination would take minutes.
var bigSet = set{name: "big", via: everySerializer, args: []any{strings.Repeat("x", 10<<20)}}

func power(base, exponent int64) *big.Int {
	return new(big.Int).Exp(big.NewInt(base), big.NewInt(exponent), nil)
}

func deep(levels int) []any {
	v := []any{nil}
	for range levels {
		v = []any{v}
	}
	return v
}

func many(n int) []any {
	v := make([]any, n)
	for i := range v {
		v[i] = int64(i)
	}
	return v
}

// same compares canonical values as strictly as python/values.py does. go-cmp is no help here: the time it takes on
// nested slices doubles with each level.
func same(a, b any) bool {
	switch a := a.(type) {
	case []any:
		b, ok := b.([]any)
		return ok && slices.EqualFunc(a, b, same)
	case map[string]any:
		b, ok := b.(map[string]any)
		return ok && maps.EqualFunc(a, b, same)
	case []byte:
		b, ok := b.([]byte)
		return ok && bytes.Equal(a, b)
	case float64: // tells -0.0 from 0.0 and finds NaN equal to NaN
		b, ok := b.(float64)
		return ok && (math.Float64bits(a) == math.Float64bits(b) || math.IsNaN(a) && math.IsNaN(b))
	case *big.Int:
		b, ok := b.(*big.Int)
		return ok && a.Cmp(b) == 0
	case time.Time:
		b, ok := b.(time.Time)
		if !ok {
			return false
		}
		_, x := a.Zone()
		_, y := b.Zone()
		return a.Equal(b) && x == y
	case value.LocalTime:
		b, ok := b.(value.LocalTime)
		return ok && a.Equal(b.Time)
	}
	return a == b
}

// short is a value for a person, not too long.
func short(v any) string {
	text := fmt.Sprintf("%#v", v)
	if len(text) > 300 {
		text = text[:300] + "..."
	}
	return text
}

// TestSameIsStrict keeps the judge honest.
func TestSameIsStrict(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)
	for _, pair := range [][2]any{
		{int64(1), 1.0}, {int64(1), true}, {0.0, math.Copysign(0, -1)}, {"a", []byte("a")}, {noon, value.LocalTime{Time: noon}},
		{noon, noon.In(time.FixedZone("", 3600))}, {value.Decimal("1.0"), value.Decimal("1.00")}, {value.Decimal("1"), "1"},
		{power(2, 64), power(2, 65)}, {[]any{int64(1)}, []any{}}, {nil, ""},
	} {
		if same(pair[0], pair[1]) {
			t.Errorf("%#v and %#v pass as the same", pair[0], pair[1])
		}
	}
	for _, s := range sets {
		if !same(s.args, s.args) {
			t.Errorf("%s does not equal itself", s.name)
		}
	}
}
