package otelgelery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// carrying is a context with baggage.
func carrying(ctx context.Context, t *testing.T, key, v string) context.Context {
	t.Helper()
	m, err := baggage.NewMember(key, v)
	if err != nil {
		t.Fatal(err)
	}
	b, err := baggage.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return baggage.ContextWithBaggage(ctx, b)
}

// A trace goes from the caller's span to the call, the run, and what the task does and calls, with its baggage.
func TestTrace(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	r.mux.Func("works", func(ctx context.Context) (string, error) {
		_, span := r.tracer.Start(ctx, "work")
		span.End()
		trace.SpanFromContext(ctx).AddEvent("seen")
		info, _ := task.FromContext(ctx)
		_, err := info.Client.Send(ctx, "one", nil, nil)
		return baggage.FromContext(ctx).Member("customer").Value(), err
	})
	r.start(worker.Config{Hostname: "w1@box"})
	ctx, root := r.tracer.Start(carrying(deadline(t), t, "customer", "7"), "root")
	res := r.send(ctx, "works")
	root.End()
	if v, err := res.Get(ctx); err != nil || v != "7" {
		t.Errorf("in the task the baggage is %v, %v", v, err)
	}
	r.await("works", 1)
	r.await("one", 1)
	run := r.span("run/works")
	r.below(r.span("apply_async/works"), r.span("root"))
	r.below(run, r.span("apply_async/works"))
	r.below(r.span("work"), run)
	r.below(r.span("apply_async/one"), run)
	r.below(r.span("run/one"), r.span("apply_async/one"))
	if call := r.span("apply_async/works"); call.SpanKind != trace.SpanKindProducer || run.SpanKind != trace.SpanKindConsumer || !run.Parent.IsRemote() {
		t.Errorf("the call is %v, the run %v", call.SpanKind, run.SpanKind)
	}
	want := map[string]string{"celery.action": "apply_async", "celery.task_name": "works", "messaging.message.id": res.ID(),
		"messaging.destination_kind": "queue", "messaging.destination": "celery"}
	if d := cmp.Diff(want, attributes(r.span("apply_async/works").Attributes)); d != "" {
		t.Error(d)
	}
	want = map[string]string{"celery.action": "run", "celery.task_name": "works", "messaging.message.id": res.ID(), "messaging.conversation_id": res.ID(),
		"messaging.destination": "celery", "celery.hostname": r.client.Config().Origin, "celery.state": "SUCCESS",
		"celery.delivery_info": "{'exchange': '', 'priority': 0, 'redelivered': False, 'routing_key': 'celery'}"}
	got := attributes(run.Attributes)
	delete(got, "celery.reply_to")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if len(run.Events) != 1 || run.Events[0].Name != "seen" || run.Status.Code != codes.Unset {
		t.Errorf("the run has %v and %v", run.Events, run.Status)
	}
}

// With UseSpanLinks a run begins a trace of its own, linked to its call; what it calls is below the run.
func TestUseSpanLinks(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{UseSpanLinks: true}, sdktrace.AlwaysSample())
	r.start(worker.Config{})
	r.send(deadline(t), "calls")
	r.await("one", 1)
	r.await("calls", 1)
	for _, name := range []string{"calls", "one"} {
		call, run := r.span("apply_async/"+name), r.span("run/"+name)
		if run.Parent.IsValid() || run.SpanContext.TraceID() == call.SpanContext.TraceID() {
			t.Errorf("the run of %s is below %v in the trace of its call", name, run.Parent.SpanID())
		}
		if len(run.Links) != 1 || run.Links[0].SpanContext.SpanID() != call.SpanContext.SpanID() {
			t.Errorf("the run of %s has the links %v", name, run.Links)
		}
	}
	r.below(r.span("apply_async/one"), r.span("run/calls"))
}

// Attempts are runs below the first call.
func TestRetry(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	r.start(worker.Config{})
	r.send(deadline(t), "retries")
	r.await("retries", 2)
	runs := r.spans("run/retries")
	if len(runs) != 2 {
		t.Fatalf("runs are %v", runs)
	}
	for _, run := range runs {
		r.below(run, r.span("apply_async/retries"))
	}
	r.has(runs[0], codes.Unset, "", "celery.state", "RETRY")
	r.has(runs[0], codes.Unset, "", "celery.retry.reason", "Retry in 0s: Exception('later')")
	r.has(runs[1], codes.Unset, "", "celery.state", "SUCCESS")
	r.has(runs[1], codes.Unset, "", "celery.retries", "1")
}

// The status of a run tells what became of it, whoever has ended it.
func TestStatus(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	declined := errors.New("declined")
	r.mux.Func("expected", func(context.Context) error { return declined }, task.Throws(declined))
	r.mux.Func("panics", func(context.Context) error { panic("at the disco") })
	r.mux.Func("rejects", func(context.Context) error { return task.Reject(declined, false) })
	r.mux.Func("ignores", func(context.Context) error { return task.Ignore })
	r.mux.Func("hangs", func(ctx context.Context) error { <-ctx.Done(); return nil }, task.TimeLimit(10*time.Millisecond))
	r.start(worker.Config{})
	for _, tt := range []struct {
		name   string
		code   codes.Code
		status string
		state  string
	}{
		{"fails", codes.Error, "('kaput', 7)", "FAILURE"},
		{"expected", codes.Unset, "", "FAILURE"},
		{"panics", codes.Error, "panic: at the disco", "FAILURE"},
		{"rejects", codes.Unset, "", "REJECTED"},
		{"ignores", codes.Unset, "", "IGNORED"},
		{"hangs", codes.Error, "0.01", "FAILURE"},
	} {
		r.send(deadline(t), tt.name)
		r.await(tt.name, 1)
		r.has(r.span("run/"+tt.name), tt.code, tt.status, "celery.state", tt.state)
	}
	failed := r.span("run/fails")
	if len(failed.Events) != 1 || failed.Events[0].Name != "exception" {
		t.Fatalf("a failure has the events %v", failed.Events)
	}
	exception := attributes(failed.Events[0].Attributes)
	if exception["exception.type"] != "shop.errors.Declined" || exception["exception.message"] != "('kaput', 7)" || exception["exception.stacktrace"] == "" {
		t.Errorf("the exception is %v", exception)
	}
	if n := len(r.runs.spans); n > 0 {
		t.Errorf("%d spans are kept", n)
	}
}

// What a worker sends for a run is below it: the next step of a chain, the parts of a group, the body of a chord, callbacks of either
// kind, and what comes after an attempt.
func TestWorkflows(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		canvas   task.Signature
		children map[string]string // of a run, that of another
	}{
		"chain":      {task.Chain(task.S("one"), task.S("add", 2), task.S("add", 3)), map[string]string{"add": "one"}},
		"retry":      {task.Chain(task.S("retries"), task.S("add", 2)), map[string]string{"add": "retries"}},
		"group":      {task.Chain(task.S("one"), task.Group(task.S("add", 2), task.S("add", 3))), map[string]string{"add": "one"}},
		"chord":      {task.Chord(task.Group(task.S("add", 1, 2), task.S("add", 3, 4)), task.S("sum")), map[string]string{"sum": "add"}},
		"link":       {task.S("one").Link(task.S("add", 2)), map[string]string{"add": "one"}},
		"link error": {task.S("fails").LinkError(task.S("heard")), map[string]string{"heard": "fails"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, Config{}, sdktrace.AlwaysSample())
			r.mux.Func("heard", func(context.Context, string) error { return nil })
			r.start(worker.Config{Concurrency: 1})
			ctx, root := r.tracer.Start(deadline(t), "root")
			if _, err := r.client.Apply(ctx, tt.canvas); err != nil {
				t.Fatal(err)
			}
			root.End()
			for child, parent := range tt.children {
				r.await(child, 1)
				if name == "chain" || name == "group" {
					r.await(child, 2)
				}
				parents := r.spans("run/" + parent)
				for i, run := range r.spans("run/" + child) {
					if name == "chain" && i == 1 {
						parents = r.spans("run/" + child)[:1]
					}
					r.below(run, parents[len(parents)-1])
				}
			}
			for _, s := range r.exporter.GetSpans() {
				if s.SpanContext.TraceID() != root.SpanContext().TraceID() {
					t.Errorf("%s is in another trace", s.Name)
				}
			}
		})
	}
}

// A trace that is not sampled stays so, and is carried on.
func TestUnsampled(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.ParentBased(sdktrace.NeverSample()))
	seen := make(chan trace.SpanContext, 2)
	see := func(ctx context.Context, _ ...int) (int, error) {
		seen <- trace.SpanContextFromContext(ctx)
		return 1, nil
	}
	r.mux.Func("sees", func(ctx context.Context) (int, error) { return see(ctx) })
	r.mux.Func("sees.next", func(ctx context.Context, n int) (int, error) { return see(ctx, n) })
	r.start(worker.Config{})
	ctx, root := r.tracer.Start(deadline(t), "root")
	defer root.End()
	if _, err := r.client.Apply(ctx, task.Chain(task.S("sees"), task.S("sees.next"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		select {
		case got := <-seen:
			if got.IsSampled() || got.TraceID() != root.SpanContext().TraceID() {
				t.Errorf("the task is in %v, sampled %v; expected %v", got.TraceID(), got.IsSampled(), root.SpanContext().TraceID())
			}
		case <-ctx.Done():
			t.Fatal("the tasks did not run")
		}
	}
	r.await("sees.next", 1)
	if all := r.exporter.GetSpans(); len(all) > 0 || len(r.runs.spans) > 0 {
		t.Errorf("%d spans are exported, %d are kept", len(all), len(r.runs.spans))
	}
}

// A cold stop ends the spans of the runs that it cuts, and says so.
func TestColdStop(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	began, release := make(chan struct{}, 2), make(chan struct{})
	r.mux.Func("obeys", func(ctx context.Context) error { began <- struct{}{}; <-ctx.Done(); return ctx.Err() })
	r.mux.Func("deaf", func(ctx context.Context) error { began <- struct{}{}; <-release; _ = ctx; return nil })
	r.start(worker.Config{Concurrency: 2})
	r.send(deadline(t), "obeys")
	r.send(deadline(t), "deaf")
	for range 2 {
		select {
		case <-began:
		case <-deadline(t).Done():
			t.Fatal("the tasks did not begin")
		}
	}
	r.worker.Terminate()
	if err := r.stop(); !errors.Is(err, worker.ErrTerminated) {
		t.Errorf("the stop: %v", err)
	}
	close(release)
	for _, name := range []string{"run/obeys", "run/deaf"} {
		r.has(r.span(name), codes.Error, "cut by the cold stop of its worker; the task runs again", "celery.state", "")
	}
	r.runs.mu.Lock()
	defer r.runs.mu.Unlock()
	if len(r.runs.spans) > 0 {
		t.Errorf("%d spans are kept", len(r.runs.spans))
	}
}

// A call that fails has a span that says so.
func TestCallThatFails(t *testing.T) {
	t.Parallel()
	full := errors.New("full")
	r := newRig(t, Config{}, sdktrace.AlwaysSample(), func(task.Publish) task.Publish {
		return func(context.Context, []*task.Publishing) error { return full }
	})
	if _, err := r.client.Send(deadline(t), "one", nil, nil); !errors.Is(err, full) {
		t.Errorf("the call: %v", err)
	}
	if call := r.span("apply_async/one"); call.Status.Code != codes.Error || !strings.Contains(call.Status.Description, "full") {
		t.Errorf("its status is %v", call.Status)
	}
}

// The headers of a message are read from either place, and what is no text there does no harm.
func TestCarrier(t *testing.T) {
	t.Parallel()
	const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	text := func(v any) json.RawMessage {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tt := range map[string]struct {
		headers []protocol.Header
		valid   bool
	}{
		"among the others": {[]protocol.Header{{Name: "traceparent", Value: text(parent)}}, true},
		"nested":           {[]protocol.Header{{Name: "headers", Value: text(map[string]string{"traceparent": parent})}}, true},
		"none":             {nil, false},
		"no text":          {[]protocol.Header{{Name: "traceparent", Value: text(7)}, {Name: "headers", Value: text([]int{1})}}, false},
		"no trace":         {[]protocol.Header{{Name: "traceparent", Value: text("00-zz-zz-01")}}, false},
		"broken":           {[]protocol.Header{{Name: "traceparent", Value: json.RawMessage(`"\ud800`)}, {Name: "headers", Value: json.RawMessage(`{`)}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			info := &task.Info{Request: &protocol.Request{Headers: protocol.Headers{Extra: tt.headers}}}
			got := trace.SpanContextFromContext(Config{}.propagator().Extract(t.Context(), carrier{info}))
			if got.IsValid() != tt.valid || tt.valid && got.SpanID().String() != "b7ad6b7169203331" {
				t.Errorf("read %v", got)
			}
		})
	}
}

// A propagator of the program's own is used in place of Python's default.
func TestPropagator(t *testing.T) {
	t.Parallel()
	if d := cmp.Diff([]string{"baggage", "traceparent", "tracestate"}, slices.Sorted(slices.Values(Config{}.propagator().Fields()))); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"baggage"}, Config{Propagator: propagation.Baggage{}}.propagator().Fields()); d != "" {
		t.Error(d)
	}
}

// In a child of a process pool the spans are the child's, and the worker passes its trace on.
func TestChildren(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spans")
	t.Setenv(spansVariable, path)
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	r.start(worker.Config{Pool: worker.PoolProcess, Concurrency: 1})
	ctx, root := r.tracer.Start(deadline(t), "root")
	defer root.End()
	chain, err := r.client.Apply(ctx, task.Chain(task.S("one"), task.S("add", 2)))
	if err != nil {
		t.Fatal(err)
	}
	if v, err := chain.Get(ctx); err != nil || v != int64(3) {
		t.Errorf("the chain gives %v, %v", v, err)
	}
	for _, name := range []string{"retries", "fails", "calls"} {
		r.send(ctx, name)
	}
	r.await("retries", 2)
	for _, name := range []string{"fails", "calls", "add"} {
		r.await(name, 1)
	}
	spans := childSpans(t, path)
	if below := spans["run/add"]; below.Parent == "" || below.Parent != spans["run/one"].Span {
		t.Errorf("the next step is %+v; expected one below %+v", below, spans["run/one"])
	}
	if call := spans["apply_async/one"]; call.Parent == "" || call.Parent != spans["run/calls"].Span {
		t.Errorf("the call in a child is %+v; expected one below %+v", call, spans["run/calls"])
	}
	for name, want := range map[string]string{"run/one": "SUCCESS Unset", "run/retries": "RETRY Unset", "run/fails": "FAILURE Error"} {
		s := spans[name]
		if got := s.Attributes["celery.state"] + " " + s.Status; got != want || s.Trace != root.SpanContext().TraceID().String() || s.PID == os.Getpid() {
			t.Errorf("%s is %+v; expected %s", name, s, want)
		}
	}
	for _, s := range r.exporter.GetSpans() {
		if strings.HasPrefix(s.Name, "run/") {
			t.Errorf("the worker has a span %s", s.Name)
		}
	}
	if len(r.runs.spans) > 0 {
		t.Errorf("%d spans are kept", len(r.runs.spans))
	}
}

// childSpans are the spans that children have written, the first of each name.
func childSpans(t *testing.T, path string) map[string]childSpan {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	spans := map[string]childSpan{}
	for line := range bytes.Lines(text) {
		var s childSpan
		if err := json.Unmarshal(line, &s); err != nil {
			t.Fatal(err)
		}
		if _, there := spans[s.Name]; !there {
			spans[s.Name] = s
		}
	}
	return spans
}

// Whatever runs, nothing is kept.
func TestNothingIsKept(t *testing.T) {
	t.Parallel()
	r := newRig(t, Config{}, sdktrace.AlwaysSample())
	r.start(worker.Config{Concurrency: 4})
	const each = 50
	for i := range each {
		for _, name := range []string{"one", "fails", "retries"} {
			r.send(deadline(t), name, task.Header("n", strconv.Itoa(i)))
		}
	}
	r.await("one", each)
	r.await("fails", each)
	r.await("retries", 2*each)
	r.runs.mu.Lock()
	defer r.runs.mu.Unlock()
	if len(r.runs.spans) > 0 {
		t.Errorf("%d spans are kept", len(r.runs.spans))
	}
}
