package rabbitmq

import (
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gelery/gelery/protocol/serialization"
)

// pyAMQP is what py-amqp packs; testdata/generate.py makes it. Tables and fields have one character for each byte.
type pyAMQP struct {
	Envelopes map[string]*string // nil: py-amqp cannot pack it
	BothWays  []jsonField        `json:"both_ways"`
	OneWay    []jsonField        `json:"one_way"`
}

type jsonField struct{ JSON, Field string }

func loadPyAMQP(t testing.TB) pyAMQP {
	t.Helper()
	data, err := os.ReadFile("testdata/py-amqp.json")
	if err != nil {
		t.Fatal(err)
	}
	var p pyAMQP
	if err := json.Unmarshal(data, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Envelopes) == 0 || len(p.BothWays) == 0 || len(p.OneWay) == 0 {
		t.Fatal("testdata/py-amqp.json is not complete")
	}
	return p
}

// latin1 undoes the one character for each byte.
func latin1(text string) []byte {
	data := make([]byte, 0, len(text))
	for _, r := range text {
		data = append(data, byte(r))
	}
	return data
}

// sameJSON compares two texts by the values Python would read.
func sameJSON(t testing.TB, got, want string) {
	t.Helper()
	g, err := serialization.DecodeJSON([]byte(got))
	if err != nil {
		t.Fatalf("%s: %v", got, err)
	}
	w, err := serialization.DecodeJSON([]byte(want))
	if err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	if diff := cmp.Diff(w, g, cmpopts.EquateNaNs()); diff != "" {
		t.Errorf("got %s, want %s", got, want)
	}
}

func fieldJSON(t testing.TB, raw []byte) string {
	t.Helper()
	r := tableReader{raw: raw}
	f, ok := r.field()
	if !ok || r.pos != len(raw) {
		t.Fatalf("%q is not a field: %v", raw, r.err)
	}
	text, err := appendFieldJSON(nil, f, 1)
	if err != nil {
		t.Fatalf("%q: %v", raw, err)
	}
	return string(text)
}

func TestFieldsOfPyAMQP(t *testing.T) {
	t.Parallel()
	p := loadPyAMQP(t)
	for _, c := range p.BothWays {
		raw := latin1(c.Field)
		sameJSON(t, fieldJSON(t, raw), c.JSON)
		if got, err := appendJSONField(nil, []byte(c.JSON), 1); err != nil || string(got) != string(raw) {
			t.Errorf("%s became %q (%v), py-amqp writes %q", c.JSON, got, err, raw)
		}
	}
	for _, c := range p.OneWay {
		sameJSON(t, fieldJSON(t, latin1(c.Field)), c.JSON)
	}
}

// The letters py-amqp does not write but RabbitMQ and other clients do.
func TestFieldsOfOthers(t *testing.T) {
	t.Parallel()
	for field, want := range map[string]string{
		"b\xfb":                             "-5",
		"B\xfb":                             "251",
		"s\xff\xfe":                         "-2",
		"u\xff\xfe":                         "65534",
		"i\xff\xff\xff\xff":                 "4294967295",
		"l\xff\xff\xff\xfe\xd5\xfa\x0e\x00": "-5000000000",
		"f\x3f\x80\x00\x00":                 "1.0",
		"f\x7f\xc0\x00\x00":                 "NaN",
		"t\x02":                             "true",
		"x\x00\x00\x00\x02hi":               `"hi"`,
		"x\x00\x00\x00\x03a\xffb":           `"a\udcffb"`,
		"T\xff\xff\xff\xff\xff\xff\xff\xff": "18446744073709551615",
		"D\xff\x80\x00\x00\x00":             "-2147483648e-255",
		"F\x00\x00\x00\x03\x01\xffV":        `{"\udcff": null}`,
	} {
		if got := fieldJSON(t, []byte(field)); got != want {
			t.Errorf("%q became %s, want %s", field, got, want)
		}
	}
}

func TestJSONThatIsNone(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", " ", "nul", "1 2", "01", "-", "1.", ".5", "1e", "+1", `"`, `"\x"`, `"\u12"`, `"\ud80"`, "\"\n\"", "\"\xff\"",
		"[", "[1", "[1,", "[1,]", "[,]", "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,}`, `{1:2}`, `{"a" 1}`, "]", "--1", "'a'",
		strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if got, err := appendJSONField(nil, []byte(text), 1); !errors.Is(err, errNotJSON) {
			t.Errorf("%q became %q, %v", text, got, err)
		}
	}
	deep := strings.Repeat("[", maxDepth-1) + strings.Repeat("]", maxDepth-1)
	if _, err := appendJSONField(nil, []byte(deep), 1); err != nil {
		t.Errorf("%d levels: %v", maxDepth-1, err)
	}
}

func TestJSONThatAMQPCannotCarry(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"9223372036854775808":                        "9223372036854775808",
		"[-9223372036854775809]":                     "-9223372036854775809",
		`{"` + strings.Repeat("k", 256) + `": null}`: "256 bytes",
	} {
		_, err := appendJSONField(nil, []byte(text), 1)
		if err == nil || errors.Is(err, errNotJSON) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want an error with %q", text, err, want)
		}
	}
}

func TestBrokenTables(t *testing.T) {
	t.Parallel()
	deep := []byte("V")
	for range maxDepth + 1 {
		deep = finishField(append(beginField(nil, 'A'), deep...), 0)
	}
	for name, c := range map[string]struct{ raw, json, err string }{
		"no value":       {"\x01aV\x01b", `{"a": null}`, "ends too early"},
		"name cut":       {"\x01aV\x05b", `{"a": null}`, "ends too early"},
		"value cut":      {"\x01aI\x00", `{}`, "ends too early"},
		"text cut":       {"\x01aS\xff\xff\xff\xffx", `{}`, "ends too early"},
		"length cut":     {"\x01aS\x00\x00", `{}`, "ends too early"},
		"unknown type":   {"\x01aV\x01bz1", `{"a": null}`, `unknown type 'z'`},
		"broken array":   {"\x01aA\x00\x00\x00\x03VVI\x01bV", `{"a": [null, null]}`, "ends too early"},
		"broken table":   {"\x01aF\x00\x00\x00\x04\x01bVI\x01bV", `{"a": {"b": null}}`, "ends too early"},
		"too deep":       {"\x01a" + string(deep), "", "deeper than"},
		"nothing at all": {"", "{}", ""},
	} {
		got, err := appendTableJSON(nil, []byte(c.raw), 1)
		if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: error %v, want %q", name, err, c.err)
		}
		if c.json != "" && string(got) != c.json {
			t.Errorf("%s: %s, want %s", name, got, c.json)
		}
		if _, err := serialization.DecodeJSON(got); c.json != "" && err != nil {
			t.Errorf("%s: %s: %v", name, got, err)
		}
		if shown := tableJSON([]byte("x"), []byte(c.raw)); string(shown) != "x"+string(got) {
			t.Errorf("%s: tableJSON says %s", name, shown)
		}
	}
}

func TestTableLookup(t *testing.T) {
	t.Parallel()
	raw := []byte("\x01aS\x00\x00\x00\x02hi\x01nL\xff\xff\xff\xff\xff\xff\xff\xff\x01vV" +
		"\x01dI\x00\x00\x00\x01\x01dI\x00\x00\x00\x02\x01!")
	for name, want := range map[string]any{"a": "hi", "n": int64(-1), "d": int64(2), "v": nil, "absent": nil} {
		if v, ok := tableLookup(raw, name); v != want || ok != (want != nil) {
			t.Errorf("%s is %v, %v, want %v", name, v, ok, want)
		}
	}
}
