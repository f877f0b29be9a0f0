package serialization

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

// same compares canonical values and describes a difference. NaN equals itself, and a time one of the same instant and
// offset. (Package cmp takes exponential time for deep lists.)
func same(want, got any) string {
	if equal(want, got) {
		return ""
	}
	return "want " + value.Repr(want, 500) + " got " + value.Repr(got, 500)
}

func equal(a, b any) bool {
	if value.PythonType(a) != value.PythonType(b) || value.PythonType(a) == "" {
		return false
	}
	switch a := a.(type) {
	case []any:
		return slices.EqualFunc(a, b.([]any), equal)
	case map[string]any:
		return maps.EqualFunc(a, b.(map[string]any), equal)
	case []byte:
		return bytes.Equal(a, b.([]byte))
	case float64:
		return a != a && b.(float64) != b.(float64) || math.Float64bits(a) == math.Float64bits(b.(float64))
	case *big.Int:
		b, ok := b.(*big.Int)
		return ok && a.Cmp(b) == 0
	case time.Time, value.LocalTime:
		x, _ := value.AppendText(nil, a)
		y, _ := value.AppendText(nil, b)
		return bytes.Equal(x, y)
	}
	return a == b
}

var (
	plusTwo   = time.FixedZone("", 2*3600)
	sampleID  = uuid.MustParse("12345678123442348234123456789abc")
	big70     = new(big.Int).Lsh(big.NewInt(1), 70)
	localNoon = value.LocalTime{Time: time.Date(2024, 1, 2, 3, 4, 5, 678000, time.UTC)}
)

// Texts in the left column are what kombu 5.6's dumps wrote; ours differ from it in spaces and escapes only.
var jsonGolden = []struct {
	python string
	value  any
	ours   string // empty: the same
}{
	{`null`, nil, ""},
	{`true`, true, ""},
	{`-5`, int64(-5), ""},
	{`1180591620717411303424`, big70, ""},
	{`9223372036854775807`, int64(math.MaxInt64), ""},
	{`-9223372036854775808`, int64(math.MinInt64), ""},
	{`9223372036854775808`, new(big.Int).SetUint64(1 << 63), ""},
	{`1.0`, 1.0, ""},
	{`1e+22`, 1e22, ""},
	{`1e-05`, 1e-5, ""},
	{`5e-324`, 5e-324, ""},
	{`1.7976931348623157e+308`, math.MaxFloat64, ""},
	{`-0.0`, math.Copysign(0, -1), ""},
	{`NaN`, math.NaN(), ""},
	{`Infinity`, math.Inf(1), ""},
	{`-Infinity`, math.Inf(-1), ""},
	{`"it's \"q\" \\ / \n\t\r\u0000\u007f"`, "it's \"q\" \\ / \n\t\r\x00\x7f", "\"it's \\\"q\\\" \\\\ / \\n\\t\\r\\u0000\x7f\""},
	{`"\u00e9\ud83d\ude00"`, "é😀", `"é😀"`},
	{`"\ud800x\udc00"`, "\xed\xa0\x80x\xed\xb0\x80", ""},
	{`"<&>"`, "<&>", ""},
	{`[1, [2], []]`, []any{int64(1), []any{int64(2)}, []any{}}, `[1,[2],[]]`},
	{`{"a": [1, null]}`, map[string]any{"a": []any{int64(1), nil}}, `{"a":[1,null]}`},
	{`{"__type__": "bytes", "__value__": "ab"}`, []byte("ab"), `{"__type__":"bytes","__value__":"ab"}`},
	{`{"__type__": "base64", "__value__": "AP8n"}`, []byte("\x00\xff'"), `{"__type__":"base64","__value__":"AP8n"}`},
	{`{"__type__": "datetime", "__value__": "2024-01-02T03:04:05.000678"}`, localNoon,
		`{"__type__":"datetime","__value__":"2024-01-02T03:04:05.000678"}`},
	{`{"__type__": "datetime", "__value__": "2024-01-02T03:04:05+00:00"}`, time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC),
		`{"__type__":"datetime","__value__":"2024-01-02T03:04:05.000000+00:00"}`},
	{`{"__type__": "datetime", "__value__": "2024-01-02T03:04:05.000006+02:00"}`, time.Date(2024, 1, 2, 3, 4, 5, 6000, plusTwo),
		`{"__type__":"datetime","__value__":"2024-01-02T03:04:05.000006+02:00"}`},
	{`{"__type__": "date", "__value__": "2024-01-02"}`, value.Date{Year: 2024, Month: 1, Day: 2},
		`{"__type__":"date","__value__":"2024-01-02"}`},
	{`{"__type__": "time", "__value__": "01:02:00"}`, value.TimeOfDay(62 * time.Minute),
		`{"__type__":"time","__value__":"01:02:00.000000"}`},
	{`{"__type__": "decimal", "__value__": "1.50"}`, value.Decimal("1.50"), `{"__type__":"decimal","__value__":"1.50"}`},
	{`{"__type__": "uuid", "__value__": {"hex": "12345678123442348234123456789abc"}}`, sampleID,
		`{"__type__":"uuid","__value__":{"hex":"12345678123442348234123456789abc"}}`},
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range jsonGolden {
		got, err := DecodeJSON([]byte(tt.python))
		if diff := same(tt.value, got); diff != "" || err != nil {
			t.Errorf("decode %s: %v %s", tt.python, err, diff)
		}
		want := tt.ours
		if want == "" {
			want = tt.python
		}
		text, err := AppendJSON(nil, tt.value)
		if err != nil || string(text) != want {
			t.Errorf("encode %v: %s, %v; want %s", tt.value, text, err, want)
		}
	}
}

func TestDecodeJSON(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   string
		want any
	}{
		{" \t\r\n1 \n", int64(1)},
		{"-0", int64(0)},
		{"1E2", 100.0},
		{"1e999", math.Inf(1)},
		{"-1e999", math.Inf(-1)},
		{"1e-999", 0.0},
		{`"\b\f\/\u0041\uD83D\uDE00"`, "\b\f/A😀"},
		{`"\ud83d\u0041"`, "\xed\xa0\xbdA"},
		{`{"a":1,"a":2}`, map[string]any{"a": int64(2)}},
		{`{"":{}}`, map[string]any{"": map[string]any{}}},
		{`{"__type__":"shop.Money","__value__":5}`, map[string]any{"__type__": "shop.Money", "__value__": int64(5)}},
		{`{"__type__":5,"__value__":5}`, map[string]any{"__type__": int64(5), "__value__": int64(5)}},
		{`{"__type__":"bytes","__value__":"x","more":1}`, map[string]any{"__type__": "bytes", "__value__": "x", "more": int64(1)}},
		{`{"__value__":"x","__type__":"bytes"}`, []byte("x")},
		{`{"__type__":"time","__value__":"01:02:03+02:00"}`, map[string]any{"__type__": "time", "__value__": "01:02:03+02:00"}},
		{`{"__type__":"uuid","__value__":{"hex":"12345678123442348234123456789abc","version":4}}`, sampleID},
		{`{"__type__":"datetime","__value__":"2024-01-02T03:04:05.000678Z"}`, localNoon.Time},
		{`{"__type__":"date","__value__":"2024-01-02T00:00:00"}`, value.Date{Year: 2024, Month: 1, Day: 2}},
		{`[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]`,
			[]any{[]any{int64(2), int64(3)}, map[string]any{}, map[string]any{"callbacks": nil, "errbacks": nil, "chain": nil, "chord": nil}}},
		{strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth), nil},
		{"-1" + strings.Repeat("0", value.MaxDigits-1), new(big.Int).Neg(new(big.Int).Exp(big.NewInt(10), big.NewInt(value.MaxDigits-1), nil))},
	}
	for _, tt := range tests {
		got, err := DecodeJSON([]byte(tt.in))
		if err != nil {
			t.Errorf("decode %.60s: %v", tt.in, err)
		} else if diff := same(tt.want, got); diff != "" && tt.in[0] != '[' {
			t.Errorf("decode %.60s: %s", tt.in, diff)
		}
	}
}

func TestDecodeJSONErrors(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                             "unexpected end",
		" ":                            "unexpected end",
		"[":                            "unexpected end",
		`{"a"`:                         "unexpected end",
		`{"a":`:                        "unexpected end",
		`"abc`:                         "unexpected end",
		`"abc\`:                        "unexpected end",
		`"abc\u12`:                     "invalid JSON",
		"[1,]":                         "invalid JSON",
		"[1 2]":                        "invalid JSON",
		"{1:2}":                        "invalid JSON",
		`{"a" 1}`:                      "invalid JSON",
		`{"a":1,}`:                     "invalid JSON",
		"nul":                          "invalid JSON",
		"-":                            "unexpected end",
		"+1":                           "invalid JSON",
		"01":                           "invalid JSON",
		"1.":                           "unexpected end",
		".5":                           "invalid JSON",
		"1e":                           "unexpected end",
		"-Inf":                         "invalid JSON",
		`"\x"`:                         "invalid JSON",
		"1 2":                          "data after the end",
		"{}]":                          "data after the end",
		"1\x00":                        "data after the end",
		"\"a\nb\"":                     "control character",
		"\"\\n\nb\"":                   "control character",
		"\"\xff\"":                     "invalid UTF-8",
		"\"\\n\xff\"":                  "invalid UTF-8",
		"\"\xff\\n\"":                  "invalid UTF-8",
		"\"\xed\xa0\x80\"":             "invalid UTF-8",
		"\ufeff1":                      "invalid JSON",
		strings.Repeat("[", 1_000_000): "too deep",
		strings.Repeat(`{"a":`, 2000):  "too deep",
		strings.Repeat("1", 1_000_000): "more than 4300 digits",
		`{"__type__":"datetime","__value__":"soon"}`: "invalid ISO 8601 date",
		`{"__type__":"datetime","__value__":5}`:      "invalid ISO 8601",
		`{"__type__":"bytes","__value__":5}`:         "not a str",
		`{"__type__":"base64","__value__":"?"}`:      "illegal base64",
		`{"__type__":"uuid","__value__":"x"}`:        "invalid UUID",
		`{"__type__":"uuid","__value__":[]}`:         "not a str",
		`{"__type__":"decimal","__value__":"x"}`:     "invalid decimal",
	} {
		v, err := DecodeJSON([]byte(in))
		var de *DecodeError
		if !errors.As(err, &de) || !strings.Contains(err.Error(), want) || len(err.Error()) > 200 {
			t.Errorf("decode %.40q = %v, %v; want %q", in, v, err, want)
		}
	}
}

func TestAppendJSONErrors(t *testing.T) {
	t.Parallel()
	var deep any = "x"
	for range value.MaxDepth + 1 {
		deep = []any{deep}
	}
	huge := new(big.Int).Exp(big.NewInt(10), big.NewInt(value.MaxDigits), nil)
	for want, in := range map[string]any{
		"cannot send chan int":  make(chan int),
		"cannot send chan bool": []chan bool{nil},
		"nested deeper than":    deep,
		"more digits":           huge,
		"year is outside":       time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC),
		"[0]: cannot send func": []any{func() {}},
	} {
		_, err := AppendJSON(nil, in)
		var ee *EncodeError
		if !errors.As(err, &ee) || !strings.Contains(err.Error(), want) {
			t.Errorf("encode %T: %v, want %q", in, err, want)
		}
	}
	if _, err := AppendJSON(nil, new(big.Int).Sub(huge, big.NewInt(1))); err != nil {
		t.Errorf("an int of exactly %d digits: %v", value.MaxDigits, err)
	}
}

func TestAppendJSONOfGoValues(t *testing.T) {
	t.Parallel()
	type args struct {
		X    int
		Tags []string
	}
	got, err := AppendJSON([]byte("x"), []any{args{1, nil}, []int8{1}, int32(5), "a\xffb", (*big.Int)(nil)})
	const want = `x[{"tags":[],"x":1},[1],5,"a` + "\ufffd" + `b",null]`
	if err != nil || string(got) != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestPlainJSON(t *testing.T) {
	t.Parallel()
	for want, in := range map[string]any{
		`"2024-01-02T03:04:05.000678"`:             localNoon,
		`"2024-01-02T03:04:05.000678Z"`:            localNoon.Time,
		`"2024-01-02T03:04:05.000678+02:00"`:       time.Date(2024, 1, 2, 3, 4, 5, 678000, plusTwo),
		`"2024-01-02T00:00:00"`:                    value.Date{Year: 2024, Month: 1, Day: 2},
		`"01:02:00.000000"`:                        value.TimeOfDay(62 * time.Minute),
		`"1.50"`:                                   value.Decimal("1.50"),
		`["12345678-1234-4234-8234-123456789abc"]`: []any{sampleID},
	} {
		if got, err := PlainJSON.Append(nil, in); err != nil || string(got) != want {
			t.Errorf("%#v: %s, %v; want %s", in, got, err, want)
		}
	}
	if _, err := PlainJSON.Append(nil, []any{[]byte("x")}); !errors.Is(err, errPlainBytes) {
		t.Errorf("bytes: %v", err)
	}
}

// A decoder goes back to its pool after an error too; the next document must not see what the last one left.
func TestJSONDecoderIsClean(t *testing.T) {
	t.Parallel()
	for range 100 {
		if _, err := DecodeJSON([]byte(`[1,2,{"a":[3,"x\n`)); err == nil {
			t.Fatal("no error")
		}
		got, err := DecodeJSON([]byte(`[[],{"b":"\n"}]`))
		if diff := same([]any{[]any{}, map[string]any{"b": "\n"}}, got); err != nil || diff != "" {
			t.Fatal(err, diff)
		}
	}
}

// FuzzJSON holds the decoder against encoding/json wherever the two should agree, and against our encoder.
func FuzzJSON(f *testing.F) {
	for _, tt := range jsonGolden {
		f.Add([]byte(tt.python))
		f.Add([]byte(`{"k":[` + tt.python + `,0]}`))
	}
	f.Add([]byte("\"\\n\xff\""))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := DecodeJSON(data)
		standard, standardErr := standardJSON(data)
		switch {
		case err != nil && standardErr == nil && !ourLimit(err):
			t.Fatalf("encoding/json reads %q, we do not: %v", data, err)
		case err == nil && standardErr != nil && !pythonOnly(data):
			t.Fatalf("we read %q as %v, encoding/json does not: %v", data, v, standardErr)
		case err != nil:
			return
		case standardErr == nil && !bytes.Contains(data, []byte(`__`)) && !bytes.Contains(data, []byte(`\`)):
			want, err := value.Of(standard)
			if err != nil {
				break
			}
			if diff := same(want, v); diff != "" {
				t.Fatalf("%q: %s", data, diff)
			}
		}
		text, err := AppendJSON(nil, v)
		if err != nil {
			if errors.Is(err, value.ErrDepth) || strings.Contains(err.Error(), "year") {
				return
			}
			t.Fatalf("%q decodes to %v and is not encoded: %v", data, v, err)
		}
		again, err := DecodeJSON(text)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", data, text, err)
		}
		if diff := same(v, again); diff != "" && !bytes.Contains(data, []byte("__type__")) {
			t.Fatalf("%q, written as %q, changed: %s", data, text, diff)
		}
	})
}

func standardJSON(data []byte) (v any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err == nil || err.Error() != "EOF" {
		return nil, errTrailing
	}
	return v, nil
}

// ourLimit reports whether we refuse on purpose what encoding/json lets pass.
func ourLimit(err error) bool {
	for _, text := range []string{"too deep", "digits", "UTF-8", "ISO 8601", "not a str", "base64", "UUID", "decimal"} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

func pythonOnly(data []byte) bool {
	return bytes.Contains(data, []byte("NaN")) || bytes.Contains(data, []byte("Infinity")) || !utf8.Valid(data)
}

func TestPlainJSONDecodesAsJSON(t *testing.T) {
	t.Parallel()
	for _, tt := range jsonGolden {
		a, _ := JSON.Decode([]byte(tt.python))
		b, err := PlainJSON.Decode([]byte(tt.python))
		if err != nil || !equal(a, b) {
			t.Errorf("%s: %v", tt.python, err)
		}
	}
}

// A part of a chord that is reported twice must be the same bytes.
func TestKeysAreSorted(t *testing.T) {
	t.Parallel()
	dict := map[string]any{}
	for c := 'a'; c <= 'z'; c++ {
		dict[string(c)] = map[string]any{"y": 1, "x": 2, "z": nil}
	}
	for _, s := range []Serializer{JSON, MsgPack, YAML} {
		first, err := s.Append(nil, dict)
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			if again, err := s.Append(nil, dict); err != nil || !bytes.Equal(first, again) {
				t.Fatalf("%s: %q, then %q, %v", s.Name(), first, again, err)
			}
		}
	}
}

const smallBody = `[[2,3],{},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]`

func BenchmarkDecodeJSON(b *testing.B) {
	data := []byte(smallBody)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecodeJSONLarge(b *testing.B) {
	data := []byte(`[["` + strings.Repeat("lorem ipsum ", 50) + `",` + strings.Repeat(`{"id":12345678,"name":"someone","price":12.5},`, 200) + `1],{},{}]`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeJSON(data); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendJSON(b *testing.B) {
	v, err := DecodeJSON([]byte(smallBody))
	if err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendJSON(buf, v); err != nil {
			b.Fatal(err)
		}
	}
}

func TestTooManyValues(t *testing.T) {
	t.Parallel()
	many := append(bytes.Repeat([]byte("1,"), MaxValues), '1')
	if _, err := DecodeJSON(append(append([]byte{'['}, many...), ']')); !errors.Is(err, errTooMany) {
		t.Errorf("JSON: %v", err)
	}
	packed := append([]byte{0xdd, 0, 0x20, 0, 0}, make([]byte, MaxValues)...) // 0xdd and its length: an array of MaxValues zeros
	if err := checkMsgPack(packed); !errors.Is(err, errTooMany) {
		t.Errorf("msgpack: %v", err)
	}
}
