package healthserver

import "testing"

func TestAddress(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{"": "", "8080": "127.0.0.1:8080", ":8080": "127.0.0.1:8080", "0.0.0.0:80": "0.0.0.0:80",
		"[::1]:80": "[::1]:80", "box": "!", "box:http2": "!", "70000": "!", "a:b:1": "!"} {
		got, err := Address(addr)
		if (err != nil) != (want == "!") || err == nil && got != want {
			t.Errorf("%q is %q, %v; want %q", addr, got, err, want)
		}
	}
}
