package otelgelery

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	_ "github.com/gelery/gelery/backends/memory"
	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/task"
	_ "github.com/gelery/gelery/transport/memory"
	"github.com/gelery/gelery/worker"
)

// spansVariable names the file to which a child of a process pool adds its spans.
const spansVariable = "GELERY_TEST_SPANS"

func TestMain(m *testing.M) {
	if worker.IsChild() {
		if err := childProgram(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	goleak.VerifyTestMain(m)
}

// limit bounds every wait of a test.
const limit = 30 * time.Second

func deadline(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// rig is a traced worker on a broker of its own, and a traced client.
type rig struct {
	testing.TB
	exporter *tracetest.InMemoryExporter
	tracer   trace.Tracer
	runs     *runs
	mux      *worker.Mux
	client   *task.Client
	worker   *worker.Worker
	stop     func() error

	mu    sync.Mutex
	ended map[string]int // runs, by task
	news  chan struct{}
}

// newRig prepares; start begins.
func newRig(t testing.TB, c Config, sampler sdktrace.Sampler, middleware ...task.PublishMiddleware) *rig {
	t.Helper()
	r := &rig{TB: t, exporter: tracetest.NewInMemoryExporter(), mux: worker.NewMux(), ended: map[string]int{}, news: make(chan struct{}, 1000)}
	c.TracerProvider = sdktrace.NewTracerProvider(sdktrace.WithSyncer(r.exporter), sdktrace.WithSampler(sampler))
	r.tracer = c.TracerProvider.Tracer("test")
	r.runs = newRuns(c)
	r.mux.Use(r.runs.middleware)
	r.mux.Hook(r.runs.hooks())
	r.mux.Hook(worker.Hooks{Ended: func(_ context.Context, e worker.TaskEnded) { // after the spans' own
		r.mu.Lock()
		r.ended[e.Task]++
		r.mu.Unlock()
		r.news <- struct{}{}
	}})
	addTasks(r.mux)
	place := "memory://" + protocol.NewID()
	client, err := task.Dial(t.Context(), task.Config{Broker: place, Backend: place, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Middleware: append([]task.PublishMiddleware{PublishMiddleware(c)}, middleware...)})
	if err != nil {
		t.Fatal(err)
	}
	r.client = client
	t.Cleanup(func() { _ = client.Close(context.Background()) })
	return r
}

// addTasks registers what the tests run, here or in children.
func addTasks(mux *worker.Mux) {
	mux.Func("one", func(context.Context) (int, error) { return 1, nil })
	mux.Func("add", func(_ context.Context, a, b int) (int, error) { return a + b, nil })
	mux.Func("sum", func(_ context.Context, all []int) (int, error) { return len(all), nil })
	mux.Func("fails", func(context.Context) error {
		return task.AsPython(errors.New("kaput"), "shop.errors", "Declined", "kaput", 7)
	})
	mux.Func("retries", func(ctx context.Context) (int, error) {
		if info, _ := task.FromContext(ctx); info.Retries == 0 {
			return 0, task.Retry(errors.New("later"), task.Countdown(0))
		}
		return 1, nil
	})
	mux.Func("calls", func(ctx context.Context) error {
		info, _ := task.FromContext(ctx)
		_, err := info.Client.Send(ctx, "one", nil, nil)
		return err
	})
}

func (r *rig) start(c worker.Config) {
	r.Helper()
	w, err := worker.New(r.client, r.mux, c)
	if err != nil {
		r.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	r.worker = w
	r.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	r.Cleanup(func() { _ = r.stop() })
	select {
	case <-w.Consuming():
	case <-deadline(r).Done():
		r.Fatal("the worker did not begin")
	}
}

// await waits until runs of a task have ended.
func (r *rig) await(name string, runs int) {
	r.Helper()
	for ctx := deadline(r); ; {
		r.mu.Lock()
		n := r.ended[name]
		r.mu.Unlock()
		if n >= runs {
			return
		}
		select {
		case <-r.news:
		case <-ctx.Done():
			r.Fatalf("%d of %d runs of %s have ended", n, runs, name)
		}
	}
}

func (r *rig) send(ctx context.Context, name string, opts ...task.SendOption) *task.Result[any] {
	r.Helper()
	res, err := r.client.Send(ctx, name, nil, nil, opts...)
	if err != nil {
		r.Fatal(err)
	}
	return res
}

// spans are those of a name that have ended, in the order of their beginnings.
func (r *rig) spans(name string) []tracetest.SpanStub {
	all := slices.DeleteFunc(slices.Clone(r.exporter.GetSpans()), func(s tracetest.SpanStub) bool { return s.Name != name })
	slices.SortStableFunc(all, func(a, b tracetest.SpanStub) int { return a.StartTime.Compare(b.StartTime) })
	return all
}

// span is the only span of a name.
func (r *rig) span(name string) tracetest.SpanStub {
	r.Helper()
	all := r.spans(name)
	if len(all) != 1 {
		r.Fatalf("%d spans are named %s", len(all), name)
	}
	return all[0]
}

// below wants a span to be the child of another.
func (r *rig) below(s, parent tracetest.SpanStub) {
	r.Helper()
	if s.Parent.SpanID() != parent.SpanContext.SpanID() || s.SpanContext.TraceID() != parent.SpanContext.TraceID() {
		r.Errorf("%s is below %v of trace %v; expected %s, %v of %v", s.Name, s.Parent.SpanID(), s.SpanContext.TraceID(),
			parent.Name, parent.SpanContext.SpanID(), parent.SpanContext.TraceID())
	}
}

// has wants a span to have a status and an attribute.
func (r *rig) has(s tracetest.SpanStub, code codes.Code, description, attribute, v string) {
	r.Helper()
	if s.Status.Code != code || s.Status.Description != description {
		r.Errorf("the status of %s is %v %q; expected %v %q", s.Name, s.Status.Code, s.Status.Description, code, description)
	}
	if got := attributes(s.Attributes)[attribute]; got != v {
		r.Errorf("%s has %s %q; expected %q", s.Name, attribute, got, v)
	}
}

func attributes(list []attribute.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range list {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

// childSpan is a span as a child writes it.
type childSpan struct {
	PID                               int
	Name, Trace, Span, Parent, Status string
	Attributes                        map[string]string
}

// fileExporter adds spans to a file, a line of JSON each.
type fileExporter struct{ path string }

func (f fileExporter) ExportSpans(_ context.Context, spans []sdktrace.ReadOnlySpan) error {
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	for _, s := range spans {
		err = errors.Join(err, json.NewEncoder(file).Encode(childSpan{os.Getpid(), s.Name(), s.SpanContext().TraceID().String(), s.SpanContext().SpanID().String(),
			s.Parent().SpanID().String(), s.Status().Code.String(), attributes(s.Attributes())}))
	}
	return errors.Join(err, file.Close())
}

func (fileExporter) Shutdown(context.Context) error { return nil }

// childProgram is the program of the children: the same tasks, with spans that go to a file.
func childProgram() error {
	c := Config{TracerProvider: sdktrace.NewTracerProvider(sdktrace.WithSyncer(fileExporter{os.Getenv(spansVariable)}))}
	client, err := task.Dial(context.Background(), task.Config{Broker: "memory://child", Backend: "memory://child",
		Middleware: []task.PublishMiddleware{PublishMiddleware(c)}})
	if err != nil {
		return err
	}
	mux := worker.NewMux()
	Instrument(mux, c)
	addTasks(mux)
	w, err := worker.New(client, mux, worker.Config{})
	if err != nil {
		return err
	}
	return w.Run(context.Background())
}
