"""Tasks that end in every way a task can, for a worker that imports this module beside app.py. The Go tests have the same
tasks under the same names, and compare."""
import time

from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded

from app import app

# Retries must be slow enough to be seen, and fast enough to wait for.
SOON = 0.2


@app.task(name="outcome.returns")
def returns(value):
    return value


@app.task(name="outcome.takes")
def takes(seconds):
    time.sleep(seconds)


@app.task(name="outcome.quiet", ignore_result=True)
def quiet(fail):
    if fail:
        raise ValueError("kaput")
    return 1


@app.task(name="outcome.arguments")
def arguments(x, y, *, z=1):
    return x + y + z


@app.task(name="outcome.fails")
def fails():
    raise ValueError("kaput", 42)


@app.task(name="outcome.expected", throws=(LookupError,))
def expected():
    raise KeyError("ok")


@app.task(name="outcome.ignores")
def ignores():
    raise Ignore()


@app.task(name="outcome.custom", bind=True)
def custom(self):
    self.update_state(state="BLOCKED", meta={"by": 7})
    raise Ignore()


@app.task(name="outcome.rejects", acks_late=True)
def rejects():
    raise Reject("no thanks", requeue=False)


@app.task(name="outcome.requeues", bind=True, acks_late=True)
def requeues(self):
    if not self.request.delivery_info["redelivered"]:
        raise Reject("later", requeue=True)
    return "again"


@app.task(name="outcome.retries", bind=True)
def retries(self, until):
    if self.request.retries < until:
        raise self.retry(exc=KeyError(f"nope {self.request.retries}"), countdown=SOON)
    return self.request.retries


@app.task(name="outcome.exhausts", bind=True, max_retries=1)
def exhausts(self, x):
    raise self.retry(exc=KeyError("nope"), countdown=SOON)


@app.task(name="outcome.wordless", bind=True, max_retries=1, default_retry_delay=SOON)
def wordless(self, x, y=None):
    raise self.retry()


@app.task(name="outcome.override", bind=True, max_retries=0)
def override(self):
    raise self.retry(exc=KeyError("nope"), countdown=SOON, max_retries=1)


@app.task(name="outcome.never", bind=True, max_retries=0)
def never(self):
    raise self.retry(exc=KeyError("nope"), countdown=SOON)


@app.task(name="outcome.arguments_anew", bind=True)
def arguments_anew(self, n, *, left=0):
    if n:
        raise self.retry(args=[n - 1], kwargs={"left": left + n}, countdown=SOON)
    return [left, self.request.argsrepr, self.request.kwargsrepr]


@app.task(name="outcome.auto", bind=True, autoretry_for=(LookupError,), retry_kwargs={"max_retries": 2, "countdown": SOON})
def auto(self, until):
    if self.request.retries < until:
        raise KeyError(f"nope {self.request.retries}")
    return self.request.retries


@app.task(name="outcome.auto_other", autoretry_for=(LookupError,), retry_kwargs={"countdown": SOON})
def auto_other():
    raise ValueError("not this one")


@app.task(name="outcome.auto_backoff", bind=True, autoretry_for=(Exception,), retry_backoff=1, retry_jitter=False, max_retries=1)
def auto_backoff(self):
    raise KeyError("nope")


@app.task(name="outcome.soft", soft_time_limit=1)
def soft():
    time.sleep(30)


@app.task(name="outcome.soft_caught", soft_time_limit=1)
def soft_caught():
    try:
        time.sleep(30)
    except SoftTimeLimitExceeded:
        return "cleaned up"


@app.task(name="outcome.hard", time_limit=1)
def hard():
    time.sleep(30)


@app.task(name="outcome.dead", acks_late=True, acks_on_failure_or_timeout=False)
def dead():
    raise ValueError("kaput")


@app.task(name="outcome.crosses", bind=True)
def crosses(self, queue, *args, **kwargs):
    """Goes to the queue for its second attempt, which tells what it sees of its call."""
    if self.request.retries == 0:
        raise self.retry(queue=queue, countdown=SOON, exc=KeyError("crossing"))
    r = self.request
    return {
        "id": r.id, "root_id": r.root_id, "parent_id": r.parent_id, "group": r.group, "retries": r.retries,
        "args": list(args), "kwargs": kwargs, "argsrepr": r.argsrepr, "kwargsrepr": r.kwargsrepr, "origin": r.origin,
        "shadow": r.shadow, "timelimit": r.timelimit and [t and float(t) for t in r.timelimit], "eta": bool(r.eta),
        "expires": r.expires, "correlation_id": r.correlation_id, "reply_to": r.reply_to,
        "priority": r.delivery_info["priority"], "tenant": getattr(r, "tenant", None),
        "stamps": getattr(r, "stamps", None) or None, "stamped_headers": getattr(r, "stamped_headers", None) or None,
    }
