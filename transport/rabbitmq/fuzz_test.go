package rabbitmq

import (
	"bytes"
	"io"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/gelery/gelery/protocol/serialization"
)

// FuzzTable: any bytes are a table or an error, and what was read as JSON goes out and comes back as the same JSON.
func FuzzTable(f *testing.F) {
	p := loadPyAMQP(f)
	for _, table := range p.Envelopes {
		if table != nil {
			f.Add(latin1(*table))
		}
	}
	for _, c := range p.BothWays {
		f.Add(append([]byte("\x01x"), latin1(c.Field)...))
	}
	f.Add([]byte("\x01aD\x02\x00\x00\x01\x3a\x01bT\x00\x00\x00\x00\x00\x00\x00\x01\x01cx\x00\x00\x00\x01\xff" +
		"\x01cs\x00\x01\x02idi\x00\x00\x00\x01"))
	f.Add(tableOfDepth(maxDepth))
	f.Fuzz(func(t *testing.T, raw []byte) {
		text, err := appendTableJSON(nil, raw, 1)
		d := delivery(&amqp.Delivery{Headers: amqp.Table{rawKey: raw}}, "q")
		republishing(&amqp.Delivery{Headers: amqp.Table{rawKey: raw}}, tableEntry{"a", "b"})
		tableLookup(raw, "id")
		if err != nil {
			return // a known header may be judged before its inside is seen to be broken: d.Err need not be set
		}
		if d.Err != nil {
			t.Fatalf("%s was read, but as a message it is %v", text, d.Err)
		}
		packed, err := appendJSONField(nil, text, 0)
		if err != nil {
			if strings.Contains(err.Error(), "64 bits") || strings.Contains(err.Error(), "at most 255") {
				return // a timestamp beyond int64, a name that escaping has made longer
			}
			t.Fatalf("%s cannot be written: %v", text, err)
		}
		again, err := appendTableJSON(nil, packed[5:], 1)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(text, again) && !strings.Contains(string(text), "e-") {
			t.Fatalf("%s came back as %s", text, again)
		}
		p, err := publishing(d.Message)
		if err != nil {
			return
		}
		if d := delivery(received(p), "q"); d.Err != nil {
			t.Fatalf("%q was published: %v", p.Headers[rawKey], d.Err)
		}
	})
}

// FuzzJSONField: what is taken for JSON is JSON to the decoder of bodies too, with the same value.
func FuzzJSONField(f *testing.F) {
	for _, c := range loadPyAMQP(f).BothWays {
		f.Add([]byte(c.JSON))
	}
	f.Add([]byte(`{"a": [1, "\u20ac", {"b": -1.5e-3}], "a": NaN}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		field, err := appendJSONField(nil, text, 1)
		if err != nil {
			return
		}
		r := tableReader{raw: field}
		got, ok := r.field()
		if !ok || r.pos != len(field) {
			t.Fatalf("%s became %q", text, field)
		}
		back, err := appendFieldJSON(nil, got, 1)
		if err != nil {
			t.Fatalf("%s became %q: %v", text, field, err)
		}
		if _, err := serialization.DecodeJSON(text); err != nil {
			return // of a typed object kombu does not accept
		}
		sameJSON(t, string(back), string(text))
	})
}

// FuzzSocket: however the stream is cut, what comes out is the same; what is no AMQP passes, and nothing grows.
func FuzzSocket(f *testing.F) {
	all := ""
	for _, c := range rewrites {
		f.Add([]byte(c.broker), uint16(3))
		all += c.broker
	}
	f.Add([]byte(all), uint16(11))
	f.Add([]byte(contentHeader(0, flagHeaders, wrapped(pythonTable))), uint16(1))
	f.Fuzz(func(t *testing.T, data []byte, n uint16) {
		pieces := split(string(data), int(n)+1)
		conn := &stream{pieces: pieces}
		s := newSocket(conn, 0)
		s.frameMax.Store(4096)
		got, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		whole := newSocket(&stream{pieces: [][]byte{data}}, 0)
		whole.frameMax.Store(4096)
		if want, _ := io.ReadAll(whole); !bytes.Equal(got, want) {
			t.Fatalf("pieces of %d: read %q, at once %q", n+1, got, want)
		}
		if len(got) > len(data)+wrapLength*(len(data)/propertiesAt) {
			t.Fatalf("%d bytes became %d", len(data), len(got))
		}
		for _, p := range append([][]byte{[]byte(greeting)}, split(string(got), int(n)+1)...) {
			if _, err := s.Write(p); err != nil {
				t.Fatal(err)
			}
		}
		if sent := conn.written(); len(s.pending) > 0 || len(sent) > len(greeting)+len(got)+len(got)/propertiesAt {
			t.Fatalf("%d bytes became %d, %d are pending", len(got), len(sent), len(s.pending))
		}
		if cap(s.in.part) > keptBuffer+len(data) || cap(s.out.part) > keptBuffer+len(data) {
			t.Fatalf("buffers of %d and %d bytes are kept", cap(s.in.part), cap(s.out.part))
		}
	})
}
