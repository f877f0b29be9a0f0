package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/gelery/gelery/otelgelery"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// span is a span of either side, as python/tracing.py writes it.
type span struct {
	Name, Kind, Trace, Span, Parent, Status, Description string
	Attributes                                           map[string]any
}

// goSpans are the spans that have ended on the Go side.
func goSpans(all tracetest.SpanStubs) map[string]span {
	spans := map[string]span{}
	for _, s := range all {
		one := span{Name: s.Name, Kind: strings.ToUpper(s.SpanKind.String()), Trace: s.SpanContext.TraceID().String(),
			Span: s.SpanContext.SpanID().String(), Status: strings.ToUpper(s.Status.Code.String()), Description: s.Status.Description,
			Attributes: map[string]any{}}
		if s.Parent.SpanID().IsValid() {
			one.Parent = s.Parent.SpanID().String()
		}
		for _, a := range s.Attributes {
			one.Attributes[string(a.Key)] = a.Value.AsInterface()
		}
		spans[one.Name] = one
	}
	return spans
}

// pySpans are those of the Python side, once one of a name is among them that is wanted: a run's span ends after its result is there.
func pySpans(t *testing.T, path, name string, wanted func(span) bool) map[string]span {
	t.Helper()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for ctx := within(t); ; {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		spans := map[string]span{}
		for line := range bytes.Lines(text) {
			var one span
			if json.Unmarshal(line, &one) == nil && (one.Name != name || wanted(one)) { // else it is being written
				spans[one.Name] = one
			}
		}
		if spans[name].Name != "" {
			return spans
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			t.Fatalf("Python has no span %s that is wanted: %s", name, text)
		}
	}
}

// inTrace wants spans of a trace.
func inTrace(trace string) func(span) bool { return func(s span) bool { return s.Trace == trace } }

// TestTracing follows one trace from a Python program to a Go task and on to a Python one, called by it or next in its chain,
// with OpenTelemetry and with Sentry, which the Go side has no SDK of.
func TestTracing(t *testing.T) {
	t.Parallel()
	monitoring := FindMonitoring(t)
	for _, stack := range []Stack{RedisStack, RabbitMQStack} {
		t.Run(stack.String(), func(t *testing.T) {
			t.Parallel()
			traces(t, monitoring, stack.Open(t))
		})
	}
}

func traces(t *testing.T, v Version, s Settings) {
	spansFile := filepath.Join(t.TempDir(), "spans")
	s.Queue = pyQueue
	program := func(program string, args ...string) *Process {
		cmd := v.Command(t, s, program, args...)
		cmd.Env = append(cmd.Env, "SPANS="+spansFile)
		return Start(t, program, cmd)
	}
	python := program("celery", "-A", "tracing", "worker", "-P", "threads", "-c", "2", "-l", "info", "-Q", pyQueue, "-n", "py@box",
		"--without-mingle", "--without-gossip")

	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	traced := otelgelery.Config{TracerProvider: provider}
	sentryCalls, sentryRuns := task.PassHeaders(task.SentryHeaders...)
	mux := worker.NewMux()
	otelgelery.Instrument(mux, traced)
	mux.Use(sentryRuns)
	var ended sync.WaitGroup // the spans of runs end after their results are there
	mux.Hook(worker.Hooks{Ended: func(context.Context, worker.TaskEnded) { ended.Done() }})
	config := task.Config{Broker: s.Broker, Backend: s.Backend, Queue: goQueue,
		Middleware: []task.PublishMiddleware{otelgelery.PublishMiddleware(traced), sentryCalls}}
	// go.relay calls py.traced and returns the heads of Sentry's traces: the one that came and the one that arrives there.
	mux.Func("go.relay", func(ctx context.Context) ([]string, error) {
		info, _ := task.FromContext(ctx)
		r, err := info.Client.Send(ctx, "py.traced", nil, nil, task.Queue(pyQueue))
		if err != nil {
			return nil, err
		}
		there, err := r.Get(ctx)
		text, _ := there.(string)
		return []string{info.TraceHeader("sentry-trace"), text}, err
	})
	mux.Func("go.fails", func(context.Context) error { return task.AsPython(os.ErrInvalid, "builtins", "ValueError") })
	mux.Func("go.first", func(context.Context) (int, error) { return 1, nil })
	mux.Func("go.second", func(context.Context) (int, error) { return 2, nil })
	mux.Func("go.retries", func(ctx context.Context) (int, error) {
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return 0, task.Retry(os.ErrInvalid, task.Countdown(0))
		}
		return 1, nil
	})
	runMux(t, config, mux, worker.Config{Queues: []string{goQueue}, Concurrency: 2, Hostname: "go@box"})
	python.WaitFor(t, `\bready\.`, patience)

	call := func(name string, runs int) (answer struct {
		Trace, Span string
		Result      any
	}) {
		t.Helper()
		ended.Add(runs)
		p := program("python", "tracing.py", name, goQueue)
		line := p.WaitFor(t, `^\{"trace"`, patience)
		if err := json.Unmarshal([]byte(line), &answer); err != nil {
			t.Fatal(err)
		}
		ended.Wait()
		return answer
	}
	relayed := call("go.relay", 1)
	here, there := goSpans(exporter.GetSpans()), pySpans(t, spansFile, "run/py.traced", inTrace(relayed.Trace))
	path := []span{there["apply_async/go.relay"], here["run/go.relay"], here["apply_async/py.traced"], there["run/py.traced"]}
	parent := relayed.Span
	for _, one := range path {
		if one.Trace != relayed.Trace || one.Parent != parent || one.Status != "UNSET" {
			t.Errorf("span %+v; expected one of trace %s below %s", one, relayed.Trace, parent)
		}
		parent = one.Span
	}
	heads, _ := relayed.Result.([]any)
	if len(heads) != 2 || heads[0] == "" || heads[0] != heads[1] {
		t.Errorf("Sentry's trace %v; expected the same head twice", heads)
	}
	for _, pair := range [][2]span{{path[0], path[2]}, {path[3], path[1]}} {
		sameAttributes(t, pair[0], pair[1])
	}

	failed := call("go.fails", 1)
	if one := goSpans(exporter.GetSpans())["run/go.fails"]; one.Trace != failed.Trace || one.Status != "ERROR" || one.Attributes["celery.state"] != "FAILURE" {
		t.Errorf("the span of a failure is %+v", one)
	}
	retried := call("go.retries", 2)
	calls := pySpans(t, spansFile, "apply_async/go.retries", inTrace(retried.Trace))
	attempts := 0
	for _, one := range exporter.GetSpans() {
		if one.Name == "run/go.retries" && one.Parent.SpanID().String() == calls["apply_async/go.retries"].Span {
			attempts++
		}
	}
	if attempts != 2 {
		t.Errorf("%d attempts are below the call %+v; expected 2", attempts, calls["apply_async/go.retries"])
	}
	// A chain from Python goes on from a Go task to a Python one, which the Go worker sends.
	chain := call("chain", 1)
	next := pySpans(t, spansFile, "run/py.echo", inTrace(chain.Trace))
	first := goSpans(exporter.GetSpans())["run/go.first"]
	if first.Parent != next["apply_async/go.first"].Span || next["run/py.echo"].Parent != first.Span {
		t.Errorf("the chain has the spans %+v, %+v and %+v; expected each below the one before", next["apply_async/go.first"], first, next["run/py.echo"])
	}
	chained(t, config, exporter, spansFile, &ended)
}

// chained has a workflow go on from Go tasks to a Python one, which the worker sends by itself: the next step of a chain, members of a group,
// the body of a chord.
func chained(t *testing.T, config task.Config, exporter *tracetest.InMemoryExporter, spansFile string, ended *sync.WaitGroup) {
	t.Helper()
	client := connect(t, config)
	first, second := task.S("go.first"), task.S("go.second")
	echo := task.S("py.echo").With(task.Queue(pyQueue))
	for name, tt := range map[string]struct {
		canvas task.Signature
		runs   []string
	}{
		"chain": {task.Chain(first, echo), []string{"go.first"}},
		"group": {task.Chain(first, task.Group(echo, second)), []string{"go.first", "go.second"}},
		"chord": {task.Chord(task.Group(first, second), echo), []string{"go.first", "go.second"}},
	} {
		ended.Add(len(tt.runs))
		exporter.Reset()
		r, err := client.Apply(within(t), tt.canvas)
		if err != nil {
			t.Fatal(err)
		}
		if name != "group" { // whose end nobody waits for
			if _, err := r.Get(within(t)); err != nil {
				t.Fatal(err)
			}
		}
		ended.Wait()
		begun := goSpans(exporter.GetSpans())
		root := begun["apply_async/go.first"]
		parents := []string{begun["run/go.first"].Span}
		if name == "chord" {
			parents = append(parents, begun["run/go.second"].Span)
		}
		next := pySpans(t, spansFile, "run/py.echo", func(s span) bool { return slices.Contains(parents, s.Parent) })["run/py.echo"]
		if run := begun["run/go.first"]; root.Trace == "" || run.Parent != root.Span || name != "chord" && next.Trace != root.Trace {
			t.Errorf("%s: the run of go.first is %+v and that of py.echo %+v; expected one trace from %+v", name, run, next, root)
		}
		if run := begun["run/go.second"]; name == "group" && run.Parent != parents[0] {
			t.Errorf("the Go member of the group is %+v; expected one below %s", run, parents[0])
		}
	}
}

// sameAttributes compares the attributes that either side sets of a call, or of a run.
func sameAttributes(t *testing.T, python, here span) {
	t.Helper()
	if python.Kind != here.Kind {
		t.Errorf("%s is %s; expected %s", here.Name, here.Kind, python.Kind)
	}
	for _, name := range slices.Sorted(maps.Keys(python.Attributes)) {
		v, there := here.Attributes[name]
		if !there || attribute.Key(name) == "celery.state" && v != python.Attributes[name] {
			t.Errorf("%s has %s %v; Python's %s has %v", here.Name, name, v, python.Name, python.Attributes[name])
		}
	}
	for name := range here.Attributes {
		if _, there := python.Attributes[name]; !there {
			t.Errorf("%s has %s, which Python's %s has not", here.Name, name, python.Name)
		}
	}
}
