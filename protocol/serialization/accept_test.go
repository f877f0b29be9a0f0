package serialization

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestRegistry(t *testing.T) {
	t.Parallel()
	for _, name := range Names() {
		s, ok := Lookup(name)
		if !ok || s.Name() != name {
			t.Errorf("Lookup(%q) = %v, %v", name, s, ok)
			continue
		}
		if again, ok := Lookup(s.ContentType()); !ok || again != s {
			t.Errorf("Lookup(%q) = %v, %v", s.ContentType(), again, ok)
		}
	}
	if want := []string{"json", "msgpack", "yaml", "pickle", "raw"}; !slices.Equal(Names(), want) {
		t.Errorf("Names() = %v, want %v", Names(), want)
	}
	if s, ok := Lookup("JSON"); ok {
		t.Errorf("Lookup(JSON) = %v; names are case-sensitive", s)
	}
}

func accept(tb testing.TB, names ...string) Accept {
	tb.Helper()
	a, err := NewAccept(names...)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

func TestAcceptAllows(t *testing.T) {
	t.Parallel()
	both := accept(t, "yaml", "application/x-msgpack")
	tests := []struct {
		a    Accept
		mime string
		want bool
	}{
		{Accept{}, "application/json", true},
		{Accept{}, "application/json; charset=utf-8", false},
		{Accept{}, "Application/JSON", false},
		{Accept{}, "json", false},
		{Accept{}, "", true},
		{Accept{}, "application/data", true},
		{Accept{}, "application/text", true},
		{Accept{}, "text/plain", false},
		{Accept{}, "application/x-yaml", false},
		{Accept{}, "application/x-python-serialize", false},
		{both, "application/x-yaml", true},
		{both, "application/x-msgpack", true},
		{both, "application/json", false},
		{accept(t), "application/json", false},
	}
	for _, tt := range tests {
		if got := tt.a.Allows(tt.mime); got != tt.want {
			t.Errorf("%v allows %q: %v, want %v", tt.a, tt.mime, got, tt.want)
		}
	}
	if _, err := NewAccept("json", "xml"); err == nil || !strings.Contains(err.Error(), `"xml"; known are json, msgpack`) {
		t.Errorf("unknown name: %v", err)
	}
}

func TestAcceptDecode(t *testing.T) {
	t.Parallel()
	tests := []struct {
		contentType, encoding, body string
		want                        any
	}{
		{"application/json", "utf-8", `[1]`, []any{int64(1)}},
		{"application/json", "binary", `[1]`, []any{int64(1)}},
		{"application/json", "utf-8", ``, ""},
		{"application/x-yaml", "utf-8", `[yes]`, []any{true}},
		{"", "", "é", "é"},
		{"application/data", "binary", "\xff", []byte("\xff")},
		{"application/data", "BINARY", "", []byte{}},
		{"application/data", "utf-8", "x", "x"},
		{"application/text", "us-ascii", "x", "x"},
		{"application/text", "latin-1", "\xe9", "é"},
	}
	a := accept(t, "json", "yaml")
	for _, tt := range tests {
		got, err := a.Decode(tt.contentType, tt.encoding, []byte(tt.body))
		if diff := same(tt.want, got); err != nil || diff != "" {
			t.Errorf("%+v: %v %s", tt, err, diff)
		}
	}
}

func TestAcceptDecodeErrors(t *testing.T) {
	t.Parallel()
	for contentType, want := range map[string]string{
		"application/x-yaml":              "Refusing to deserialize untrusted content of type yaml (application/x-yaml)",
		"application/x-python-serialize":  "Refusing to deserialize untrusted content of type pickle (application/x-python-serialize)",
		"text/plain":                      "Refusing to deserialize untrusted content of type text/plain (text/plain)",
		"application/json; charset=utf-8": "Refusing to deserialize untrusted content of type application/json; charset=utf-8 (application/json; charset=utf-8)",
	} {
		v, err := Accept{}.Decode(contentType, "utf-8", []byte("1"))
		var refused *ContentDisallowed
		if !errors.As(err, &refused) || err.Error() != want || refused.ContentType != contentType {
			t.Errorf("%s: %v, %v; want %s", contentType, v, err, want)
		}
	}
	for _, tt := range [][3]string{
		{"application/json", "utf-8", "["},
		{"application/data", "utf-8", "\xff"},
		{"application/data", "us-ascii", "\xff"},
		{"application/data", "utf-16", "x"},
	} {
		v, err := Accept{}.Decode(tt[0], tt[1], []byte(tt[2]))
		var de *DecodeError
		if !errors.As(err, &de) || de.ContentType != tt[0] {
			t.Errorf("%v: %v, %v", tt, v, err)
		}
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	for _, in := range []any{"ab", []byte("ab")} {
		if got, err := Raw.Append([]byte("x"), in); err != nil || string(got) != "xab" {
			t.Errorf("%q, %v", got, err)
		}
	}
	var ee *EncodeError
	if _, err := Raw.Append(nil, 1); !errors.As(err, &ee) {
		t.Errorf("an int goes raw: %v", err)
	}
	data := []byte("ab")
	got, err := Raw.Decode(data)
	data[0] = 'x'
	if s, ok := got.([]byte); err != nil || !ok || string(s) != "ab" {
		t.Errorf("%v, %v: not a copy", got, err)
	}
}

// A small body must not cost much more than its size.
//
//nolint:paralleltest // measures what the process allocates
func TestBombs(t *testing.T) {
	tests := []struct {
		name  string
		s     Serializer
		body  string
		limit uint64
	}{
		{"nested json", JSON, strings.Repeat("[", 10<<20), 1 << 20},
		{"digits", JSON, strings.Repeat("9", 10<<20), 1 << 20},
		{"nested yaml", YAML, strings.Repeat("[", 1<<20), 256 << 20},
		{"long pickle", Pickle, "L" + strings.Repeat("9", 10<<20) + "L\n.", 1 << 20},
		{"claimed pickle", Pickle, "\x80\x04\x8e\xff\xff\xff\xff\x00\x00\x00\x00x.", 1 << 20},
	}
	for _, tt := range tests {
		var err error
		spent := allocated(func() { _, err = tt.s.Decode([]byte(tt.body)) })
		spent -= uint64(len(tt.body)) // the copy made here
		if err == nil || int64(spent) > int64(tt.limit) {
			t.Errorf("%s: %v, %d bytes allocated", tt.name, err, spent)
		}
	}
}
