"""Writes celery-<version>.json: what this environment's Celery puts on the wire, with ids and dates made constant.

Run it once per version in an environment with celery, msgpack and PyYAML: python generate.py > celery-5.6.3.json
"""
import datetime
import itertools
import json
import re
import sys

import celery
import kombu.transport.memory
import kombu.utils.json
from celery import Celery, chain, chord
from celery.app.task import Context
from celery.backends.base import KeyValueStoreBackend

envelopes, results = {}, {}
sent, stored = [], []
kombu.transport.memory.Channel._put = lambda self, queue, message, **kw: sent.append(kombu.utils.json.dumps(message))

app = Celery("golden", broker="memory://", backend="cache+memory://")


@app.task(name="tasks.add")
def add(x, y):
    return x + y


@app.task(name="tasks.tsum")
def tsum(numbers):
    return sum(numbers)


def constant(text):
    """Ids and dates differ in every run; in the goldens they are counted."""
    seen = {}
    count = itertools.count(1)

    def replace(match):
        if match[0] not in seen:
            seen[match[0]] = "%08x-0000-4000-8000-000000000000" % next(count)
        return seen[match[0]]

    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[345][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", replace, text)
    text = re.sub(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", "2026-01-02T03:04:05.678901", text)
    return re.sub(r"gen\d+@[\w.-]+", "gen1@host", text)


def send(name, args=(), kwargs=None, task="tasks.add", **options):
    options.setdefault("task_id", "task-1")
    app.send_task(task, args, kwargs or {}, **options)
    envelopes[name] = constant(sent[-1])


ID = "aaaaaaaa-0000-4000-8000-000000000001"
send("plain", (2, 3), {"debug": True})
send("options", (2,), countdown=10, expires=60, priority=5, time_limit=30, soft_time_limit=20, shadow="sh",
     headers={"x": "y", "n": 12345678901234567890, "f": 1.25, "o": {"a": [None, True]}}, reply_to="rq",
     ignore_result=True, root_id="r", parent_id="p", group_id="g", group_index=3, retries=2)
send("float_timelimit", (2,), time_limit=1.5)
send("gzip", ("a" * 50,), compression="gzip")
send("stamps", (1,), stamped_headers=["st", "s2"], st="v", s2=["a", "b"])
send("unicode", ("\u00e9\U0001f600",), task="tasks.\u00e9", shadow="\u00e9\U0001f600\ud800")
send("property", (1,), foo="bar", delivery_mode=1)
send("yaml", (1,), serializer="yaml")
send("msgpack", (1,), serializer="msgpack")
send("link", (1, 2), link=[add.s(1), add.si(1, 2)], link_error=[add.s(3)])

mark = len(sent)
chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()
envelopes["chain"] = constant(sent[mark])
mark = len(sent)
try:
    chord([add.s(1, 2), add.s(3, 4)])(tsum.s())
except Exception as exc:  # the capture is before what fails without a server
    print("chord:", exc, file=sys.stderr)
parts = [m for m in sent[mark:] if '"tasks.add"' in m]
envelopes["chord"] = constant(parts[0])

app.conf.task_protocol = 1
app.amqp.__dict__.pop("create_task_message", None)
app.amqp.__dict__.pop("_create_task_sender", None)
# The body holds these dates where constant() does not see them.
moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.timezone.utc)
send("v1", (2, 3), {"debug": True}, eta=moment, expires=moment, time_limit=5, group_id="g", link=[add.s(1)])
app.conf.task_protocol = 2


def store(name, serializer, result, state, extended=False, **request):
    app.conf.result_extended = extended
    backend = KeyValueStoreBackend(app=app, serializer=serializer)
    request.setdefault("id", ID)
    context = Context(request)
    value = backend.prepare_exception(result, serializer) if isinstance(result, BaseException) else result
    meta = backend._get_result_meta(result=value, state=state, traceback=request.pop("traceback", None),
                                    request=context)
    meta["task_id"] = ID
    payload = backend.encode(meta)
    results[name + "." + serializer] = (payload.encode() if isinstance(payload, str) else payload)


class Inner:
    class Err(Exception):
        pass


for serializer in ("json", "yaml", "msgpack"):
    store("success", serializer, 5, "SUCCESS")
    store("success_tree", serializer, {"a": [1, 2.5, None, "\u00e9\nstatus: SUCCESS\n"]}, "SUCCESS", group="g", parent_id="p")
    store("failure", serializer, ValueError("bad", 42), "FAILURE", traceback="Traceback:\nstatus: SUCCESS\n")
    store("nested_class", serializer, Inner.Err(), "FAILURE")
    store("started", serializer, {"pid": 1, "hostname": "celery@host"}, "STARTED")
    store("retry_bare", serializer, None, "RETRY")
    store("extended", serializer, 5, "SUCCESS", extended=True, task="tasks.add", args=[1, 2], kwargs={"k": 1},
          hostname="celery@host", retries=1, delivery_info={"routing_key": "celery"}, stamped_headers=["st"],
          stamps={"st": "v"})

print(json.dumps({
    "celery": celery.__version__,
    "envelopes": envelopes,
    "results": {k: re.sub(rb"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", b"2026-01-02T03:04:05.678901", v).decode("latin-1")
                for k, v in results.items()},
}, indent=1))
