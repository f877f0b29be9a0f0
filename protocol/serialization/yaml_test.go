package serialization

import (
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/gelery/gelery/protocol/value"
)

func moment(micro int, loc *time.Location) time.Time {
	return time.Date(2024, 1, 2, 3, 4, 5, micro*1000, loc)
}

// What PyYAML 6's safe_load makes of a document.
func TestDecodeYAML(t *testing.T) {
	t.Parallel()
	type dict = map[string]any
	type list = []any
	half := value.LocalTime{Time: moment(500000, time.UTC)}
	tests := []struct {
		in   string
		want any
	}{
		{"yes", true}, {"No", false}, {"on", true}, {"y", "y"}, {"yEs", "yEs"},
		{"~", nil}, {"", nil}, {"null", nil}, {"# nothing", nil}, {"---", nil},
		{"5", int64(5)}, {"+5", int64(5)}, {"-0", int64(0)}, {"00", int64(0)}, {"1_000", int64(1000)}, {"1_", int64(1)},
		{"017", int64(15)}, {"0_7", int64(7)}, {"0o17", "0o17"}, {"09", "09"}, {"0x1F", int64(31)}, {"-0b1", int64(-1)},
		{"1:30", int64(90)}, {"190:20:30", int64(685230)}, {"1:60", "1:60"}, {"01:30", "01:30"},
		{"1180591620717411303424", big70},
		{"1.0", 1.0}, {"5.", 5.0}, {".5", 0.5}, {"-.5", "-.5"}, {"+0.5e-3", 0.0005}, {"08.5", 8.5}, {"1_0.5_0", 10.5},
		{"1e5", "1e5"}, {"1.0e5", "1.0e5"}, {"1.0e+5", 1e5}, {"1e+22", "1e+22"}, {"190:20:30.15", 685230.15},
		{".inf", math.Inf(1)}, {"-.INF", math.Inf(-1)}, {".nan", math.NaN()}, {"1..2", "1..2"}, {".", "."},
		{"2024-01-02", value.Date{Year: 2024, Month: 1, Day: 2}}, {"2024-1-2", "2024-1-2"},
		{"2024-01-02 03:04:05.5", half},
		{"2024-1-2T3:04:05.5Z", half.Time},
		{"2024-01-02 03:04:05 -5", moment(0, time.FixedZone("", -5*3600))},
		{"2024-01-02 03:04:05.1234567 +05:30", moment(123456, time.FixedZone("", 5*3600+1800))},
		{"2024-01-02T03:04:05+0530", "2024-01-02T03:04:05+0530"},
		{`"5"`, "5"}, {"'yes'", "yes"}, {"!!str 5", "5"}, {`!!int "5"`, int64(5)}, {`!!int "0x1f"`, int64(31)},
		{"!!float 5", 5.0}, {"!!float 1e5", 1e5}, {`!!bool "yes"`, true}, {`!!null ""`, nil}, {"! 5", int64(5)}, {"!!str", ""},
		{"!!binary aGk=", []byte("hi")}, {"!!binary |\n  aG\n  k=\n", []byte("hi")},
		{`!!timestamp "2024-01-02T03:04:05.5"`, half},
		{"!!set {a, b}", list{"a", "b"}}, {"!!omap [a: 1]", list{list{"a", int64(1)}}},
		{"!!pairs [a: 1, a: 2]", list{list{"a", int64(1)}, list{"a", int64(2)}}},
		{"{1: a, yes: b, 1.5: c, null: d, 2024-01-02: e}", dict{"1": "a", "true": "b", "1.5": "c", "null": "d", "2024-01-02": "e"}},
		{"{<<: {a: 1, b: 2}, b: 3}", dict{"a": int64(1), "b": int64(3)}},
		{"{<<: [{a: 1}, {a: 2}]}", dict{"a": int64(1)}},
		{`{"<<": 1}`, dict{"<<": int64(1)}},
		{"[&x [1], *x]", list{list{int64(1)}, list{int64(1)}}},
		{"a: &x {k: v}\nb:\n  <<: *x\n  c: 1\n", dict{"a": dict{"k": "v"}, "b": dict{"k": "v", "c": int64(1)}}},
		{"|\n  abc\n", "abc\n"}, {"> \n  a\n  b\n", "a b\n"}, {"- a\n- b", list{"a", "b"}}, {"? x", dict{"x": nil}},
		{"- - 1\n- k: [x, 'y']\n", list{list{int64(1)}, dict{"k": list{"x", "y"}}}},
		{"!!map {a: !!seq [1]}", dict{"a": list{int64(1)}}},
	}
	for _, tt := range tests {
		got, err := YAML.Decode([]byte(tt.in))
		if err != nil {
			t.Errorf("decode %q: %v", tt.in, err)
		} else if diff := same(tt.want, got); diff != "" {
			t.Errorf("decode %q: %s", tt.in, diff)
		}
	}
}

func TestDecodeYAMLErrors(t *testing.T) {
	t.Parallel()
	laughs := "a0: &a0 [lol, lol, lol]\n"
	for i := range 30 {
		a, b := string(rune('a'+i/10)), string(rune('a'+(i+1)/10))
		prev := "*" + a + string(rune('0'+i%10))
		this := b + string(rune('0'+(i+1)%10))
		laughs += this + ": &" + this + " [" + strings.Repeat(prev+", ", 9) + prev + "]\n"
	}
	for in, want := range map[string]string{
		"!!python/object:os.system {}":         "not safe to load",
		"!!python/object/apply:os.system [ls]": "not safe to load",
		"!foo bar":                             "not safe to load",
		"--- 1\n--- 2":                         "data after the end",
		"!!int 1.5":                            "invalid !!int",
		"!!bool 5":                             "invalid !!bool",
		"!!timestamp x":                        "invalid !!timestamp",
		"!!binary '?'":                         "illegal base64",
		"!!omap [1]":                           "something else than pairs",
		"2024-13-02":                           "invalid ISO 8601",
		"0x_":                                  "invalid",
		"[a, b]: c":                            "as key of a dict",
		"{<<: 1}":                              "only a mapping",
		"[":                                    "yaml",
		"a: b: c":                              "yaml",
		"*nowhere":                             "unknown anchor",
		"&a [*a]":                              "",
		"\x00":                                 "yaml",
		"1" + strings.Repeat("0", 5000):        "more than 4300 digits",
		laughs:                                 "aliases expand too far",
		strings.Repeat("[", 100_000):           "",
		strings.Repeat("- ", 100_000):          "",
		strings.Repeat("[1,", 900_000):         "too many parts",
		strings.Repeat("a", 17<<20):            "too large",
	} {
		v, err := YAML.Decode([]byte(in))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("decode %.40q = %.40v, %.200v; want %q", in, v, err, want)
		}
	}
}

// The texts were read back by PyYAML 6 to the same values. Those YAML has no form for come back as text.
func TestAppendYAML(t *testing.T) {
	t.Parallel()
	tests := []struct {
		value any
		want  string
		back  any // nil: value
	}{
		{nil, "null", nil}, {true, "true", nil}, {int64(-5), "-5", nil}, {big70, big70.String(), nil},
		{1.0, "1.0", nil}, {1e22, "1.0e+22", nil}, {1.5e-7, "1.5e-07", nil}, {5e-324, "5.0e-324", nil},
		{math.NaN(), ".nan", nil}, {math.Inf(1), ".inf", nil}, {math.Inf(-1), "-.inf", nil},
		{"yes", `"yes"`, nil}, {"1.0", `"1.0"`, nil}, {"", `""`, nil}, {"a: b #c\n", `"a: b #c\n"`, nil},
		{"é\u2028😀\u0085\x00\x7f\ufeff", `"\u00e9\u2028\U0001f600\u0085\u0000\u007f\ufeff"`, nil},
		{"\xff", `"\ufffd"`, "\ufffd"},
		{[]byte("hi"), `!!binary "aGk="`, nil},
		{localNoon, `!!timestamp "2024-01-02T03:04:05.000678"`, nil},
		{moment(6, plusTwo), `!!timestamp "2024-01-02T03:04:05.000006+02:00"`, nil},
		{moment(0, time.FixedZone("", 3600+1)), `!!timestamp "2024-01-02T02:04:04.000000+00:00"`, moment(-3601e6, time.UTC)},
		{value.Date{Year: 2024, Month: 1, Day: 2}, `!!timestamp "2024-01-02"`, nil},
		{value.TimeOfDay(time.Minute), `"00:01:00.000000"`, "00:01:00.000000"},
		{value.Decimal("1.50"), `"1.50"`, "1.50"},
		{sampleID, `"12345678-1234-4234-8234-123456789abc"`, sampleID.String()},
		{[]any{}, "[]", nil}, {map[string]any{}, "{}", nil},
		{[]any{int64(1), map[string]any{"k": []any{nil}}}, `[1, {"k": [null]}]`, nil},
		{map[string]any{strings.Repeat("k", 2000): int64(1)}, `{? "` + strings.Repeat("k", 2000) + `" : 1}`, nil},
	}
	for _, tt := range tests {
		got, err := YAML.Append([]byte("x"), tt.value)
		if err != nil || string(got) != "x"+tt.want+"\n" {
			t.Errorf("%v: %s, %v; want %s", tt.value, got, err, tt.want)
			continue
		}
		want := tt.back
		if want == nil {
			want = tt.value
		}
		again, err := YAML.Decode(got[1:])
		if diff := same(want, again); err != nil || diff != "" {
			t.Errorf("%s read back: %v %s", got, err, diff)
		}
	}
	if text, err := YAML.Append(nil, "\xed\xa0\x80"); err != nil || string(text) != "\"\\ud800\"\n" {
		t.Errorf("surrogate: %q, %v", text, err)
	}
}

func TestYAMLDepth(t *testing.T) {
	t.Parallel()
	deep := any(int64(1))
	for range maxYAMLDepth {
		deep = []any{deep}
	}
	if text, err := YAML.Append(nil, deep); err != nil {
		t.Error(err)
	} else if again, err := YAML.Decode(text); err != nil || !equal(deep, again) {
		t.Error("deepest list does not come back:", err)
	}
	for _, bad := range []any{[]any{deep}, make(chan int), new(big.Int).Exp(big.NewInt(10), big.NewInt(5000), nil)} {
		if _, err := YAML.Append(nil, bad); err == nil {
			t.Errorf("%T is written", bad)
		}
	}
}
