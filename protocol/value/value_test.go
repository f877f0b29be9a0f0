package value

import (
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

var compareBig = cmp.Comparer(func(a, b *big.Int) bool {
	return a == b || a != nil && b != nil && a.Cmp(b) == 0
})

type color int

func (c color) MarshalText() ([]byte, error) { return []byte([]string{"red", "green"}[c]), nil }

func (c *color) UnmarshalText(text []byte) error {
	switch string(text) {
	case "red":
		*c = 0
	case "green":
		*c = 1
	default:
		return errors.New("no such color")
	}
	return nil
}

type celsius struct{ degrees float64 }

func (c *celsius) MarshalJSON() ([]byte, error) { return json.Marshal(map[string]any{"c": c.degrees}) }

func (c *celsius) UnmarshalJSON(data []byte) error {
	var v map[string]float64
	err := json.Unmarshal(data, &v)
	c.degrees = v["c"]
	return err
}

type pair struct{ a, b int }

func (p pair) MarshalValue() (any, error) { return []int{p.a, p.b}, nil }

func (p *pair) UnmarshalValue(v any) error {
	var list [2]int
	err := Assign(&list, v)
	p.a, p.b = list[0], list[1]
	return err
}

type Base struct {
	ID   int
	Name string
}

type inner struct{ Note string }

type person struct {
	Base
	inner
	Name     string `json:"full_name,omitempty"`
	HTTPPort uint16
	Email    *string `task:"email"`
	Secret   string  `task:"-"`
	Hidden   string  `json:"-"`
	Parent   *person `task:"parent,omitempty"`
	private  int
}

type (
	name  string
	level int8
	blob  []byte
	flags map[level]bool
)

func ptr[T any](v T) *T { return &v }

func TestOf(t *testing.T) {
	t.Parallel()
	big70 := new(big.Int).Lsh(big.NewInt(1), 70)
	at := time.Date(2024, 1, 2, 3, 4, 5, 678901, plusTwo)
	tests := []struct {
		name     string
		in, want any
	}{
		{"nil", nil, nil},
		{"ints", []any{int8(1), int16(2), int32(3), uint8(4), uint16(5), uint32(6), uint(7), uint64(8), 9},
			[]any{int64(1), int64(2), int64(3), int64(4), int64(5), int64(6), int64(7), int64(8), int64(9)}},
		{"uint64", uint64(math.MaxUint64), new(big.Int).SetUint64(math.MaxUint64)},
		{"small big", big.NewInt(5), int64(5)},
		{"big", big70, big70},
		{"big value", *big70, big70},
		{"nil big", (*big.Int)(nil), nil},
		{"named", []any{name("n"), level(-3), blob("b"), color(1)}, []any{"n", int64(-3), []byte("b"), "green"}},
		{"float32", float32(0.5), 0.5},
		{"nil slice", []string(nil), []any{}},
		{"nil list", []any(nil), []any{}},
		{"nil map", map[string]int(nil), map[string]any{}},
		{"nil pointer", (*int)(nil), nil},
		{"pointer", ptr(ptr(5)), int64(5)},
		{"array", [2]bool{true}, []any{true, false}},
		{"byte array", [3]byte{1, 2, 3}, []byte{1, 2, 3}},
		{"int keys", map[int]string{5: "x"}, map[string]any{"5": "x"}},
		{"bool keys", map[bool]int{true: 1}, map[string]any{"true": int64(1)}},
		{"text keys", map[color]int{1: 1}, map[string]any{"green": int64(1)}},
		{"any keys", map[any]int{1.5: 1, nil: 2, "s": 3}, map[string]any{"1.5": int64(1), "null": int64(2), "s": int64(3)}},
		{"named map", flags{1: true}, map[string]any{"1": true}},
		{"time", at, at.Truncate(time.Microsecond)},
		{"duration", 1500 * time.Millisecond, 1.5},
		{"number", []any{json.Number("1"), json.Number("1.0"), json.Number(big70.String())}, []any{int64(1), 1.0, big70}},
		{"raw", json.RawMessage(`{"a":[1,1.5]}`), map[string]any{"a": []any{int64(1), 1.5}}},
		{"json method on pointer", celsius{20}, map[string]any{"c": int64(20)}},
		{"nil json method", (*celsius)(nil), nil},
		{"value method", []pair{{1, 2}}, []any{[]any{int64(1), int64(2)}}},
		{"text method", netip.MustParseAddr("10.0.0.1"), "10.0.0.1"},
		{"uuid", sampleID, sampleID},
		{"sql", []any{sql.NullString{String: "x", Valid: true}, sql.NullInt64{}}, []any{"x", nil}},
		{"struct", person{Base: Base{ID: 1, Name: "base"}, Name: "full", HTTPPort: 80, Secret: "s", private: 1},
			map[string]any{"id": int64(1), "name": "base", "note": "", "full_name": "full", "http_port": int64(80), "email": nil}},
		{"recursive struct", &person{Parent: &person{Email: ptr("e")}},
			map[string]any{"id": int64(0), "name": "", "note": "", "http_port": int64(0), "email": nil,
				"parent": map[string]any{"id": int64(0), "name": "", "note": "", "http_port": int64(0), "email": "e"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := Of(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, compareBig); diff != "" {
				t.Error(diff)
			}
			again, err := Of(got)
			if diff := cmp.Diff(got, again, compareBig); diff != "" || err != nil {
				t.Errorf("Of is not idempotent: %v %s", err, diff)
			}
		})
	}
}

func TestOfErrors(t *testing.T) {
	t.Parallel()
	cycle := []any{nil}
	cycle[0] = cycle
	type node struct{ Next *node }
	ring := &node{}
	ring.Next = ring
	type twice struct {
		A int `task:"x"`
		B int `task:"x"`
	}
	tests := map[string]any{
		"[0]: cannot send chan int":            []any{make(chan int)},
		"k.f: cannot send func()":              map[string]any{"k": struct{ F func() }{func() {}}},
		"nested deeper than 500 levels":        cycle,
		"nested deeper than 500":               ring,
		"two fields are named":                 twice{},
		"year is outside":                      time.Date(10000, 1, 1, 0, 0, 0, 0, utc),
		"cannot send value.Date: invalid date": Date{2024, 2, 30},
		"cannot send value.TimeOfDay":          TimeOfDay(25 * time.Hour),
		"unknown tag option \"preset=1\"": struct {
			A int `task:"a,preset=1"`
		}{},
		"expected str or int as key of a dict, got value.Base": map[any]any{Base{}: 1},
	}
	for want, in := range tests {
		if got, err := Of(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Of(%T) = %v, %v; want error with %q", in, got, err, want)
		}
	}
	if _, err := Of(cycle); !errors.Is(err, ErrDepth) {
		t.Errorf("%v is not ErrDepth", err)
	}
}

type assignTest struct {
	src  any
	want any // its type is the destination
}

func assignTests() []assignTest {
	big70 := new(big.Int).Lsh(big.NewInt(1), 70)
	at := time.Date(2024, 1, 2, 3, 4, 5, 678000, plusTwo)
	atLocal := local(time.Date(2024, 1, 2, 3, 4, 5, 0, utc))
	return []assignTest{
		{int64(5), 5},
		{int64(-128), int8(-128)},
		{int64(255), uint8(255)},
		{big70, *big70},
		{big70, big70},
		{int64(3), big.NewInt(3)},
		{new(big.Int).SetUint64(math.MaxUint64), uint64(math.MaxUint64)},
		{int64(2), 2.0},
		{big70, float64(1 << 70)},
		{1.5, float32(1.5)},
		{math.Inf(1), math.Inf(1)},
		{true, true},
		{"s", "s"},
		{"s", name("s")},
		{[]byte("b"), []byte("b")},
		{[]byte("b"), blob("b")},
		{nil, (*int)(nil)},
		{int64(5), ptr(5)},
		{nil, []int(nil)},
		{nil, map[string]int(nil)},
		{[]any{}, []int{}},
		{[]any{int64(1), int64(2)}, []int8{1, 2}},
		{[]any{int64(1), int64(2)}, [2]int{1, 2}},
		{[]byte{1, 2}, [2]byte{1, 2}},
		{map[string]any{"a": int64(1)}, map[string]int{"a": 1}},
		{map[string]any{"5": true}, flags{5: true}},
		{map[string]any{"green": int64(1)}, map[color]int{1: 1}},
		{at, at},
		{atLocal, atLocal.Time},
		{atLocal, atLocal},
		{"2024-01-02T03:04:05", atLocal.Time},
		{"2024-01-02T03:04:05", atLocal},
		{Date{2024, 1, 2}, Date{2024, 1, 2}},
		{"2024-01-02T00:00:00", Date{2024, 1, 2}},
		{"00:01:00", TimeOfDay(time.Minute)},
		{"1.50", Decimal("1.50")},
		{int64(7), Decimal("7")},
		{Decimal("NaN"), Decimal("NaN")},
		{sampleID, sampleID},
		{sampleID.String(), sampleID},
		{sampleID, [16]byte(sampleID)},
		{sampleID.String(), [16]byte(sampleID)},
		{int64(3), 3 * time.Second},
		{1.5, 1500 * time.Millisecond},
		{"green", color(1)},
		{map[string]any{"c": 20.5}, celsius{20.5}},
		{[]any{int64(1), int64(2)}, pair{1, 2}},
		{"10.0.0.1", netip.MustParseAddr("10.0.0.1")},
		{"x", sql.NullString{String: "x", Valid: true}},
		{nil, sql.NullInt64{}},
		{map[string]any{"a": []any{int64(1), 1.5, nil}}, json.RawMessage(`{"a":[1,1.5,null]}`)},
		{map[string]any{"id": int64(1), "note": "n", "email": "e", "unknown": 1, "parent": map[string]any{"id": int64(2)}},
			person{Base: Base{ID: 1}, inner: inner{"n"}, Email: ptr("e"), Parent: &person{Base: Base{ID: 2}}}},
		{[]any{map[string]any{"id": int64(1)}}, []Base{{ID: 1}}},
		{[]string{"a"}, []string{"a"}}, // not canonical
	}
}

func TestAssign(t *testing.T) {
	t.Parallel()
	for _, tt := range assignTests() {
		dst := reflect.New(reflect.TypeOf(tt.want))
		if err := Assign(dst.Interface(), tt.src); err != nil {
			t.Errorf("Assign(*%T, %#v): %v", tt.want, tt.src, err)
			continue
		}
		got := dst.Elem().Interface()
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("Assign(*%T, %#v) gave %#v, want %#v", tt.want, tt.src, got, tt.want)
		}
	}
	var v any = 5
	if err := Assign(&v, nil); err != nil || v != nil {
		t.Errorf("None into any: %v, %v", v, err)
	}
	src := map[string]any{"k": []any{1.5}}
	if err := Assign(&v, src); err != nil || !reflect.DeepEqual(v, any(src)) {
		t.Errorf("dict into any: %v, %v", v, err)
	}
	type holder struct{ *Base }
	var h holder
	if err := Assign(&h, map[string]any{"id": int64(3)}); err != nil || h.Base == nil || h.ID != 3 {
		t.Errorf("embedded pointer: %+v, %v", h, err)
	}
	if h = (holder{}); Assign(&h, map[string]any{}) != nil || h.Base != nil {
		t.Errorf("embedded pointer made for nothing: %+v", h)
	}
}

func TestAssignErrors(t *testing.T) {
	t.Parallel()
	tests := []struct {
		dst, src any
		want     string
	}{
		{new(int), "5", `expected int, got str "5"`},
		{new(int), nil, "expected int, got None"},
		{new(int), 2.0, "expected int, got float 2.0"},
		{new(int), true, "expected int, got bool True"},
		{new(int8), int64(300), "expected int8, got int 300"},
		{new(uint), int64(-1), "expected uint, got int -1"},
		{new(uint8), int64(256), "expected uint8, got int 256"},
		{new(int64), new(big.Int).Lsh(big.NewInt(1), 64), "expected int64, got int 18446744073709551616"},
		{new(float32), 1e300, "expected float32, got float 1e+300"},
		{new(float64), "1.5", `expected float, got str "1.5"`},
		{new(float64), new(big.Int).Lsh(big.NewInt(1), 2000), "expected float, got int <int of 2001 bits>"},
		{new(bool), int64(1), "expected bool, got int 1"},
		{new(string), []byte("x"), "expected str, got bytes"},
		{new([]byte), "x", `expected bytes, got str "x"`},
		{new([]int), "x", `expected list, got str "x"`},
		{new([]int), []any{int64(1), "x"}, `[1]: expected int, got str "x"`},
		{new([2]int), []any{int64(1)}, "expected list of 2, got list of 1"},
		{new([4]byte), []byte{1}, "expected 4 bytes, got bytes"},
		{new(map[string]int), []any{}, "expected dict, got list of 0"},
		{new(map[int]int), map[string]any{"x": int64(1)}, `x: expected int, got str "x": invalid syntax`},
		{new(map[int8]int), map[string]any{"300": int64(1)}, `300: expected int8, got str "300": value out of range`},
		{new(person), map[string]any{"parent": map[string]any{"http_port": int64(70000)}}, "parent.http_port: expected uint16, got int 70000"},
		{new(map[string][]Base), map[string]any{"k": []any{map[string]any{"id": nil}}}, "k[0].id: expected int, got None"},
		{new(time.Time), int64(1), "expected datetime, got int 1"},
		{new(time.Time), "soon", `expected datetime, got str "soon": invalid ISO 8601 date "soon"`},
		{new(LocalTime), "2024-01-02T03:04:05Z", `has a time zone`},
		{new(Date), int64(1), "expected date, got int 1"},
		{new(TimeOfDay), 1.5, "expected time, got float 1.5"},
		{new(Decimal), 1.5, "expected Decimal, got float 1.5"},
		{new(Decimal), "1.2.3", `invalid decimal "1.2.3"`},
		{new(uuid.UUID), "x", "invalid UUID"},
		{new(time.Duration), 1e300, "longer than a time.Duration holds"},
		{new(time.Duration), math.NaN(), "longer than a time.Duration holds"},
		{new(time.Duration), int64(math.MaxInt64), "longer than a time.Duration holds"},
		{new(color), "blue", `expected value.color, got str "blue": no such color`},
		{new(color), int64(1), "expected value.color, got int 1"},
		{new(pair), []any{int64(1)}, "expected list of 2, got list of 1"},
		{new(chan int), int64(1), "no value can be stored in a chan int"},
		{new(error), "x", "no value can be stored in a error"},
		{5, int64(1), "assign needs a pointer"},
		{(*int)(nil), int64(1), "assign needs a pointer"},
	}
	for _, tt := range tests {
		err := Assign(tt.dst, tt.src)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Assign(%T, %#v) = %v, want %q", tt.dst, tt.src, err, tt.want)
		}
	}
	var te *TypeError
	err := WithPath(Assign(new(int), "5"), "x")
	if !errors.As(err, &te) || te.Path != "x" || te.Want != "int" || err.Error() != `x: expected int, got str "5"` {
		t.Errorf("got %v", err)
	}
}

func TestParseDecimal(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"1", "-1.50", "+.5", "5.", "1E+5", "1e-400", "NaN", "-Infinity", "sNaN"} {
		if got, err := ParseDecimal(good); err != nil || string(got) != good {
			t.Errorf("ParseDecimal(%q) = %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{"", ".", "-", "e5", "1e", "1.2.3", "1x", "0x1", "1e5.5", "nan\x00"} {
		if got, err := ParseDecimal(bad); err == nil {
			t.Errorf("ParseDecimal(%q) = %q, want an error", bad, got)
		}
	}
}

func TestSnakeCase(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"X": "x", "UserID": "user_id", "HTTPServer": "http_server", "A1B": "a1_b", "Snake_Case": "snake_case", "ÄpfelÖl": "äpfel_öl",
	} {
		if got := SnakeCase(in); got != want {
			t.Errorf("SnakeCase(%s) = %s, want %s", in, got, want)
		}
	}
}

func TestFields(t *testing.T) {
	t.Parallel()
	type args struct {
		UserID int            `task:"uid,posonly"`
		Limit  int            `task:",default=10,kwonly"`
		Rest   map[string]any `task:"kwargs,remain"`
		More   []any          `task:"args,varargs"`
		Plain  string         `json:"p,omitempty,string"`
	}
	fields, err := Fields(reflect.TypeFor[args]())
	if err != nil {
		t.Fatal(err)
	}
	want := []Field{
		{Name: "uid", PosOnly: true}, {Name: "limit", Default: ptr("10"), KwOnly: true},
		{Name: "kwargs", Remain: true}, {Name: "args", VarArgs: true}, {Name: "p", OmitEmpty: true},
	}
	for i := range want {
		want[i].Index = []int{i}
		want[i].Type = reflect.TypeFor[args]().Field(i).Type
	}
	if !reflect.DeepEqual(fields, want) {
		t.Errorf("got  %+v\nwant %+v", fields, want)
	}
}

// FuzzAssign reads arbitrary values into types of every kind; what fits must come back the same.
func FuzzAssign(f *testing.F) {
	f.Add(`{"id": 1, "tags": ["a"], "port": 80, "at": "2024-01-02", "n": {"5": 1.5}}`)
	f.Add(`[1, null, {"a": 1e400}]`)
	f.Add(`"12345678-1234-4234-8234-123456789abc"`)
	type record struct {
		ID   int
		Tags []string
		Port uint16
		At   time.Time
		N    map[int8]float64
		Next *record
		Any  any
		U    uuid.UUID
		D    Decimal
		Raw  json.RawMessage
		C    color
		Arr  [2]bool
	}
	f.Fuzz(func(t *testing.T, text string) {
		src, err := Of(json.RawMessage(text))
		if err != nil {
			return
		}
		Repr(src, 100)
		for _, dst := range []any{new(record), new([]record), new(map[string]record), new(time.Duration), new(uint8),
			new(sql.NullTime), new([16]byte), new(big.Int), new(pair)} {
			if Assign(dst, src) != nil {
				continue
			}
			canonical, err := Of(dst)
			if err != nil {
				continue // a year beyond Python's
			}
			again := reflect.New(reflect.TypeOf(dst).Elem()).Interface()
			if err := Assign(again, canonical); err != nil {
				t.Fatalf("%T from %s: %v", dst, text, err)
			}
			if second, err := Of(again); err != nil || !cmp.Equal(canonical, second, compareBig) {
				t.Fatalf("%T from %s: %v\n%s", dst, text, err, cmp.Diff(canonical, second, compareBig))
			}
		}
	})
}

func BenchmarkOfStruct(b *testing.B) {
	v := Base{1, "x"}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Of(v); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAssignStruct(b *testing.B) {
	assign, err := AssignerFor(reflect.TypeFor[Base]())
	if err != nil {
		b.Fatal(err)
	}
	var src any = map[string]any{"id": int64(1), "name": "x"}
	dst := reflect.New(reflect.TypeFor[Base]()).Elem()
	b.ReportAllocs()
	for b.Loop() {
		if err := assign(dst, src); err != nil {
			b.Fatal(err)
		}
	}
}
