package protocol_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/compression"
	"github.com/gelery/gelery/protocol/serialization"
)

var (
	jsonOnly   serialization.Accept
	ignoreTime = cmpopts.IgnoreUnexported(protocol.Request{})
	goldenTime = time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.UTC)
)

func acceptAll(t testing.TB) serialization.Accept {
	t.Helper()
	a, err := serialization.NewAccept("json", "yaml", "msgpack")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Every request of every golden message says what Celery was told to send.
func TestDecodeRequestGolden(t *testing.T) {
	t.Parallel()
	one := []any{int64(1)}
	sig := func(args []any, immutable bool) protocol.Signature {
		return protocol.Signature{Task: "tasks.add", Args: args, Kwargs: map[string]any{}, Options: map[string]any{}, Immutable: immutable}
	}
	tests := map[string]struct {
		args   []any
		kwargs map[string]any
		embed  protocol.Embed
	}{
		"plain":           {args: []any{int64(2), int64(3)}, kwargs: map[string]any{"debug": true}},
		"options":         {args: []any{int64(2)}},
		"float_timelimit": {args: []any{int64(2)}},
		"gzip":            {args: []any{strings.Repeat("a", 50)}},
		"stamps":          {args: one},
		"unicode":         {args: []any{"é😀"}},
		"property":        {args: one},
		"yaml":            {args: one},
		"msgpack":         {args: one},
		"link": {args: []any{int64(1), int64(2)}, embed: protocol.Embed{
			Callbacks: []protocol.Signature{sig(one, false), sig([]any{int64(1), int64(2)}, true)},
			Errbacks:  []protocol.Signature{sig([]any{int64(3)}, false)}}},
		"v1": {args: []any{int64(2), int64(3)}, kwargs: map[string]any{"debug": true},
			embed: protocol.Embed{Callbacks: []protocol.Signature{sig(one, false)}}},
	}
	for _, version := range versions {
		g := loadGolden(t, version)
		for name, tt := range tests {
			t.Run(version+"/"+name, func(t *testing.T) {
				t.Parallel()
				m := decode(t, g.Envelopes[name])
				r, err := protocol.DecodeRequest(m, acceptAll(t))
				if err != nil {
					t.Fatal(err)
				}
				if tt.kwargs == nil {
					tt.kwargs = map[string]any{}
				}
				want := &protocol.Request{Headers: m.Headers, Properties: m.Properties, Args: tt.args, Kwargs: tt.kwargs,
					Embed: tt.embed, Protocol: 2}
				if name == "v1" {
					want.Protocol = 1
					want.Headers = protocol.Headers{Task: "tasks.add", ID: "task-1", Group: "g", TimeLimit: protocol.TimeLimit{Hard: 5},
						ETA: "2026-01-02T03:04:05.678901+00:00", Expires: "2026-01-02T03:04:05.678901+00:00"}
				}
				if diff := cmp.Diff(want, r, ignoreTime); diff != "" {
					t.Error(diff)
				}
				eta, hasETA := r.ETATime()
				expires, expiring := r.ExpiresTime()
				if timed := name == "options" || name == "v1"; hasETA != timed || expiring != timed ||
					timed && (!eta.Equal(goldenTime) || !expires.Equal(goldenTime)) {
					t.Errorf("eta %v %v, expires %v %v", eta, hasETA, expires, expiring)
				}
			})
		}
	}
}

func TestDecodeRequestGoldenChain(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		g := loadGolden(t, version)
		r, err := protocol.DecodeRequest(decode(t, g.Envelopes["chain"]), jsonOnly)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(r.Embed.Chain); n != 2 || r.Embed.Chain[0].Args[0] != int64(4) || r.Embed.Chain[1].Options["task_id"] == "" {
			t.Errorf("%s: chain %+v", version, r.Embed.Chain)
		}
		r, err = protocol.DecodeRequest(decode(t, g.Envelopes["chord"]), jsonOnly)
		if err != nil {
			t.Fatal(err)
		}
		if r.Embed.Chord == nil || r.Embed.Chord.Task != "tasks.tsum" || r.Group == "" || r.GroupIndex == nil || *r.GroupIndex != 0 {
			t.Errorf("%s: chord %+v in group %q", version, r.Embed.Chord, r.Group)
		}
	}
}

const tripleBody = `[[1], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]`

// The table of what a Python worker does with bad messages: ours does the same, or stores a failure where Python dies.
func TestDecodeRequestRefuses(t *testing.T) {
	t.Parallel()
	const u, d, n, m = protocol.Undecodable, protocol.Disallowed, protocol.NotATask, protocol.Malformed
	const j = "application/json"
	const v2 = `{"task": "t", "id": "i"}`
	tests := []struct {
		name, contentType, headers, body string
		kind                             protocol.RequestErrorKind
	}{
		{"task null", j, `{"task": null, "id": "i"}`, tripleBody, m},
		{"task a number", j, `{"task": 5, "id": "i"}`, tripleBody, m},
		{"yaml not accepted", "application/x-yaml", v2, `[[1], {}, {}]`, d},
		{"pickle not accepted", "application/x-python-serialize", v2, `N.`, d},
		{"type with parameter", "application/json; charset=utf-8", v2, tripleBody, d},
		{"type unknown", "application/whatever", v2, tripleBody, d},
		{"eta garbage", j, `{"task": "t", "id": "i", "eta": "soon"}`, tripleBody, m},
		{"eta empty", j, `{"task": "t", "id": "i", "eta": ""}`, tripleBody, m},
		{"eta a number", j, `{"task": "t", "id": "i", "eta": 1764000000}`, tripleBody, m},
		{"expires garbage", j, `{"task": "t", "id": "i", "expires": "2026-13-01T00:00:00"}`, tripleBody, m},
		{"expires a number", j, `{"task": "t", "id": "i", "expires": 60}`, tripleBody, m},
		{"bad json", j, v2, `[[1], {}`, u},
		{"bad compression", j, `{"task": "t", "id": "i", "compression": "application/x-gzip"}`, tripleBody, u},
		{"unknown compression", j, `{"task": "t", "id": "i", "compression": "rot13"}`, tripleBody, u},
		{"compression a number", j, `{"task": "t", "id": "i", "compression": 5}`, tripleBody, m},
		{"object without task", j, `{}`, `{"hello": 1}`, n},
		{"object with task null", j, `{}`, `{"task": null, "id": "i"}`, n},
		{"no task, bad json", j, `{}`, `{`, u},
		{"no task, plain text", "text/plain", `{}`, `hello`, u},
		{"no task, yaml", "application/x-yaml", `{}`, `task: t`, u},
		{"v2 headers without task", j, `{"id": "i", "lang": "py"}`, tripleBody, n},
		{"v1, kwargs a list", j, `{}`, `{"task": "t", "id": "i", "kwargs": []}`, m},
		{"v1, kwargs null", j, `{}`, `{"task": "t", "id": "i", "kwargs": null}`, m},
		{"v1, args an object", j, `{}`, `{"task": "t", "id": "i", "args": {}}`, m},
		{"v1, no id", j, `{}`, `{"task": "t", "args": []}`, m},
		{"v1, id a number", j, `{}`, `{"task": "t", "id": 5}`, m},
		{"v1, eta garbage", j, `{}`, `{"task": "t", "id": "i", "eta": "soon"}`, m},
		{"v1, eta a number", j, `{}`, `{"task": "t", "id": "i", "eta": 5}`, m},
		{"v1, eta before all calendars", j, `{}`, `{"task": "t", "id": "i", "eta": {"__type__": "datetime", "__value__": "0001-01-01T00:00:00+01:00"}}`, m},
		{"v1, retries text", j, `{}`, `{"task": "t", "id": "i", "retries": "5"}`, m},
		{"v1, timelimit of one", j, `{}`, `{"task": "t", "id": "i", "timelimit": [1]}`, m},
		{"v1, timelimit NaN", j, `{}`, `{"task": "t", "id": "i", "timelimit": [NaN, null]}`, m},
		{"v1, group_index text", j, `{}`, `{"task": "t", "id": "i", "group_index": "1"}`, m},
		{"v1, callbacks an object", j, `{}`, `{"task": "t", "id": "i", "callbacks": {}}`, m},
		{"v1, errbacks text", j, `{}`, `{"task": "t", "id": "i", "errbacks": "x"}`, m},
		{"v1, chord a list", j, `{}`, `{"task": "t", "id": "i", "chord": []}`, m},
		{"no id", j, `{"task": "t"}`, tripleBody, m},
		{"id null", j, `{"task": "t", "id": null}`, tripleBody, m},
		{"id a number", j, `{"task": "t", "id": 5}`, tripleBody, m},
		{"id empty", j, `{"task": "t", "id": ""}`, tripleBody, m},
		{"two elements", j, v2, `[[], {}]`, m},
		{"four elements", j, v2, `[[], {}, {}, {}]`, m},
		{"empty list", j, v2, `[]`, m},
		{"number", j, v2, `5`, m},
		{"null", j, v2, `null`, m},
		{"object", j, v2, `{}`, m},
		{"empty body", j, v2, ``, m},
		{"no content type", "", v2, tripleBody, m},
		{"no content type, no task", "", `{}`, tripleBody, n},
		{"bytes", "application/data", v2, tripleBody, m},
		{"timelimit of one", j, `{"task": "t", "id": "i", "timelimit": [1]}`, tripleBody, m},
		{"retries text", j, `{"task": "t", "id": "i", "retries": "1"}`, tripleBody, m},
		{"group a number", j, `{"task": "t", "id": "i", "group": 1}`, tripleBody, m},
		{"kwargs null", j, v2, `[[], null, {}]`, m},
		{"kwargs a list", j, v2, `[[], [], {}]`, m},
		{"args null", j, v2, `[null, {}, {}]`, m},
		{"args an object", j, v2, `[{}, {}, {}]`, m},
		{"embed a list", j, v2, `[[], {}, []]`, m},
		{"callbacks an object", j, v2, `[[], {}, {"callbacks": {"task": "x", "args": [], "kwargs": {}, "options": {}}}]`, m},
		{"callback without task", j, v2, `[[], {}, {"callbacks": [{"args": []}]}]`, m},
		{"errback a text", j, v2, `[[], {}, {"errbacks": ["x"]}]`, m},
		{"chain of null", j, v2, `[[], {}, {"chain": [null]}]`, m},
		{"chord a list", j, v2, `[[], {}, {"chord": []}]`, m},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := decode(t, withHeaders(tt.headers))
			msg.ContentType, msg.Body = tt.contentType, []byte(tt.body)
			r, err := protocol.DecodeRequest(msg, jsonOnly)
			e, ok := errors.AsType[*protocol.RequestError](err)
			if !ok || e.Kind != tt.kind {
				t.Fatalf("got %v, want it %v", err, tt.kind)
			}
			if strings.Contains(e.Error(), "\n") || e.Unwrap() == nil {
				t.Errorf("error %q", e)
			}
			if r == nil {
				t.Fatal("no partial request")
			}
			if strings.Contains(tt.headers, `"id": "i"`) && r.ID != "i" || strings.Contains(tt.headers, `"task": "t"`) && r.Task != "t" {
				t.Errorf("partial request has id %q, task %q", r.ID, r.Task)
			}
		})
	}
}

// What was read before the defect is in the partial request, also when it was in the body.
func TestDecodeRequestPartialV1(t *testing.T) {
	t.Parallel()
	msg := &protocol.Message{ContentType: "application/json", Body: []byte(`{"task": "t", "id": "i", "kwargs": 5}`)}
	r, err := protocol.DecodeRequest(msg, jsonOnly)
	if err == nil || r.Task != "t" || r.ID != "i" || r.Protocol != 1 {
		t.Errorf("got %+v, %v", r, err)
	}
}

func TestDecodeRequestTolerates(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, headers, body string
		check               func(r *protocol.Request) bool
	}{
		{"embed null", `{"task": "t", "id": "i"}`, `[[], {}, null]`, func(r *protocol.Request) bool { return r.Protocol == 2 }},
		{"embed empty", `{"task": "t", "id": "i"}`, `[[], {}, {}]`, func(r *protocol.Request) bool { return r.Kwargs != nil }},
		{"embed with more", `{"task": "t", "id": "i"}`, `[[], {}, {"x": 1}]`, func(r *protocol.Request) bool { return r.Embed.Extra["x"] == int64(1) }},
		{"empty chain", `{"task": "t", "id": "i"}`, `[[], {}, {"chain": []}]`, func(r *protocol.Request) bool { return r.Embed.Chain != nil }},
		{"display headers", `{"task": "t", "id": "i", "argsrepr": 5, "lang": 1, "origin": []}`, `[[], {}, null]`,
			func(r *protocol.Request) bool { return len(r.Malformed) == 3 }},
		{"naive eta", `{"task": "t", "id": "i", "eta": "2026-01-02T03:04:05.678901"}`, `[[], {}, null]`,
			func(r *protocol.Request) bool { eta, ok := r.ETATime(); return ok && eta.Equal(goldenTime) }},
		{"nanosecond expires", `{"task": "t", "id": "i", "expires": "2026-01-02T04:04:05.678901999+01:00"}`, `[[], {}, null]`,
			func(r *protocol.Request) bool { eta, ok := r.ExpiresTime(); return ok && eta.Equal(goldenTime) }},
		{"v1 least", `{}`, `{"task": "t", "id": "i"}`,
			func(r *protocol.Request) bool { return r.Protocol == 1 && r.Args != nil && r.Kwargs != nil }},
		{"v1 taskset", `{}`, `{"task": "t", "id": "i", "group": "a", "taskset": "b", "group_index": 0}`,
			func(r *protocol.Request) bool { return r.Group == "b" && r.GroupIndex != nil && *r.GroupIndex == 0 }},
		{"v1 taskset null", `{}`, `{"task": "t", "id": "i", "group": "a", "taskset": null}`,
			func(r *protocol.Request) bool { return r.Group == "a" && r.GroupIndex == nil }},
		{"v1 typed eta", `{}`, `{"task": "t", "id": "i", "eta": {"__type__": "datetime", "__value__": "2026-01-02T03:04:05.678901+00:00"}}`,
			func(r *protocol.Request) bool {
				eta, ok := r.ETATime()
				return ok && eta.Equal(goldenTime) && r.ETA == "2026-01-02T03:04:05.678901+00:00"
			}},
		{"v1 naive eta", `{}`, `{"task": "t", "id": "i", "eta": "2026-01-02T03:04:05.678901"}`,
			func(r *protocol.Request) bool { eta, ok := r.ETATime(); return ok && eta.Equal(goldenTime) }},
		{"v1 local eta", `{}`, `{"task": "t", "id": "i", "utc": false, "eta": "2026-01-02T03:04:05.678901"}`,
			func(r *protocol.Request) bool {
				eta, ok := r.ETATime()
				again, err := protocol.ParseTime(r.ETA)
				return ok && eta.Equal(time.Date(2026, 1, 2, 3, 4, 5, 678901000, time.Local)) && err == nil && again.Equal(eta)
			}},
		{"v1 timelimit", `{}`, `{"task": "t", "id": "i", "timelimit": [null, 1.5], "retries": 2.0}`,
			func(r *protocol.Request) bool {
				return r.TimeLimit == protocol.TimeLimit{Soft: 1.5} && r.Retries == 2
			}},
		{"hybrid", `{"task": "t", "id": "i", "retries": 3}`, `{"task": "other", "id": "other", "retries": 1, "group": "g", "args": [1], "kwargs": {}}`,
			func(r *protocol.Request) bool {
				return r.Protocol == 2 && r.Task == "t" && r.ID == "i" && r.Retries == 3 && r.Group == "g" && len(r.Args) == 1
			}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			msg := decode(t, withHeaders(tt.headers))
			msg.Body = []byte(tt.body)
			r, err := protocol.DecodeRequest(msg, jsonOnly)
			if err != nil {
				t.Fatal(err)
			}
			if !tt.check(r) {
				t.Errorf("got %+v", r)
			}
		})
	}
}

func TestRequestTimesWithoutDecode(t *testing.T) {
	t.Parallel()
	r := &protocol.Request{Headers: protocol.Headers{ETA: protocol.FormatTime(goldenTime), Expires: "soon"}}
	if eta, ok := r.ETATime(); !ok || !eta.Equal(goldenTime) {
		t.Errorf("eta %v, %v", eta, ok)
	}
	if expires, ok := r.ExpiresTime(); ok {
		t.Errorf("expires %v", expires)
	}
}

func TestRequestMessageGoldenBody(t *testing.T) {
	t.Parallel()
	for _, version := range versions {
		g := loadGolden(t, version)
		for name, raw := range g.Envelopes {
			m := decode(t, raw)
			r, err := protocol.DecodeRequest(m, acceptAll(t))
			if err != nil {
				t.Fatal(err)
			}
			out, err := r.Message(protocol.Encoding{Serializer: m.ContentType, Compression: m.Headers.Compression, Protocol: r.Protocol})
			if err != nil {
				t.Fatalf("%s %s: %v", version, name, err)
			}
			if out.Properties.DeliveryTag != "" {
				t.Errorf("%s %s: the delivery tag was kept", version, name)
			}
			again, err := protocol.DecodeRequest(out, acceptAll(t))
			if err != nil {
				t.Fatal(err)
			}
			again.Properties.DeliveryTag = r.Properties.DeliveryTag
			if diff := cmp.Diff(r, again, ignoreTime); diff != "" {
				t.Errorf("%s %s: %s", version, name, diff)
			}
		}
	}
}

func TestRequestMessage(t *testing.T) {
	t.Parallel()
	r := &protocol.Request{
		Headers:    protocol.Headers{Task: "t", ID: "i", Redelivered: true, Compression: "old"},
		Properties: protocol.Properties{DeliveryTag: "used", DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "q", Redelivered: true}},
	}
	m, err := r.Message(protocol.Encoding{})
	if err != nil {
		t.Fatal(err)
	}
	var body any
	if err := json.Unmarshal(m.Body, &body); err != nil {
		t.Fatal(err)
	}
	want := []any{[]any{}, map[string]any{}, map[string]any{"callbacks": nil, "errbacks": nil, "chain": nil, "chord": nil}}
	if diff := cmp.Diff(want, body); diff != "" {
		t.Error(diff)
	}
	m.Body = nil
	wantMessage := &protocol.Message{ContentType: "application/json", ContentEncoding: "utf-8",
		Headers: protocol.Headers{Task: "t", ID: "i"},
		Properties: protocol.Properties{CorrelationID: "i", DeliveryMode: 2,
			DeliveryInfo: protocol.DeliveryInfo{RoutingKey: "q"}}}
	if diff := cmp.Diff(wantMessage, m); diff != "" {
		t.Error(diff)
	}
}

func TestRequestMessageCompresses(t *testing.T) {
	t.Parallel()
	r := &protocol.Request{Headers: protocol.Headers{Task: "t", ID: "i"}, Args: []any{strings.Repeat("a", 1000)}}
	m, err := r.Message(protocol.Encoding{Compression: "gzip"})
	if err != nil {
		t.Fatal(err)
	}
	if m.Headers.Compression != "application/x-gzip" || len(m.Body) > 200 {
		t.Errorf("%d bytes, compression %q", len(m.Body), m.Headers.Compression)
	}
	if _, err := compression.Decompress(m.Headers.Compression, m.Body, compression.DefaultLimit); err != nil {
		t.Error(err)
	}
}

func TestRequestMessageErrors(t *testing.T) {
	t.Parallel()
	good := protocol.Headers{Task: "t", ID: "i"}
	tests := []struct {
		name string
		r    protocol.Request
		e    protocol.Encoding
	}{
		{"no id", protocol.Request{Headers: protocol.Headers{Task: "t"}}, protocol.Encoding{}},
		{"no task", protocol.Request{Headers: protocol.Headers{ID: "i"}}, protocol.Encoding{}},
		{"unknown serializer", protocol.Request{Headers: good}, protocol.Encoding{Serializer: "xml"}},
		{"unknown compression", protocol.Request{Headers: good}, protocol.Encoding{Compression: "rot13"}},
		{"unknown protocol", protocol.Request{Headers: good}, protocol.Encoding{Protocol: 3}},
		{"bad argument", protocol.Request{Headers: good, Args: []any{make(chan int)}}, protocol.Encoding{}},
		{"bad keyword", protocol.Request{Headers: good, Kwargs: map[string]any{"f": func() {}}}, protocol.Encoding{}},
		{"bad embed", protocol.Request{Headers: good, Embed: protocol.Embed{Extra: map[string]any{"f": func() {}}}}, protocol.Encoding{}},
		{"chain in protocol 1", protocol.Request{Headers: good, Embed: protocol.Embed{Chain: []protocol.Signature{{Task: "x"}}}}, protocol.Encoding{Protocol: 1}},
	}
	for _, tt := range tests {
		if m, err := tt.r.Message(tt.e); err == nil {
			t.Errorf("%s: got %s", tt.name, m.Body)
		}
	}
}

func TestDecodeRequestLongChain(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString(`[[], {}, {"chain": [`)
	const steps = 100_000
	for i := range steps {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, `{"task": "t%d", "args": [], "kwargs": {}, "options": {}}`, i)
	}
	b.WriteString(`]}]`)
	m := &protocol.Message{Headers: protocol.Headers{Task: "t", ID: "i"}, ContentType: "application/json", Body: []byte(b.String())}
	r, err := protocol.DecodeRequest(m, jsonOnly)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Embed.Chain) != steps || r.Embed.Chain[steps-1].Task != "t99999" {
		t.Errorf("%d steps", len(r.Embed.Chain))
	}
	if _, err := r.Message(protocol.Encoding{}); err != nil {
		t.Error(err)
	}
}

func TestDates(t *testing.T) {
	t.Parallel()
	berlin := time.FixedZone("", 3600)
	if got := protocol.FormatTime(time.Date(2026, 1, 2, 4, 4, 5, 678901999, berlin)); got != "2026-01-02T03:04:05.678901+00:00" {
		t.Error(got)
	}
	if got := protocol.FormatTime(time.Date(2026, 1, 2, 4, 4, 5, 0, berlin)); got != "2026-01-02T03:04:05.000000+00:00" {
		t.Error(got)
	}
	for _, s := range []string{"2026-01-02T03:04:05.678901", "2026-01-02T03:04:05.678901Z", "2026-01-02T03:04:05.678901+00:00",
		"2026-01-02T04:04:05.678901+01:00", "2026-01-02T04:04:05.678901+0100", "2026-01-02 03:04:05.678901999"} {
		if got, err := protocol.ParseTime(s); err != nil || !got.Equal(goldenTime) {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "soon", "5", "2026-01-02T03:04:05.678901+00:00x", "2026-02-30"} {
		if got, err := protocol.ParseTime(s); err == nil {
			t.Errorf("%q is %v", s, got)
		}
	}
}
