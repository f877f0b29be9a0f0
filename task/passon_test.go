package task

import (
	"context"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// texts are headers as text; nested ones have the name "headers." before theirs.
func texts(t *testing.T, headers []protocol.Header) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, h := range headers {
		var inner map[string]string
		var text string
		switch {
		case h.Name == nestedHeaders && json.Unmarshal(h.Value, &inner) == nil:
			for name, v := range inner {
				all["headers."+name] = v
			}
		case json.Unmarshal(h.Value, &text) == nil:
			all[h.Name] = text
		default:
			all[h.Name] = string(h.Value)
		}
	}
	return all
}

func header(name, document string) protocol.Header {
	return protocol.Header{Name: name, Value: json.RawMessage(document)}
}

func TestTraceHeader(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		headers []protocol.Header
		want    string
	}{
		"none":              {nil, ""},
		"among the others":  {[]protocol.Header{header("sentry-trace", `"a"`), header("headers", `{"sentry-trace": "b"}`)}, "a"},
		"nested":            {[]protocol.Header{header("headers", `{"sentry-trace": "b", "n": 1}`)}, "b"},
		"not text":          {[]protocol.Header{header("sentry-trace", `["a"]`), header("headers", `{"sentry-trace": 1}`)}, ""},
		"nested in no dict": {[]protocol.Header{header("headers", `[1]`)}, ""},
		"no JSON":           {[]protocol.Header{header("sentry-trace", `"a`), header("headers", `{`)}, ""},
		"escaped":           {[]protocol.Header{header("sentry-trace", `"\u00e9"`)}, "é"},
	} {
		info := &Info{Request: &protocol.Request{Headers: protocol.Headers{Extra: tt.headers}}}
		if got := info.TraceHeader("sentry-trace"); got != tt.want {
			t.Errorf("%s: %q; expected %q", name, got, tt.want)
		}
	}
}

// What a run passes on is added to what is sent for it, in both places, and replaces nothing there.
func TestPassOn(t *testing.T) {
	t.Parallel()
	info := &Info{}
	info.PassOn("trace", "old")
	info.PassOn("trace", "run")
	info.PassOn("baggage", "b")
	for name, tt := range map[string]struct {
		has  []protocol.Header
		want map[string]string
	}{
		"nothing":       {nil, map[string]string{"trace": "run", "baggage": "b", "headers.trace": "run", "headers.baggage": "b"}},
		"its own trace": {[]protocol.Header{header("trace", `"own"`)}, map[string]string{"trace": "own", "baggage": "b", "headers.trace": "own", "headers.baggage": "b"}},
		"a different one in each": {[]protocol.Header{header("trace", `"own"`), header("headers", `{"trace": "other"}`)},
			map[string]string{"trace": "own", "baggage": "b", "headers.trace": "other", "headers.baggage": "b"}},
		"a nested one": {[]protocol.Header{header("headers", `{"trace": "own"}`)},
			map[string]string{"trace": "own", "baggage": "b", "headers.trace": "own", "headers.baggage": "b"}},
		"headers that are somebody's own": {[]protocol.Header{header("headers", `7`)}, map[string]string{"trace": "run", "baggage": "b", "headers": "7"}},
	} {
		before := texts(t, tt.has)
		m := &protocol.Message{Headers: protocol.Headers{Extra: tt.has}}
		info.Passed([]transport.Publication{{Message: m}})
		if d := cmp.Diff(tt.want, texts(t, m.Headers.Extra)); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if d := cmp.Diff(before, texts(t, tt.has)); d != "" {
			t.Errorf("%s: the headers that it had were changed: %s", name, d)
		}
	}
	other := &Info{}
	other.PassHeadersOn(info.PassedHeaders())
	if d := cmp.Diff(info.PassedHeaders(), other.PassedHeaders()); d != "" {
		t.Error(d)
	}
	m := &protocol.Message{}
	(&Info{}).Passed([]transport.Publication{{Message: m}})
	if m.Headers.Extra != nil {
		t.Errorf("nothing to pass on makes %v", m.Headers.Extra)
	}
}

// A call carries a trace in both places; the last one set counts.
func TestSetTraceHeader(t *testing.T) {
	t.Parallel()
	client, p := probeClient(t, Config{Middleware: []PublishMiddleware{func(next Publish) Publish {
		return func(ctx context.Context, calls []*Publishing) error {
			for _, v := range []string{"first", "last"} {
				if err := calls[0].SetTraceHeader("trace", v); err != nil {
					return err
				}
			}
			return next(ctx, calls)
		}
	}}})
	if _, err := client.Send(t.Context(), "t", nil, nil, Header("other", "o"), Header("headers", map[string]any{"trace": "callers"})); err != nil {
		t.Fatal(err)
	}
	r, _ := p.last(t)
	if d := cmp.Diff(map[string]string{"trace": "last", "headers.trace": "last", "other": "o"}, texts(t, r.Extra)); d != "" {
		t.Error(d)
	}
}

// PassHeaders hands on what a task's message carries: to what its code sends, unless the call has its own, and to what follows it.
func TestPassHeaders(t *testing.T) {
	t.Parallel()
	publish, run := PassHeaders(SentryHeaders...)
	client, p := probeClient(t, Config{Middleware: []PublishMiddleware{publish}})
	info := &Info{Request: &protocol.Request{Headers: protocol.Headers{ID: "i", Task: "t",
		Extra: []protocol.Header{header("headers", `{"sentry-trace": "s", "baggage": "b", "other": "o"}`)}}}, Client: client}
	handler := run(func(ctx context.Context, _ *protocol.Request) (any, error) {
		if _, err := client.Send(ctx, "plain", nil, nil); err != nil {
			return nil, err
		}
		_, err := client.Send(ctx, "traced", nil, nil, Header("sentry-trace", "own"))
		return nil, err
	})
	if _, err := handler(NewContext(t.Context(), info), info.Request); err != nil {
		t.Fatal(err)
	}
	both := map[string]string{"sentry-trace": "s", "baggage": "b", "headers.sentry-trace": "s", "headers.baggage": "b"}
	for i, own := range []string{"s", "own"} {
		both["sentry-trace"], both["headers.sentry-trace"] = own, own
		if d := cmp.Diff(both, texts(t, p.published[i][0].Message.Headers.Extra)); d != "" {
			t.Errorf("call %d: %s", i, d)
		}
	}
	both["sentry-trace"], both["headers.sentry-trace"] = "s", "s"
	m := &protocol.Message{}
	info.Passed([]transport.Publication{{Message: m}})
	if d := cmp.Diff(both, texts(t, m.Headers.Extra)); d != "" {
		t.Errorf("what follows: %s", d)
	}
	// Outside of a task there is nothing to hand on.
	if _, err := client.Send(t.Context(), "outside", nil, nil); err != nil {
		t.Fatal(err)
	}
	if r, _ := p.last(t); len(r.Extra) > 0 {
		t.Errorf("outside of a task the call carries %v", r.Extra)
	}
}
