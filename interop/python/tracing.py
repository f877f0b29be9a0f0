"""The application of app.py under OpenTelemetry's instrumentation of Celery and Sentry's. SPANS names the file to which each
ended span is added, as a line of JSON; what Sentry has to send goes nowhere.

Run as ``celery -A tracing worker -P threads``, which has the task py.traced, or as ``python tracing.py TASK QUEUE``, which calls that task
within a span and a transaction of its own, waits for the result, and prints {"trace", "span", "result"}. The task "chain" is one of
go.first and, in Python's queue, py.echo.
"""
import json
import os
import sys

import sentry_sdk
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from sentry_sdk.integrations.celery import CeleryIntegration

from app import app


class File(SpanExporter):
    def export(self, spans):
        for s in spans:
            line = {
                "name": s.name, "kind": s.kind.name, "trace": format(s.context.trace_id, "032x"), "span": format(s.context.span_id, "016x"),
                "parent": format(s.parent.span_id, "016x") if s.parent else "", "attributes": dict(s.attributes),
                "status": s.status.status_code.name, "description": s.status.description or "",
                "events": [dict(e.attributes, name=e.name) for e in s.events],
            }
            file = os.open(os.environ["SPANS"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
            os.write(file, (json.dumps(line, default=list) + "\n").encode())
            os.close(file)
        return SpanExportResult.SUCCESS


provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(File()))
trace.set_tracer_provider(provider)
CeleryInstrumentor().instrument()
sentry_sdk.init(dsn="http://key@127.0.0.1:9/1", transport=lambda event: None, traces_sample_rate=1.0, integrations=[CeleryIntegration()])


@app.task(name="py.traced", bind=True)
def traced(self):
    return (self.request.headers or {}).get("sentry-trace")


@app.task(name="py.failed")
def failed():
    raise ValueError("kaput")


def main(task):
    queue = sys.argv[2]
    if task == "chain":
        call = (app.signature("go.first", queue=queue) | app.signature("py.echo", queue="py")).apply_async
    else:
        call = app.signature(task, queue=queue).apply_async
    with sentry_sdk.start_transaction(name="root"):
        with trace.get_tracer("test").start_as_current_span("root") as span:
            result = call()
        context = span.get_span_context()
    answer = {"trace": format(context.trace_id, "032x"), "span": format(context.span_id, "016x"),
              "result": result.get(timeout=60, propagate=False)}
    print(json.dumps(answer, default=str), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
