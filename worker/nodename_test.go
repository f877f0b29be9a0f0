package worker

import (
	"os"
	"testing"
)

func TestNodeName(t *testing.T) {
	t.Parallel()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for pattern, want := range map[string]string{"": "celery@" + host, "w1": "celery@w1", "w1@%h": "w1@" + host, "a@b.c": "a@b.c", "x%%@y": "x%@y",
		"@foo": "celery@foo", "a@": "a@" + host, "@": "celery@" + host} {
		if got, err := NodeName(pattern); got != want || err != nil {
			t.Errorf("NodeName(%q) = %q, %v; expected %q", pattern, got, err, want)
		}
	}
	for _, bad := range []string{"a b@c", "a@b\n", "w1@%x", "50%@b", "a\x00@b", "a\x1b[2J@b", "\xff@b"} {
		if got, err := NodeName(bad); err == nil {
			t.Errorf("NodeName(%q) = %q; expected an error", bad, got)
		}
	}
}
