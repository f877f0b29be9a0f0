package protocol_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/serialization"
)

func addEnvelopes(f *testing.F) {
	for _, version := range versions {
		for _, raw := range loadGolden(f, version).Envelopes {
			f.Add([]byte(raw))
		}
	}
	f.Add([]byte(strings.Replace(withHeaders(`{"task": "t", "id": "i", "x": 1}`), `"W10="`, `5`, 1) + "\x00"))
	f.Add([]byte(strings.Replace(withHeaders(`{"task": "t", "id": "i"}`), `W10=`, "\xff", 1)))
	f.Add([]byte(withHeaders(`{"task": 5, "x": [NaN, 1e5], "id": "\ud800", "timelimit": [1], "stamps": {"a": 1}}`)))
}

// standardJSON replaces Python's three tokens outside of strings by null.
func standardJSON(raw []byte) []byte {
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); {
		if raw[i] == '"' {
			start := i
			for i++; i < len(raw) && raw[i] != '"'; i++ {
				if raw[i] == '\\' {
					i++
				}
			}
			i = min(i+1, len(raw))
			out = append(out, raw[start:i]...)
			continue
		}
		token := ""
		for _, t := range []string{"-Infinity", "Infinity", "NaN"} {
			if strings.HasPrefix(string(raw[i:min(i+len(t), len(raw))]), t) {
				token = t
				break
			}
		}
		if token != "" {
			out = append(out, "null"...)
			i += len(token)
			continue
		}
		out = append(out, raw[i])
		i++
	}
	return out
}

func FuzzDecodeEnvelope(f *testing.F) {
	addEnvelopes(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := protocol.DecodeEnvelope(raw)
		if err != nil {
			e, ok := errors.AsType[*protocol.EnvelopeError](err)
			if !ok || e.Offset < 0 || e.Offset > len(raw) {
				t.Fatalf("error %v of type %T", err, err)
			}
			if strings.HasPrefix(e.Reason, "not JSON") && json.Valid(standardJSON(raw)) {
				t.Fatalf("%q is JSON: %v", raw, e)
			}
			if m != nil {
				checkPartial(t, raw, m)
			}
			return
		}
		if !json.Valid(standardJSON(raw)) {
			t.Fatalf("%q was taken for JSON", raw)
		}
		out := protocol.AppendEnvelope(nil, m)
		if !json.Valid(standardJSON(out)) {
			t.Fatalf("%q became %q", raw, out)
		}
		again, err := protocol.DecodeEnvelope(out)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, out, err)
		}
		if m.Properties.DeliveryMode == 0 {
			m.Properties.DeliveryMode = 2
		}
		if m.Properties.DeliveryTag == "" {
			m.Properties.DeliveryTag = again.Properties.DeliveryTag
		}
		if again.Body == nil {
			again.Body = []byte{}
		}
		if diff := cmp.Diff(m, again, cmp.Transformer("sorted", sortedMalformed)); diff != "" {
			t.Fatalf("%q became %q: %s", raw, out, diff)
		}
	})
}

// checkPartial: what was readable of a bad envelope can be worked with like any message, and its headers are what they
// are in a good one.
func checkPartial(t *testing.T, raw []byte, m *protocol.Message) {
	t.Helper()
	if r, _ := protocol.DecodeRequest(m, jsonOnly); m.Headers.Task != "" && (r.ID != m.Headers.ID || r.Task != m.Headers.Task) {
		t.Fatalf("%q is a request of %q of %q", raw, r.ID, r.Task)
	}
	out := protocol.AppendEnvelope(nil, m)
	again, err := protocol.DecodeEnvelope(out)
	if err != nil {
		t.Fatalf("%q became %q: %v", raw, out, err)
	}
	for _, h := range []*protocol.Headers{&m.Headers, &again.Headers} {
		h.Extra, h.Malformed = nil, nil // a value with the defect in it is written as null
	}
	if diff := cmp.Diff(m.Headers, again.Headers); diff != "" {
		t.Fatalf("%q became %q: %s", raw, out, diff)
	}
}

// The value of a header is taken exactly when it is JSON, and survives with its bytes.
func FuzzHeaderValue(f *testing.F) {
	for _, v := range []string{`null`, `true`, `-1.5e+10`, `NaN`, `-Infinity`, `"\ud83d\u00e9\/"`, `[1, [], {"a": {}}]`, `{"__type__": 1}`} {
		f.Add("x", v)
		f.Add("timelimit", v)
		f.Add("stamps", v)
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		key, err := json.Marshal(name)
		if err != nil || !utf8.ValidString(value) {
			return
		}
		m, err := protocol.DecodeEnvelope([]byte(withHeaders(`{` + string(key) + `: ` + value + `}`)))
		isJSON := json.Valid(standardJSON([]byte(value)))
		if err != nil {
			if isJSON && len(value) < 500 { // longer ones may be too deep, or have too many digits
				t.Fatalf("%s: %v", value, err)
			}
			return
		}
		if !isJSON && !strings.Contains(value, ",") { // with a comma more headers may follow
			t.Fatalf("%q was taken for JSON", value)
		}
		text := strings.Trim(value, " \t\r\n")
		for _, h := range m.Headers.Extra {
			if isJSON && string(h.Value) != text {
				t.Fatalf("%q was kept as %q", text, h.Value)
			}
		}
	})
}

// sortedMalformed forgets the order in which malformed headers were met.
func sortedMalformed(h protocol.Headers) any {
	malformed := map[string]bool{}
	for _, name := range h.Malformed {
		malformed[name] = true
	}
	h.Malformed = nil
	type plain protocol.Headers
	return struct {
		Plain     plain
		Malformed map[string]bool
	}{plain(h), malformed}
}

func FuzzMarkRedelivered(f *testing.F) {
	addEnvelopes(f)
	f.Add([]byte(`{"properties":{"delivery_info":{}} }`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		marked, err := protocol.MarkRedelivered(raw)
		before, decodeErr := protocol.DecodeEnvelope(raw)
		if err != nil {
			if decodeErr == nil {
				t.Fatalf("%q can be decoded but not marked: %v", raw, err)
			}
			return
		}
		if !json.Valid(standardJSON(marked)) {
			t.Fatalf("%q became %q", raw, marked)
		}
		twice, err := protocol.MarkRedelivered(marked)
		if err != nil || string(twice) != string(marked) {
			t.Fatalf("%q became %q and then %q, %v", raw, marked, twice, err)
		}
		if decodeErr != nil {
			return
		}
		after, err := protocol.DecodeEnvelope(marked)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, marked, err)
		}
		if !after.Headers.Redelivered || !after.Properties.DeliveryInfo.Redelivered {
			t.Fatalf("%q is not marked", marked)
		}
		// The flag itself may have been there, right or malformed; all else is as before.
		for _, m := range []*protocol.Message{before, after} {
			m.Headers.Redelivered, m.Properties.DeliveryInfo.Redelivered = false, false
			m.Headers.Extra = without(m.Headers.Extra, "redelivered")
			m.Headers.Malformed = withoutName(m.Headers.Malformed, "redelivered")
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("%q became %q: %s", raw, marked, diff)
		}
	})
}

func FuzzMarkAttempts(f *testing.F) {
	addEnvelopes(f)
	f.Add([]byte(`{"properties":{"delivery_info":{}}, "headers": {"x-gelery-attempts": 3} }`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		marked, err := protocol.MarkAttempts(raw, 7)
		before, decodeErr := protocol.DecodeEnvelope(raw)
		if err != nil {
			if decodeErr == nil {
				t.Fatalf("%q can be decoded but not marked: %v", raw, err)
			}
			return
		}
		if !json.Valid(standardJSON(marked)) {
			t.Fatalf("%q became %q", raw, marked)
		}
		if twice, err := protocol.MarkAttempts(marked, 7); err != nil || string(twice) != string(marked) {
			t.Fatalf("%q became %q and then %q, %v", raw, marked, twice, err)
		}
		if decodeErr != nil {
			return
		}
		after, err := protocol.DecodeEnvelope(marked)
		if err != nil {
			t.Fatalf("%q became %q: %v", raw, marked, err)
		}
		if n := after.Headers.Attempts(); n != 7 {
			t.Fatalf("%q says %d attempts", marked, n)
		}
		for _, m := range []*protocol.Message{before, after} {
			m.Headers.Extra = without(m.Headers.Extra, protocol.AttemptsHeader)
		}
		if diff := cmp.Diff(before, after); diff != "" {
			t.Fatalf("%q became %q: %s", raw, marked, diff)
		}
	})
}

func without(headers []protocol.Header, name string) (kept []protocol.Header) {
	for _, h := range headers {
		if h.Name != name {
			kept = append(kept, h)
		}
	}
	return kept
}

func withoutName(names []string, name string) (kept []string) {
	for _, n := range names {
		if n != name {
			kept = append(kept, n)
		}
	}
	return kept
}

func FuzzDecodeRequest(f *testing.F) {
	for _, version := range versions {
		for _, raw := range loadGolden(f, version).Envelopes {
			m := decode(f, raw)
			f.Add(m.Headers.Task, m.ContentType, m.Headers.Compression, m.Headers.ETA, m.Body)
		}
	}
	f.Add("", "application/json", "", "", []byte(`{"task": "t", "id": "i", "utc": false, "eta": "2026-01-02"}`))
	accept := acceptAll(f)
	f.Fuzz(func(t *testing.T, task, contentType, compression, eta string, body []byte) {
		m := &protocol.Message{Headers: protocol.Headers{Task: task, ID: "i", ETA: eta, Compression: compression},
			ContentType: contentType, Body: body}
		r, err := protocol.DecodeRequest(m, accept)
		if r == nil {
			t.Fatal("no request")
		}
		if err != nil {
			e, ok := errors.AsType[*protocol.RequestError](err)
			if !ok || e.Kind < protocol.Undecodable || e.Kind > protocol.Malformed {
				t.Fatalf("error %v of type %T", err, err)
			}
			return
		}
		if r.Task == "" || r.ID == "" || r.Args == nil || r.Kwargs == nil || r.Protocol < 1 || r.Protocol > 2 {
			t.Fatalf("incomplete request %+v", r)
		}
		if _, ok := r.ETATime(); ok != (r.ETA != "") {
			t.Fatalf("eta %q has no time", r.ETA)
		}
		out, err := r.Message(protocol.Encoding{})
		if err != nil {
			return // a value only another serializer can write
		}
		if _, err := protocol.DecodeRequest(out, jsonOnly); err != nil {
			t.Fatalf("%q became %q: %v", body, out.Body, err)
		}
	})
}

func FuzzDecodeResult(f *testing.F) {
	for _, version := range versions {
		for name, text := range loadGolden(f, version).Results {
			_, format, _ := strings.Cut(name, ".")
			f.Add(format, resultBytes(text))
		}
	}
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		s, ok := serialization.Lookup(format)
		if !ok {
			return
		}
		m, err := protocol.DecodeResult(data, s)
		if err != nil {
			return
		}
		if m.Status == "" || m.Exception == nil && (m.Status == protocol.Failure || m.Status == protocol.Revoked) {
			t.Fatalf("%q is %+v", data, m)
		}
		if m.TaskID == "" {
			m.TaskID = "i"
		}
		out, err := protocol.AppendResult(nil, m, serialization.JSON)
		if err != nil {
			return // a value only another serializer can write
		}
		if isKnownSuccess(out, "json") != (m.Status == protocol.Success) {
			t.Fatalf("%q is recognized wrong", out)
		}
		again, err := protocol.DecodeResult(out, serialization.JSON)
		if err != nil {
			t.Fatalf("%q became %q: %v", data, out, err)
		}
		if again.Status != m.Status || again.TaskID != m.TaskID || !again.DateDone.Equal(m.DateDone) || len(again.Children) != len(m.Children) {
			t.Fatalf("%q became %q", data, out)
		}
	})
}

func FuzzParseTime(f *testing.F) {
	for _, s := range []string{"2026-01-02T03:04:05.678901+00:00", "2026-01-02T03:04:05Z", "2026-01-02", "2026-01-02 03:04:05.1+0130", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		when, err := protocol.ParseTime(s)
		if err != nil {
			return
		}
		again, err := protocol.ParseTime(protocol.FormatTime(when))
		if y := when.UTC().Year(); y < 1 || y > 9999 {
			return // the edge of the calendar, moved over it by its offset
		}
		if err != nil || !again.Equal(when) {
			t.Fatalf("%q is %v, then %v, %v", s, when, again, err)
		}
	})
}

func FuzzSignature(f *testing.F) {
	f.Add([]byte(`{"task": "tasks.add", "args": [10], "kwargs": {}, "options": {"link": {"task": "l"}}, "subtask_type": null, "immutable": false}`))
	f.Add([]byte(`{"task": "t", "chord_size": 3}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		v, err := serialization.DecodeJSON(data)
		if err != nil {
			return
		}
		s, err := protocol.SignatureFromValue(v)
		if err != nil {
			return
		}
		out := s.Value()
		for _, key := range []string{"task", "args", "kwargs", "options"} {
			if out[key] == nil {
				t.Fatalf("%s lost its %s", data, key)
			}
		}
		again, err := protocol.SignatureFromValue(out)
		if err != nil {
			t.Fatalf("%s became %v: %v", data, out, err)
		}
		text, err := serialization.AppendJSON(nil, out)
		if err != nil {
			t.Fatalf("%s cannot be written: %v", data, err)
		}
		textAgain, err := serialization.AppendJSON(nil, again.Value())
		if err != nil || len(text) != len(textAgain) {
			t.Fatalf("%s became %s and then %s, %v", data, text, textAgain, err)
		}
	})
}
