package value

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

var (
	utc       = time.UTC
	plusTwo   = time.FixedZone("", 2*3600)
	minusHalf = time.FixedZone("", -(5*3600 + 1800))
	sampleID  = uuid.MustParse("12345678123442348234123456789abc")
)

func local(t time.Time) LocalTime { return LocalTime{t} }

// The right-hand sides are Python's own repr.
func TestRepr(t *testing.T) {
	t.Parallel()
	tests := []struct {
		in   any
		want string
	}{
		{nil, "None"},
		{true, "True"},
		{false, "False"},
		{int64(-5), "-5"},
		{7, "7"},
		{new(big.Int).Lsh(big.NewInt(1), 70), "1180591620717411303424"},
		{1.0, "1.0"},
		{1e22, "1e+22"},
		{1e16, "1e+16"},
		{9999999999999998.0, "9999999999999998.0"},
		{1e-5, "1e-05"},
		{0.0001, "0.0001"},
		{math.Copysign(0, -1), "-0.0"},
		{5e-324, "5e-324"},
		{math.MaxFloat64, "1.7976931348623157e+308"},
		{123456789.125, "123456789.125"},
		{math.NaN(), "nan"},
		{math.Inf(1), "inf"},
		{math.Inf(-1), "-inf"},
		{"x", "'x'"},
		{"it's", `"it's"`},
		{`a"b`, `'a"b'`},
		{`it's "q"`, `'it\'s "q"'`},
		{`\`, `'\\'`},
		{"é", "'é'"},
		{"\n\t\r\x00\x7f", `'\n\t\r\x00\x7f'`},
		{"\u200b", `'\u200b'`},
		{"\u00a0", `'\xa0'`},
		{"\xed\xa0\x80", `'\ud800'`},
		{"\xff", `'\udcff'`},
		{"\U0001F600", "'\U0001F600'"},
		{"\U000e0001", `'\U000e0001'`},
		{[]byte("ab"), "b'ab'"},
		{[]byte("\x00\xff'"), `b"\x00\xff'"`},
		{[]byte(`a'"`), `b'a\'"'`},
		{[]any{}, "[]"},
		{[]any{int64(1), []any{int64(2)}}, "[1, [2]]"},
		{map[string]any{}, "{}"},
		{map[string]any{"b": true, "a": []any{int64(1), nil}}, "{'a': [1, None], 'b': True}"},
		{local(time.Date(2024, 1, 2, 3, 4, 5, 678000, utc)), "datetime.datetime(2024, 1, 2, 3, 4, 5, 678)"},
		{local(time.Date(2024, 1, 2, 3, 4, 0, 0, utc)), "datetime.datetime(2024, 1, 2, 3, 4)"},
		{local(time.Date(2024, 1, 2, 0, 0, 0, 0, utc)), "datetime.datetime(2024, 1, 2, 0, 0)"},
		{time.Date(2024, 1, 2, 3, 4, 5, 0, utc), "datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=datetime.timezone.utc)"},
		{time.Date(2024, 1, 2, 3, 4, 5, 6000, plusTwo),
			"datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(seconds=7200)))"},
		{time.Date(2024, 1, 2, 3, 4, 5, 6000, minusHalf),
			"datetime.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=datetime.timezone(datetime.timedelta(days=-1, seconds=66600)))"},
		{Date{2024, 1, 2}, "datetime.date(2024, 1, 2)"},
		{TimeOfDay(time.Hour + 2*time.Minute + 3*time.Second + 4*time.Microsecond), "datetime.time(1, 2, 3, 4)"},
		{TimeOfDay(time.Hour + 2*time.Minute), "datetime.time(1, 2)"},
		{Decimal("1.50"), "Decimal('1.50')"},
		{sampleID, "UUID('12345678-1234-4234-8234-123456789abc')"},
		{struct {
			UserID int
			Tags   []string
		}{5, nil}, "{'tags': [], 'user_id': 5}"},
		{make(chan int), "<chan int>"},
	}
	for _, tt := range tests {
		if got := Repr(tt.in, 0); got != tt.want {
			t.Errorf("Repr(%#v) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

func TestReprTuple(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]any{
		"()":             nil,
		"(1,)":           {1},
		"(1, 'x', None)": {int64(1), "x", nil},
	} {
		if got := ReprTuple(args, 100); got != want {
			t.Errorf("ReprTuple(%v) = %s, want %s", args, got, want)
		}
	}
}

func TestReprBound(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("é", 5000)
	many := make([]any, 5000)
	dict := map[string]any{}
	ints := make([]int32, 1_000_000)
	for i := range many {
		many[i] = i
		dict[fmt.Sprint(i)] = i
	}
	var deep any = []any{}
	for range 2000 {
		deep = []any{deep}
	}
	for name, v := range map[string]any{
		"str": long, "bytes": []byte(long), "list": many, "dict": dict, "slice": ints, "deep": deep,
		"bigint": new(big.Int).Lsh(big.NewInt(1), 1<<24), "nested": []any{long, many, dict},
	} {
		got := Repr(v, 100)
		if len(got) > 100+64 && name != "deep" || len(got) < 10 {
			t.Errorf("%s: %d bytes: %.200s", name, len(got), got)
		}
		if name != "bigint" && !strings.Contains(got, "...") {
			t.Errorf("%s: no ellipsis in %s", name, got)
		}
	}
	if got, want := Repr([]any{"aaaaaaaaaa", 1, 2}, 8), "['aaaaaa...', ...]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

//nolint:paralleltest // measures what the process allocates
func TestReprAllocations(t *testing.T) {
	args := []any{int64(2), "three", 4.5, nil, []any{true}}
	if n := testing.AllocsPerRun(100, func() { ReprTuple(args, 1024) }); n > 2 {
		t.Errorf("%v allocations, want the text and its buffer", n)
	}
}

func BenchmarkReprTuple(b *testing.B) {
	args := []any{int64(2), int64(3), "name", map[string]any{"k": 1.5}}
	b.ReportAllocs()
	for b.Loop() {
		ReprTuple(args, 1024)
	}
}
