package protocol_test

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
)

// TestAppendEvent: to the byte what Celery 5.6 has sent.
func TestAppendEvent(t *testing.T) {
	t.Parallel()
	const want = `{"hostname": "w1@h1", "utcoffset": 0, "pid": 15478, "clock": 6, "uuid": "7dcf", "name": "tasks.add", "args": "(1, 2)", ` +
		`"parent_id": null, "root_id": "7dcf", "retries": 0, "loadavg": [2.19, 1.0, 0.48], "runtime": 0.00042, "terminated": false, ` +
		`"timestamp": 1795342073.013439, "type": "task-received"}`
	e := &protocol.Event{Type: "task-received", Hostname: "w1@h1", PID: 15478, Clock: 6, Timestamp: time.UnixMicro(1795342073013439)}
	got := e.End(e.Begin(nil).Text("uuid", "7dcf").Text("name", "tasks.add").Text("args", "(1, 2)").OptionalText("parent_id", "").
		OptionalText("root_id", "7dcf").Int("retries", 0).Floats("loadavg", 2.19, 1, 0.48).Float("runtime", 0.00042).Bool("terminated", false))
	if string(got) != want {
		t.Errorf("%s; want\n%s", got, want)
	}
	e.Fields = []protocol.EventField{{Name: "uuid", Value: "7dcf"}, {Name: "name", Value: "tasks.add"}, {Name: "args", Value: "(1, 2)"},
		{Name: "parent_id"}, {Name: "root_id", Value: "7dcf"}, {Name: "retries", Value: 0}, {Name: "loadavg", Value: []any{2.19, 1.0, 0.48}},
		{Name: "runtime", Value: 0.00042}, {Name: "terminated", Value: false}}
	got, err := protocol.AppendEvent(nil, e)
	if short := strings.ReplaceAll(want, "2.19, 1.0, 0.48", "2.19,1.0,0.48"); err != nil || string(got) != short {
		t.Errorf("%v\n%s; want\n%s", err, got, short)
	}
	if _, err := protocol.AppendEvent(nil, &protocol.Event{Fields: []protocol.EventField{{Name: "x", Value: func() {}}}}); err == nil {
		t.Error("a function is written")
	}
}

// TestTimestamp: what is written for a time is the shortest text of its float.
func TestTimestamp(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		micros := r.Int64N(1e16)
		switch i % 4 {
		case 1:
			micros -= micros % 1000
		case 2:
			micros -= micros % 1e6
		case 3:
			micros = 1.7e15 + micros%1e14
		}
		got := (&protocol.Event{Timestamp: time.UnixMicro(micros)}).End(nil)
		want := append(value.AppendFloat([]byte(`, "timestamp": `), float64(micros)/1e6), `, "type": ""}`...)
		if string(got) != string(want) {
			t.Fatalf("%d: %s; want %s", micros, got, want)
		}
	}
}

func TestDecodeEvents(t *testing.T) {
	t.Parallel()
	full := protocol.Event{Type: "worker-heartbeat", Hostname: "w1@h1", UTCOffset: -2, PID: 3, Clock: 9,
		Timestamp: time.UnixMicro(1795342073013439), Fields: []protocol.EventField{{Name: "freq", Value: 2.0}, {Name: "sw_ver", Value: "5.6.2"}}}
	const text = `{"hostname": "w1@h1", "utcoffset": -2, "pid": 3, "clock": 9, "freq": 2.0, "sw_ver": "5.6.2", "timestamp": 1795342073.013439, "type": "worker-heartbeat"}`
	bare := protocol.Event{Type: "x", Hostname: "sender", Fields: []protocol.EventField{}}
	for body, want := range map[string]struct {
		events []protocol.Event
		failed bool
	}{
		text:                           {events: []protocol.Event{full}},
		"[" + text + ", " + text + "]": {events: []protocol.Event{full, full}},
		"[]":                           {events: []protocol.Event{}},
		`{"type": "x"}`:                {events: []protocol.Event{bare}},
		`[{"type": 5}, {"type": "x"}]`: {events: []protocol.Event{bare}, failed: true},
		`{"type": "x", "hostname": 3, "clock": "9", "timestamp": "now", "utcoffset": 99, "pid": 1e300}`: {events: []protocol.Event{bare}},
		`{"type": "x", "clock": 1e19, "timestamp": NaN, "pid": NaN, "utcoffset": Infinity}`:             {events: []protocol.Event{bare}},
		`{"type": "x", "clock": 99999999999999999999999, "timestamp": 1e200}`:                           {events: []protocol.Event{bare}},
		`{"type": ""}`: {events: []protocol.Event{}, failed: true},
		`"text"`:       {events: []protocol.Event{}, failed: true},
		`{`:            {failed: true},
	} {
		m := protocol.NewEventMessage("sender", []byte(body))
		got, err := protocol.DecodeEvents(m, jsonOnly)
		if diff := cmp.Diff(want.events, got); diff != "" || (err != nil) != want.failed {
			t.Errorf("%s: %v %s", body, err, diff)
		}
	}
	m := protocol.NewEventMessage("sender", []byte("{}"))
	m.ContentType = "application/x-yaml"
	if _, err := protocol.DecodeEvents(m, jsonOnly); err == nil {
		t.Error("a type that is not accepted is read")
	}
	if m = protocol.NewEventMessage("sender", make([]byte, 17<<20)); true {
		if _, err := protocol.DecodeEvents(m, jsonOnly); err == nil {
			t.Error("17 MiB are read")
		}
	}
}

func TestUTCOffset(t *testing.T) {
	t.Parallel()
	for east, want := range map[time.Duration]int{0: 0, 2 * time.Hour: -2, -5 * time.Hour: 5, 5*time.Hour + 30*time.Minute: -6, -3*time.Hour - 30*time.Minute: 3} {
		if got := protocol.UTCOffset(time.Now().In(time.FixedZone("", int(east.Seconds())))); got != want {
			t.Errorf("%v east is %d; want %d", east, got, want)
		}
	}
}

// FuzzEvent: whatever an event is made of, its message has all that a Python worker needs not to end. Without a type or a
// hostname, or with text for a clock, one that listens does.
func FuzzEvent(f *testing.F) {
	f.Add("worker-online", "w1@h1", 0, 1, int64(1), int64(1795342073013439), "uuid", "text", 1.5)
	f.Add("", "", -99, -1, int64(math.MinInt64), int64(math.MaxInt64), "type", "\xff", math.NaN())
	f.Add("a\x00b", "hostname", 0, 0, int64(0), int64(math.MinInt64), "hostname", "\"", math.Inf(1))
	f.Fuzz(func(t *testing.T, kind, host string, offset, pid int, clock, at int64, name, text string, n float64) {
		e := &protocol.Event{Type: kind, Hostname: host, UTCOffset: offset, PID: pid, Clock: clock, Timestamp: time.UnixMicro(at),
			Fields: []protocol.EventField{{Name: name, Value: text}, {Name: "n", Value: n}, {Name: "clock", Value: "x"}}}
		body, err := protocol.AppendEvent(nil, e)
		if err != nil {
			t.Fatal(err)
		}
		var members struct {
			Type, Hostname *string
			Clock, PID     *json.Number
			UTCOffset      *int
			Timestamp      *float64
		}
		if err := json.Unmarshal(standardJSON(body), &members); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		if members.Type == nil || members.Hostname == nil || members.Clock == nil || members.PID == nil || members.UTCOffset == nil || members.Timestamp == nil {
			t.Fatalf("something is missing: %s", body)
		}
		m := protocol.NewEventMessage(host, body)
		if m.Headers.Extra[0].Name != "hostname" || !json.Valid(m.Headers.Extra[0].Value) {
			t.Fatalf("header %s", m.Headers.Extra[0].Value)
		}
		if _, err := protocol.DecodeEvents(m, jsonOnly); err != nil && kind != "" {
			t.Fatalf("%v: %s", err, body)
		}
	})
}

// FuzzDecodeEvents: no message of anybody's does harm.
func FuzzDecodeEvents(f *testing.F) {
	f.Add([]byte(`[{"type": "task-received", "uuid": "x", "clock": 3, "timestamp": 1.5}]`), "application/json")
	f.Add([]byte(`[[[[`), "application/json")
	f.Fuzz(func(_ *testing.T, body []byte, contentType string) {
		m := protocol.NewEventMessage("h", body)
		m.ContentType = contentType
		events, _ := protocol.DecodeEvents(m, jsonOnly)
		for i := range events {
			_, _, _ = events[i].Group(), events[i].RoutingKey(), events[i].Text("uuid")
		}
	})
}
