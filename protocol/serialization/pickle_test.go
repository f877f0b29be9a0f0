package serialization

import (
	"bytes"
	"encoding/base64"
	"errors"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/gelery/gelery/protocol/value"
)

// allocated measures what f allocates. Tests that use it do not run in parallel.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func unbase64(tb testing.TB, text string) []byte {
	tb.Helper()
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		tb.Fatal(err)
	}
	return data
}

// What CPython 3.11's pickle.dumps wrote in the protocols named.
var pickleGolden = []struct {
	name, data string
	want       any
}{
	{"none 4", "gAROLg==", nil},
	{"bool 0", "STAxCi4=", true},
	{"int 4", "gARLBS4=", int64(5)},
	{"big 0", "TDExODA1OTE2MjA3MTc0MTEzMDM0MjRMCi4=", new(big.Int).Lsh(big.NewInt(1), 70)},
	{"big 4", "gASVDAAAAAAAAACKCQAAAAAAAAAAQC4=", new(big.Int).Lsh(big.NewInt(1), 70)},
	{"min 4", "gASVCwAAAAAAAACKCAAAAAAAAACALg==", int64(-1 << 63)},
	{"float 4", "gASVCgAAAAAAAABHP/gAAAAAAAAu", 1.5},
	{"str 0", "VukKcDAKLg==", "é"},
	{"str 4", "gASVBgAAAAAAAACMAsOplC4=", "é"},
	{"bytes 0", "Y19jb2RlY3MKZW5jb2RlCnAwCihW/wpwMQpWbGF0aW4xCnAyCnRwMwpScDQKLg==", []byte("\xff")},
	{"bytes 4", "gASVBQAAAAAAAABDAf+ULg==", []byte("\xff")},
	{"bytearray 5", "gAWVDAAAAAAAAACWAQAAAAAAAAB4lC4=", []byte("x")},
	{"list 4", "gASVDQAAAAAAAABdlChLAUsCSwOGlGUu", []any{int64(1), []any{int64(2), int64(3)}}},
	{"dict 4", "gASVDgAAAAAAAAB9lCiMAWGUSwFLAk51Lg==", map[string]any{"a": int64(1), "2": nil}},
	{"naive 0", "Y2RhdGV0aW1lCmRhdGV0aW1lCnAwCihjX2NvZGVjcwplbmNvZGUKcDEKKFYH6AECAwQFXHUwMDAwAqYKcDIKVmxhdGluMQpwMwp0cDQKUnA1CnRwNgpScDcKLg==", localNoon},
	{"naive 4", "gASVKgAAAAAAAACMCGRhdGV0aW1llIwIZGF0ZXRpbWWUk5RDCgfoAQIDBAUAAqaUhZRSlC4=", localNoon},
	{"utc 4", "gASVVwAAAAAAAACMCGRhdGV0aW1llIwIZGF0ZXRpbWWUk5RDCgfoAQIDBAUAAACUaACMCHRpbWV6b25llJOUaACMCXRpbWVkZWx0YZSTlEsASwBLAIeUUpSFlFKUhpRSlC4=", moment(0, time.UTC)},
	{"zone 2", "gAJjZGF0ZXRpbWUKZGF0ZXRpbWUKcQBjX2NvZGVjcwplbmNvZGUKcQFYCwAAAAfDqAECAwQFAAAAcQJYBgAAAGxhdGluMXEDhnEEUnEFY2RhdGV0aW1lCnRpbWV6b25lCnEGY2RhdGV0aW1lCnRpbWVkZWx0YQpxB0r/////SigEAQBLAIdxCFJxCYVxClJxC4ZxDFJxDS4=", moment(0, time.FixedZone("", -(5*3600+1800)))},
	{"date 4", "gASVIAAAAAAAAACMCGRhdGV0aW1llIwEZGF0ZZSTlEMEB+gBApSFlFKULg==", value.Date{Year: 2024, Month: 1, Day: 2}},
	{"time 4", "gASVIgAAAAAAAACMCGRhdGV0aW1llIwEdGltZZSTlEMGAQIDAAAElIWUUpQu", value.TimeOfDay(time.Hour + 2*time.Minute + 3*time.Second + 4*time.Microsecond)},
	{"timedelta 4", "gASVJwAAAAAAAACMCGRhdGV0aW1llIwJdGltZWRlbHRhlJOUSv////9LBUsAh5RSlC4=", -86395.0},
	{"decimal 4", "gASVIgAAAAAAAACMB2RlY2ltYWyUjAdEZWNpbWFslJOUjAQxLjUwlIWUUpQu", value.Decimal("1.50")},
	{"set 2", "gAJjX19idWlsdGluX18Kc2V0CnEAXXEBSwFhhXECUnEDLg==", []any{int64(1)}},
}

func TestPickle(t *testing.T) {
	t.Parallel()
	for _, tt := range pickleGolden {
		got, err := Pickle.Decode(unbase64(t, tt.data))
		if diff := same(tt.want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", tt.name, err, diff)
		}
	}
	if _, err := Pickle.Append(nil, 1); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("pickle was written: %v", err)
	}
}

func TestPickleErrors(t *testing.T) {
	t.Parallel()
	laughs := []byte{0x80, 4, 'N', 'q', 0}
	for i := range byte(60) { // x1 = (x0, x0), x2 = (x1, x1), ...
		laughs = append(laughs, 'h', i, 'h', i, 0x86, 'q', i+1)
	}
	for want, data := range map[string][]byte{
		`class "posix.system"`: []byte("cposix\nsystem\n(S'ls'\ntR."),
		`class "uuid.UUID"`:    unbase64(t, "gASVIAAAAAAAAACMBHV1aWSUjARVVUlElJOUKYGUfZSMA2ludJRLBXNiLg=="),
		`class "a.b"`:          []byte("ca\nb\n."),
		"a set is not":         unbase64(t, "gASVBwAAAAAAAACPlChLAZAu"),
		"more than 4300":       []byte("L" + strings.Repeat("1", 5000) + "L\n."),
		"unexpected end":       []byte("\x80\x04X\xff\xff\xff\xff"),
		"persistent":           []byte("\x80\x04NQ."),
		"expand too far":       append(laughs, '.'),
		"too deep":             append(bytes.Repeat([]byte("("), 1000), append([]byte("N"), append(bytes.Repeat([]byte("t"), 1000), '.')...)...),
		"too large":            make([]byte, 17<<20),
		"empty":                nil,
	} {
		v, err := Pickle.Decode(data)
		if want == "empty" {
			want = "unexpected end"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %.40v, %v", want, v, err)
		}
	}
}

func TestPickleIsWritten(t *testing.T) {
	t.Parallel()
	big70 := new(big.Int).Lsh(big.NewInt(1), 70)
	deep := any(int64(1))
	for range 400 {
		deep = []any{deep}
	}
	for _, v := range []any{nil, true, false, int64(0), int64(255), int64(256), int64(-1), int64(-129), int64(1) << 40, int64(-1) << 63, big70,
		new(big.Int).Neg(big70), new(big.Int).Neg(new(big.Int).Lsh(big.NewInt(1), 64)), new(big.Int).Lsh(big.NewInt(1), 5000), 1.5, -0.25, "", "é\n", strings.Repeat("x", 300),
		"\xed\xa0\x80", []byte{}, []byte("\x00\xff"), bytes.Repeat([]byte{7}, 70_000), []any{}, []any{int64(1), []any{"a", nil}}, map[string]any{},
		map[string]any{"a": int64(1), "b": map[string]any{"c": []any{}}}, deep, moment(0, time.UTC), moment(4000, time.FixedZone("", -(5*3600+1800))),
		localNoon, value.Date{Year: 2024, Month: 1, Day: 2}, value.TimeOfDay(23*time.Hour + 4*time.Microsecond), value.Decimal("-1.50"),
		uuid.MustParse("12345678-1234-5678-1234-567812345678")} {
		data, err := AppendPickle(nil, v)
		if err != nil {
			t.Errorf("%.40v: %v", v, err)
			continue
		}
		got, err := Pickle.Decode(data)
		if diff := same(v, got); err != nil || diff != "" {
			t.Errorf("%.40v: %v %s", v, err, diff)
		}
	}
	data, err := AppendPickle([]byte("before"), Dict{"exc_message": Tuple{"a", int64(1)}})
	if want := "before\x80\x04}(\x8c\x0bexc_message(\x8c\x01aK\x01tu."; err != nil || string(data) != want {
		t.Errorf("%q, %v", data, err)
	}
	cycle := map[string]any{}
	cycle["self"] = cycle
	for _, v := range []any{func() {}, cycle, Tuple{make(chan int)}, []any{Tuple{func() {}}}, time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		var bad *EncodeError
		if _, err := AppendPickle(nil, v); !errors.As(err, &bad) {
			t.Errorf("%T is written: %v", v, err)
		}
	}
}

func TestPickledObjects(t *testing.T) {
	t.Parallel()
	object := &Object{Module: "celery.result", Name: "GroupResult", Args: []any{"id", []any{&Object{Module: "a", Name: "B", Args: []any{nil}}}}}
	written := &Object{Module: "celery.result", Name: "GroupResult", Args: []any{"id", []*Object{{Module: "a", Name: "B", Args: []any{nil}}}}}
	data, err := AppendPickle(nil, written)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodePickle(data)
	if d := cmp.Diff(object, got); err != nil || d != "" {
		t.Error(err, d)
	}
	if v, err := Pickle.Decode(data); err == nil {
		t.Errorf("an object is read as a value: %v", v)
	}
	if v, err := DecodePickle(unbase64(t, "gASVIAAAAAAAAACMBHV1aWSUjARVVUlElJOUKYGUfZSMA2ludJRLBXNiLg==")); err == nil {
		t.Errorf("an object with a state is read: %v", v)
	}
}

func FuzzPickle(f *testing.F) {
	for _, tt := range pickleGolden {
		f.Add(unbase64(f, tt.data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := Pickle.Decode(data)
		if err != nil {
			return
		}
		if text, err := AppendJSON(nil, v); err == nil {
			if _, err := DecodeJSON(text); err != nil {
				t.Fatalf("%q becomes %q: %v", data, text, err)
			}
		}
	})
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{"{a: [1, 1.5, yes, ~], b: !!binary aGk=}", "- &a [1]\n- *a\n", "? x\n: |\n  y\n", "2024-01-02 03:04:05 -5", "{<<: {a: 1}}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) { roundTrip(t, YAML, data) })
}
