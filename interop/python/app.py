"""A small Celery application for the interop tests. Its environment sets it up:

    BROKER_URL, RESULT_BACKEND   where messages and results go
    QUEUE                        default queue (celery)
    TASK_SERIALIZER, RESULT_SERIALIZER, ACCEPT_CONTENT, RESULT_ACCEPT_CONTENT   (json; json,msgpack,yaml)
    COMPRESSION                  of tasks (none)
    PROTOCOL                     1 or 2 (2)
    VISIBILITY_TIMEOUT           seconds (3600)
    KEY_PREFIX                   Redis global_keyprefix of broker and results (none)
    ACKS_LATE, TRACK_STARTED, RESULT_EXTENDED, IGNORE_RESULT   1 switches on (off)
    PREFETCH                     worker_prefetch_multiplier (4)
    RESULT_EXPIRES               seconds (86400)
    QUEUES                       task_queues, a JSON list of what the Go tests call transport.Queue (none)
    CONF                         further settings, a JSON object (none)

Run as ``celery -A app worker -P solo|threads|prefork -c N -l info -Q QUEUE``.
"""
import json
import os
import time

import celery
from celery import Celery, bootsteps
from celery.worker.consumer.tasks import Tasks
from kombu import Exchange, Queue, binding
from kombu.common import QoS, Broadcast

from values import SETS, same, short


def _env(name, default=None):
    return os.environ.get(name) or default


def _on(name):
    return _env(name, "0") not in ("0", "false", "no")


def _names(name, default):
    return _env(name, default).split(",")


def _exchange(described):
    return Exchange(described["Exchange"], type=described["ExchangeType"] or "direct")


def _queue(described):
    """Makes a kombu Queue of a transport.Queue."""
    if described["Broadcast"]:
        return Broadcast(described["Name"])
    options = {"routing_key": described["RoutingKey"], "queue_arguments": described["Arguments"]}
    if described["Exchange"]:
        options["exchange"] = _exchange(described)
    if described["Bindings"]:
        options["bindings"] = [binding(_exchange(b), routing_key=b["RoutingKey"]) for b in described["Bindings"]]
    return Queue(described["Name"], **options)


_options = {}
_result_options = {}
if not _env("BROKER_URL", "").startswith("amqp"):
    _options["visibility_timeout"] = float(_env("VISIBILITY_TIMEOUT", "3600"))
if _env("KEY_PREFIX"):
    _options["global_keyprefix"] = _result_options["global_keyprefix"] = _env("KEY_PREFIX")

app = Celery("app", broker=_env("BROKER_URL"), backend=_env("RESULT_BACKEND"))
app.conf.update(
    accept_content=_names("ACCEPT_CONTENT", "json,msgpack,yaml"),
    broker_connection_retry_on_startup=True,
    broker_transport_options=_options,
    result_accept_content=_names("RESULT_ACCEPT_CONTENT", "json,msgpack,yaml"),
    result_backend_transport_options=_result_options,
    result_expires=float(_env("RESULT_EXPIRES", "86400")),
    result_extended=_on("RESULT_EXTENDED"),
    result_serializer=_env("RESULT_SERIALIZER", "json"),
    task_acks_late=_on("ACKS_LATE"),
    task_compression=_env("COMPRESSION"),
    task_default_queue=_env("QUEUE", "celery"),
    task_ignore_result=_on("IGNORE_RESULT"),
    task_protocol=int(_env("PROTOCOL", "2")),
    task_serializer=_env("TASK_SERIALIZER", "json"),
    task_track_started=_on("TRACK_STARTED"),
    task_queues=[_queue(q) for q in json.loads(_env("QUEUES", "[]"))] or None,
    worker_prefetch_multiplier=int(_env("PREFETCH", "4")),
)
app.conf.update(json.loads(_env("CONF", "{}")))


class PrefetchByConsumer(bootsteps.StartStopStep):
    """Asks for a prefetch count of each consumer, not of the channel, which quorum queues refuse. Celery does so itself
    from 5.5 on; before, its users need such a step."""

    requires = (Tasks,)

    def start(self, consumer):
        def ask(prefetch_count):
            consumer.task_consumer.qos(prefetch_count=prefetch_count, apply_global=False)

        consumer.connection.default_channel.basic_qos(0, consumer.initial_prefetch_count, False)
        consumer.qos = QoS(ask, consumer.initial_prefetch_count)


if celery.VERSION < (5, 5) and '"quorum"' in _env("QUEUES", ""):
    app.steps["consumer"].add(PrefetchByConsumer)


class CardDeclined(Exception):
    """An exception of the user's own, to be named on the Go side."""


@app.task(name="py.add")
def add(x, y):
    return x + y


@app.task(name="py.echo")
def echo(*args, **kwargs):
    return {"args": list(args), "kwargs": kwargs}


@app.task(name="py.check")
def check(set_name, *args):
    """Compares what arrived with the named argument set, in Python's eyes."""
    return _verdict(SETS[set_name], list(args))


@app.task(name="faults.note", bind=True)
def note(self, ms):
    """Notes its run in the ledger of the fault tests, as their Go task of this name does, then takes a moment."""
    ledger = os.open(os.environ["GELERY_FAULTS_LEDGER"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    os.write(ledger, ("%s %d\n" % (self.request.id, os.getpid())).encode())
    os.close(ledger)
    time.sleep(ms / 1000)


@app.task(name="py.values")
def values(set_name):
    """Returns the named argument set."""
    return SETS[set_name]


@app.task(name="py.typed")
def typed():
    """Returns one value of every type that kombu's JSON keeps."""
    return {name: SETS[name][0] for name in ("datetime", "localtime", "date", "time", "decimal", "uuid", "bytes")}


@app.task(name="py.describe")
def describe(*args, **kwargs):
    """Tells the type and repr of each argument as it arrived."""
    tell = lambda v: [type(v).__name__, short(v)]  # noqa: E731
    return {"args": [tell(v) for v in args], "kwargs": {k: tell(v) for k, v in kwargs.items()}}


@app.task(name="py.request", bind=True)
def request(self):
    """Returns what this worker knows of the running task."""
    r = self.request
    return {
        "id": r.id, "root_id": r.root_id, "parent_id": r.parent_id, "group": r.group, "retries": r.retries,
        "origin": r.origin, "lang": r.lang, "argsrepr": r.argsrepr, "kwargsrepr": r.kwargsrepr, "eta": r.eta,
        "expires": r.expires, "timelimit": r.timelimit, "reply_to": r.reply_to, "correlation_id": r.correlation_id,
        "delivery_info": r.delivery_info,
        # Celery 5.2 shows a header of the user's own as an attribute only.
        "tenant": getattr(r, "tenant", None),
    }


@app.task(name="py.carried", bind=True)
def carried(self, want):
    """Compares the custom headers that arrived with those the arguments tell of."""
    return _verdict(want, {name: getattr(self.request, name, "missing") for name in want})


@app.task(name="py.stamped", bind=True)
def stamped(self, want):
    """Compares the stamps that arrived with those the arguments tell of."""
    return _verdict([sorted(want), want], [sorted(self.request.stamped_headers or []), self.request.stamps])


def _verdict(want, got):
    return {"equal": same(want, got), "got": short(got), "want": short(want)}


@app.task(name="py.when", bind=True)
def when(self):
    """Tells when it runs and when it was to run at the earliest."""
    return {"at": time.time(), "eta": self.request.eta}


@app.task(name="py.sleep")
def sleep(seconds):
    time.sleep(seconds)
    return seconds


# A demo task of the Go worker, so that either side can run it.
app.task(name="dev.sleep")(sleep.run)


@app.task(name="py.fail")
def fail(message):
    raise ValueError(message)


@app.task(name="py.decline")
def decline(message, code):
    raise CardDeclined(message, code)


@app.task(name="py.hold", bind=True)
def hold(self, path, meta=None):
    """Reports state PROGRESS and ends when the file exists: the test has then seen the state and made the file."""
    self.update_state(state="PROGRESS", meta=meta)
    deadline = time.monotonic() + 60
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
    return "released"


@app.task(name="py.touch", bind=True)
def touch(self, path):
    """Adds the task's id to a ledger. One write to a file opened to append, so that a killed worker leaves no half line
    and two workers never mix theirs."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{self.request.id}\n".encode())
    finally:
        os.close(fd)
