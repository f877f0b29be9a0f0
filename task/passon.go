package task

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/transport"
)

// nestedHeaders is a header with headers in it: Sentry and Datadog write theirs there as well as among the others, because that is
// where Celery looks for the custom headers of a task (celery#4875), and Sentry reads them there only.
const nestedHeaders = "headers"

// SentryHeaders are those by which Sentry's SDKs for Celery carry a trace on, for [PassHeaders].
var SentryHeaders = []string{"sentry-trace", "baggage"}

// TraceHeader is a header of the message that carries a trace, as text: from among its headers, or from those that Sentry and
// Datadog nest in the header "headers". "" if there is none.
func (i *Info) TraceHeader(name string) string {
	if text, ok := headerString(i.Header(name)); ok {
		return text
	}
	var nested map[string]json.RawMessage
	if json.Unmarshal(i.Header(nestedHeaders), &nested) != nil {
		return ""
	}
	text, _ := headerString(nested[name])
	return text
}

func headerString(v json.RawMessage) (text string, ok bool) {
	if len(v) == 0 || v[0] != '"' {
		return "", false
	}
	return text, json.Unmarshal(v, &text) == nil
}

// PassOn lets what the worker sends for this run carry a custom header: the next steps of a chain, callbacks, bodies of chords,
// what takes its place. What it carries already stays, and another attempt keeps the headers of the first. It is for a
// [Middleware] or a worker's hooks.
func (i *Info) PassOn(name, v string) {
	if text, err := headerText(v); err == nil {
		i.PassHeadersOn([]protocol.Header{{Name: name, Value: text}})
	}
}

// PassHeadersOn is PassOn of encoded headers: for a worker whose task runs in another process.
func (i *Info) PassHeadersOn(headers []protocol.Header) {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, added := range headers {
		i.passed = append(slices.DeleteFunc(i.passed, func(h protocol.Header) bool { return h.Name == added.Name }), added)
	}
}

// PassedHeaders are what PassOn was called with.
func (i *Info) PassedHeaders() []protocol.Header {
	i.mu.Lock()
	defer i.mu.Unlock()
	return slices.Clone(i.passed)
}

// Passed adds what the run passes on to what is about to be sent for it: for a worker.
func (i *Info) Passed(publications []transport.Publication) {
	passed := i.PassedHeaders()
	if len(passed) == 0 {
		return
	}
	for n := range publications {
		headers := &publications[n].Message.Headers
		headers.Extra = mergeTrace(headers.Extra, passed, false)
	}
}

// SetTraceHeader sets a header that carries a trace: among the others and in the header "headers", see [Info.TraceHeader].
func (p *Publishing) SetTraceHeader(name, v string) error {
	text, err := headerText(v)
	if err != nil {
		return err
	}
	p.Request.Extra = mergeTrace(p.Request.Extra, []protocol.Header{{Name: name, Value: text}}, true)
	return nil
}

// mergeTrace adds headers to those that a message has, in both places. What is there in either place stays, and is what the other gets,
// unless it is to be replaced. The slices are left as they are.
func mergeTrace(extra, added []protocol.Header, replace bool) []protocol.Header {
	if len(added) == 0 {
		return extra
	}
	out := slices.Clone(extra)
	find := func(name string) int {
		return slices.IndexFunc(out, func(h protocol.Header) bool { return h.Name == name })
	}
	set := func(name string, v json.RawMessage) {
		if i := find(name); i >= 0 {
			out[i].Value = v
		} else {
			out = append(out, protocol.Header{Name: name, Value: v})
		}
	}
	nested := map[string]json.RawMessage{}
	if i := find(nestedHeaders); i >= 0 && json.Unmarshal(out[i].Value, &nested) != nil {
		nested = nil // somebody's own
	}
	for _, h := range added {
		i, v := find(h.Name), h.Value
		inner, isNested := nested[h.Name]
		switch {
		case replace:
		case i >= 0:
			v = out[i].Value
		case isNested:
			v = inner
		}
		set(h.Name, v)
		if nested != nil && (replace || !isNested) {
			nested[h.Name] = v
		}
	}
	if text, err := json.Marshal(nested); nested != nil && err == nil {
		set(nestedHeaders, text)
	}
	return out
}

// PassHeaders makes middleware that hands headers of a task's message, which carry a trace, on to all that is sent for the task:
// the first to what its code sends, for [Config].Middleware or worker.Mux.UsePublish, the second to what follows it, for worker.Mux.Use.
// With [SentryHeaders] a trace of Sentry's goes on through Go tasks that have no SDK. A call with such a header keeps its own.
func PassHeaders(names ...string) (PublishMiddleware, Middleware) {
	publish := func(next Publish) Publish {
		return func(ctx context.Context, calls []*Publishing) error {
			if info, ok := FromContext(ctx); ok {
				for _, p := range calls {
					p.Request.Extra = mergeTrace(p.Request.Extra, info.traceHeaders(names), false)
				}
			}
			return next(ctx, calls)
		}
	}
	run := func(next Handler) Handler {
		return func(ctx context.Context, r *protocol.Request) (any, error) {
			if info, ok := FromContext(ctx); ok {
				for _, name := range names {
					if text := info.TraceHeader(name); text != "" {
						info.PassOn(name, text)
					}
				}
			}
			return next(ctx, r)
		}
	}
	return publish, run
}

// traceHeaders are those headers of the names that the message has.
func (i *Info) traceHeaders(names []string) []protocol.Header {
	var all []protocol.Header
	for _, name := range names {
		if text := i.TraceHeader(name); text != "" {
			if v, err := headerText(text); err == nil {
				all = append(all, protocol.Header{Name: name, Value: v})
			}
		}
	}
	return all
}
