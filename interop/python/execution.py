"""Tasks that show how a worker takes, keeps and gives back its messages, for a worker that imports this module beside
app.py. The Go tests have the same tasks under the same names (program_test.go), and compare."""
import os
import time

from celery.utils.log import get_task_logger

from app import app

log = get_task_logger(__name__)


def wait(task_id, path):
    """Notes the run in the ledger "<path>.runs", and ends when the file is there."""
    ledger = os.open(path + ".runs", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(ledger, f"{task_id}\n".encode())
    finally:
        os.close(ledger)
    deadline = time.monotonic() + 600  # a busy machine; the test ends the worker before
    while not os.path.exists(path):
        if time.monotonic() > deadline:
            raise TimeoutError(path)
        time.sleep(0.01)
    return "done"


@app.task(name="exec.waits", bind=True, acks_late=True)
def waits(self, path):
    return wait(self.request.id, path)


@app.task(name="exec.waits_early", bind=True, acks_late=False)
def waits_early(self, path):
    return wait(self.request.id, path)


@app.task(name="exec.dies", acks_late=True)
def dies():
    os._exit(3)


@app.task(name="exec.dies_once", bind=True, acks_late=True, reject_on_worker_lost=True)
def dies_once(self):
    if not self.request.delivery_info["redelivered"]:
        os._exit(3)
    return "again"


@app.task(name="exec.says")
def says(text):
    log.info("says %s", text)


@app.task(name="exec.request", bind=True)
def request(self, *args, **kwargs):
    r = self.request
    return {
        "id": r.id, "task": r.task, "root_id": r.root_id, "parent_id": r.parent_id, "group": r.group, "retries": r.retries,
        "eta": r.eta, "expires": r.expires, "shadow": r.shadow, "timelimit": r.timelimit and [t and float(t) for t in r.timelimit],
        "argsrepr": r.argsrepr, "kwargsrepr": r.kwargsrepr, "origin": r.origin, "lang": r.lang, "reply_to": r.reply_to,
        "ignore_result": bool(r.ignore_result), "correlation_id": r.correlation_id, "hostname": r.hostname,
        "exchange": r.delivery_info["exchange"], "routing_key": r.delivery_info["routing_key"],
        "priority": r.delivery_info["priority"], "redelivered": bool(r.delivery_info["redelivered"]),
        "args": list(r.args), "kwargs": r.kwargs, "tenant": getattr(r, "tenant", None),
        "group_index": getattr(r, "group_index", None), "replaced_task_nesting": getattr(r, "replaced_task_nesting", 0),
        "stamps": getattr(r, "stamps", None) or None, "stamped_headers": getattr(r, "stamped_headers", None) or None,
    }


kept = []


@app.task(name="exec.pid")
def pid(mebibytes):
    """Tells the process that runs it, which keeps so much memory."""
    kept.append(b"x" * (mebibytes << 20))
    return os.getpid()
