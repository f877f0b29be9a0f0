package registry

import (
	"slices"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	t.Parallel()
	r := New[string]("transport", "broker", "redis://localhost:6379/0")
	r.Register("R", "rediss", "redis")
	r.Register("", "memory") // an opener's zero value is an opener too
	const noScheme, unknown = "has no scheme; expected for example redis://localhost:6379/0", "is unknown; known here: memory, redis, rediss"
	tests := []struct{ url, open, want string }{
		{"redis://h", "R", ""},
		{"rediss://h;redis://i", "R", ""},
		{"memory://", "", ""},
		{"amqp://u:SECRET@h", "", `broker URL scheme "amqp" ` + unknown},
		{"://h", "", `broker URL scheme "" ` + unknown},
		{"localhost:6379/0", "", `broker URL "localhost:6379/0" ` + noScheme},
		{"", "", `broker URL "" ` + noScheme},
		{"u:SECRET@h:6379/0", "", `broker URL "u:***@h:6379/0" ` + noScheme},
		{":SECRET@h", "", noScheme},
		{"redis:/u:SECRET@h", "", noScheme},
		{"redis//u:SECRET@h", "", noScheme},
		{"u:SECRET/0", "", noScheme},
		{"u:SEC;RET@h", "", noScheme},
		{"h/0?password=SECRET", "", noScheme},
		{"u:SECRET@redis://h", "", unknown},
	}
	for _, tt := range tests {
		open, err := r.Find(tt.url)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if open != tt.open || (err == nil) != (tt.want == "") || !strings.Contains(text, tt.want) {
			t.Errorf("%q: %q, %v; expected %q and an error with %q", tt.url, open, err, tt.open, tt.want)
		}
		if strings.Contains(text, "SECRET") || strings.Contains(text, "RET@") {
			t.Errorf("%q: the password is in %q", tt.url, text)
		}
	}
	if got := r.Schemes(); !slices.Equal(got, []string{"memory", "redis", "rediss"}) {
		t.Errorf("schemes are %v", got)
	}
}

func TestRegisterTwice(t *testing.T) {
	t.Parallel()
	r := New[int]("backends", "result backend", "redis://localhost:6379/1")
	r.Register(1, "redis")
	defer func() {
		if got := recover(); got != "backends: scheme redis registered twice" {
			t.Errorf("panic is %v", got)
		}
	}()
	r.Register(2, "redis")
}
