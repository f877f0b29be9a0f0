package protocol

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol/serialization"
)

// FuzzDecodePidbox wants any message to be an error or a request that can be written, and read again as the same.
func FuzzDecodePidbox(f *testing.F) {
	for _, body := range []string{
		`{"method": "ping", "arguments": {}, "destination": null, "pattern": null, "matcher": null, "ticket": "t", "reply_to": {"exchange": "e", "routing_key": "k"}}`,
		`{"method": "revoke", "arguments": {"task_id": ["a"], "terminate": true, "signal": "SIGTERM"}, "destination": ["w1@h", "w2@h"]}`,
		`{"method": "ping", "destination": "w1@h", "pattern": "w*", "matcher": "glob"}`,
		`{"method": "x", "arguments": {"n": NaN, "i": Infinity, "big": 123456789012345678901234567890}}`,
		`{"method": 7}`, `{"method": "x", "arguments": []}`, `{"method": "x", "reply_to": "y"}`, `{"method": "x", "destination": [7]}`, `[]`, `null`, ``,
	} {
		f.Add([]byte(body), []byte("1"), []byte("1795342477.93"))
	}
	f.Fuzz(func(t *testing.T, body, clock, expires []byte) {
		m := &Message{ContentType: "application/json", ContentEncoding: "utf-8", Body: body}
		m.Headers.Extra = []Header{{"clock", clock}, {"expires", expires}}
		r, err := DecodePidbox(m, serialization.Accept{})
		if err != nil {
			return
		}
		if r.Method == "" || r.Arguments == nil || r.Clock < 0 {
			t.Fatalf("%+v", r)
		}
		again, err := r.Message(serialization.JSON)
		if err != nil {
			t.Fatalf("%+v: %v", r, err)
		}
		first := again.Body
		r2, err := DecodePidbox(again, serialization.Accept{})
		if err != nil {
			t.Fatalf("%s: %v", first, err)
		}
		if again, err = r2.Message(serialization.JSON); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(first), string(again.Body)); diff != "" {
			t.Errorf("it is read anew as another: %s", diff)
		}
	})
}
