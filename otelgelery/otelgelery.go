// Package otelgelery traces tasks with OpenTelemetry as Python's opentelemetry-instrumentation-celery does: with the same spans,
// attributes and headers, so that one trace runs through Python and Go tasks, whoever calls whom.
//
// A producer adds [PublishMiddleware] to its task.Config, a worker calls [Instrument] with its mux:
//
//	mux := worker.NewMux()
//	otelgelery.Instrument(mux, otelgelery.Config{})
//
// Each call is a span "apply_async/<task>" of kind PRODUCER, each run a span "run/<task>" of kind CONSUMER whose parent is the call. The
// context of a task has the span of its run. What a worker sends by itself has no PRODUCER span: the next steps of a chain,
// callbacks and bodies of chords are children of the run before, further attempts of a task those of its call.
//
// The span of a run ends when its outcome is known; that of one which a cold stop cuts is an error that says so. In a child of a process
// pool spans are made there, so the program must set up its exporter in the child too; the span of a run that ends with its child is lost.
package otelgelery

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/gelery/gelery/task"
	"github.com/gelery/gelery/worker"
)

const scope = "github.com/gelery/gelery/otelgelery"

// Config is how spans are made. The zero value takes what the program has set with package otel.
type Config struct {
	// TracerProvider makes the spans. Default: otel.GetTracerProvider().
	TracerProvider trace.TracerProvider
	// Propagator reads and writes the headers. Default: otel.GetTextMapPropagator(), or if none is set, Python's default:
	// traceparent, tracestate and baggage.
	Propagator propagation.TextMapPropagator
	// UseSpanLinks makes each run the root of a trace of its own, linked to its call. Default false. use_span_links.
	UseSpanLinks bool
}

func (c Config) tracer() trace.Tracer {
	if c.TracerProvider == nil {
		c.TracerProvider = otel.GetTracerProvider()
	}
	return c.TracerProvider.Tracer(scope)
}

func (c Config) propagator() propagation.TextMapPropagator {
	p := c.Propagator
	if p == nil {
		p = otel.GetTextMapPropagator()
	}
	if len(p.Fields()) == 0 {
		p = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})
	}
	return p
}

// Instrument traces the runs of a mux's tasks, and the calls that a command line of the mux sends.
func Instrument(mux *worker.Mux, c Config) {
	r := newRuns(c)
	mux.Use(r.middleware)
	mux.Hook(r.hooks())
	mux.UsePublish(PublishMiddleware(c))
}

// PublishMiddleware traces the calls of a client, and lets them carry the trace.
func PublishMiddleware(c Config) task.PublishMiddleware {
	return func(next task.Publish) task.Publish {
		return func(ctx context.Context, calls []*task.Publishing) error {
			spans := make([]trace.Span, len(calls))
			for i, p := range calls {
				spans[i] = c.publishSpan(ctx, p)
			}
			err := next(ctx, calls)
			for _, s := range spans {
				if err != nil {
					s.RecordError(err)
					s.SetStatus(codes.Error, err.Error())
				}
				s.End()
			}
			return err
		}
	}
}

// publishSpan begins the span of a call, which carries it.
func (c Config) publishSpan(ctx context.Context, p *task.Publishing) trace.Span {
	attributes := []attribute.KeyValue{
		attribute.String("celery.action", "apply_async"),
		attribute.String("celery.task_name", p.Request.Task),
		attribute.String("messaging.message.id", p.Request.ID),
		attribute.String("messaging.destination_kind", "queue"),
	}
	attributes = appendText(attributes, "celery.exchange", p.Exchange)
	attributes = appendText(attributes, "messaging.destination", p.RoutingKey)
	ctx, span := c.tracer().Start(ctx, "apply_async/"+p.Request.Task, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(attributes...))
	carrier := propagation.MapCarrier{}
	c.propagator().Inject(ctx, carrier)
	for name, v := range carrier {
		if err := p.SetTraceHeader(name, v); err != nil {
			span.RecordError(err)
		}
	}
	return span
}

func appendText(attributes []attribute.KeyValue, name, v string) []attribute.KeyValue {
	if v == "" {
		return attributes
	}
	return append(attributes, attribute.String(name, v))
}
