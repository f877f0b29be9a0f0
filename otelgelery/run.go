package otelgelery

import (
	"context"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gelery/gelery/protocol"
	"github.com/gelery/gelery/protocol/value"
	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

// runs are the spans of the runs under way, from the hook Started to the hook Ended, which are called once for each: in the
// process that runs the task, so that the task gets its span.
type runs struct {
	config Config

	mu    sync.Mutex
	spans map[*task.Info]trace.Span
}

func newRuns(c Config) *runs { return &runs{config: c, spans: map[*task.Info]trace.Span{}} }

// carrier reads the headers of a task's message.
type carrier struct{ *task.Info }

func (c carrier) Get(name string) string { return c.TraceHeader(name) }
func (carrier) Set(string, string)       {}
func (carrier) Keys() []string           { return nil }

// middleware gives a task the span of its run. One that was given up before its code began has none any more.
func (r *runs) middleware(next task.Handler) task.Handler {
	return func(ctx context.Context, request *protocol.Request) (any, error) {
		if span := r.of(ctx, false); span != nil {
			if !r.config.UseSpanLinks {
				ctx = r.config.propagator().Extract(ctx, carrierOf(ctx))
			}
			ctx = trace.ContextWithSpan(ctx, span)
		}
		return next(ctx, request)
	}
}

func carrierOf(ctx context.Context) carrier {
	info, _ := task.FromContext(ctx)
	return carrier{info}
}

// begin begins the span of a run.
func (r *runs) begin(ctx context.Context, info *task.Info) {
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(attributesOf(info)...)}
	caller := r.config.propagator().Extract(ctx, carrier{info})
	if from := trace.SpanContextFromContext(caller); r.config.UseSpanLinks {
		if from.IsValid() {
			options = append(options, trace.WithLinks(trace.Link{SpanContext: from}))
		}
	} else {
		ctx = caller
	}
	ctx, span := r.config.tracer().Start(ctx, "run/"+info.Task, options...)
	passed := propagation.MapCarrier{}
	r.config.propagator().Inject(ctx, passed)
	for name, v := range passed {
		info.PassOn(name, v)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spans[info] = span
}

// attributesOf are those that Python sets of the task's context.
func attributesOf(info *task.Info) []attribute.KeyValue {
	d := &info.Properties.DeliveryInfo
	attributes := []attribute.KeyValue{attribute.String("celery.action", "run"), attribute.String("celery.task_name", info.Task)}
	add := func(name, v string) { attributes = appendText(attributes, name, v) }
	add("messaging.message.id", info.ID)
	add("messaging.conversation_id", info.Properties.CorrelationID)
	add("messaging.destination", d.RoutingKey)
	add("celery.delivery_info", value.Repr(map[string]any{"exchange": d.Exchange, "routing_key": d.RoutingKey,
		"priority": int64(info.Properties.Priority), "redelivered": info.Redelivered}, 1024))
	add("celery.eta", info.ETA)
	add("celery.expires", info.Expires)
	add("celery.reply_to", info.Properties.ReplyTo)
	add("celery.hostname", info.Origin) // of who has called it, as in Python
	if info.Retries > 0 {
		attributes = append(attributes, attribute.Int("celery.retries", info.Retries))
	}
	if l := info.TimeLimit; l.Hard != 0 || l.Soft != 0 {
		limit := func(seconds float64) string {
			if seconds == 0 {
				return ""
			}
			return fmt.Sprint(seconds)
		}
		attributes = append(attributes, attribute.StringSlice("celery.timelimit", []string{limit(l.Hard), limit(l.Soft)}))
	}
	return attributes
}

// of is the span of the run that a hook is called for; nil: it did not begin here. Last takes it out.
func (r *runs) of(ctx context.Context, last bool) trace.Span {
	info, _ := task.FromContext(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	span := r.spans[info]
	if last {
		delete(r.spans, info)
	}
	return span
}

func (r *runs) hooks() worker.Hooks {
	return worker.Hooks{
		InChild: true,
		Started: func(ctx context.Context, _ worker.TaskStarted) {
			if info, ok := task.FromContext(ctx); ok {
				r.begin(ctx, info)
			}
		},
		Failed: func(ctx context.Context, e worker.TaskFailed) {
			span := r.of(ctx, false)
			if span == nil || e.Expected || e.Exception == nil {
				return
			}
			name := e.Exception.Type
			if e.Exception.Module != "" && e.Exception.Module != "builtins" {
				name = e.Exception.Module + "." + name
			}
			message := messageOf(e.Exception)
			span.AddEvent("exception", trace.WithAttributes(attribute.String("exception.type", name), attribute.String("exception.message", message),
				attribute.String("exception.stacktrace", e.Traceback), attribute.String("exception.escaped", "False")))
			span.SetStatus(codes.Error, message)
		},
		Retried: func(ctx context.Context, e worker.TaskRetried) {
			if span := r.of(ctx, false); span != nil {
				span.SetAttributes(attribute.String("celery.retry.reason", e.Why))
			}
		},
		Ended: func(ctx context.Context, e worker.TaskEnded) {
			span := r.of(ctx, true)
			if span == nil {
				return
			}
			if e.Cut {
				span.SetStatus(codes.Error, "cut by the cold stop of its worker; the task runs again")
			} else {
				span.SetAttributes(attribute.String("celery.state", string(e.State)))
			}
			span.End()
		},
	}
}

// messageOf is Python's str of an exception.
func messageOf(x *protocol.Exception) string {
	switch len(x.Args) {
	case 0:
		return ""
	case 1:
		if s, ok := x.Args[0].(string); ok {
			return s
		}
		return value.Repr(x.Args[0], 1024)
	}
	return value.ReprTuple(x.Args, 1024)
}
