"""Celery's own result backends on command, without a broker: driver.py's protocol and environment. With DJANGO=1 Django is
set up for the database of RESULT_BACKEND, with django-celery-results' tables in it, and "django-db" is the backend.

Every command names the backend's URL as "task". Commands ("op"):

    keep    id, args (a name of OUTCOMES or of a set), tuple?   stores an outcome of a task, as a worker does
    outcome id, set?         what is stored. With a set, it also says whether that is the result
    save, restore, delete    of a group result, as in driver.py
    cleanup                  removes what is stored, as if it had expired
    hello
"""
import datetime as dt
import os
from types import SimpleNamespace

from celery import Celery
from celery.backends.database import DatabaseBackend
from celery.exceptions import TaskRevokedError
from celery.result import ResultBase, result_from_tuple

import djangodb
import driver
from app import CardDeclined
from values import SETS, same, short

TRACEBACK = "Traceback (most recent call last):\n  the line\n"
OUTCOMES = {
    "success": ("SUCCESS", {"total": 3, "lines": [1.5, None, "\u00e9"]}, None),
    "nothing": ("SUCCESS", None, None),
    "failure": ("FAILURE", ValueError("kaput", 42), TRACEBACK),
    "own failure": ("FAILURE", CardDeclined("no money", 402), TRACEBACK),
    "unencodable failure": ("FAILURE", ValueError(object), TRACEBACK),
    "retry": ("RETRY", KeyError("not yet"), TRACEBACK),
    "revoked": ("REVOKED", TaskRevokedError("expired"), None),
    "started": ("STARTED", {"pid": 7, "hostname": "w@h"}, None),
    "custom": ("PROGRESS", {"done": 5, "of": 9}, None),
}
REQUEST = dict(task="shop.bill", args=[1, "b"], kwargs={"c": None}, argsrepr="(1, 'b')", kwargsrepr="{'c': None}", hostname="w@h",
               retries=2, delivery_info={"routing_key": "bills"})

apps = {}


def app(command):
    url = command["task"]
    if url not in apps:
        # Up to 5.5 Celery makes tables in the first database of a process only.
        shared = DatabaseBackend.ResultSession.__defaults__[0]
        if shared is not None:
            shared.prepared = False
        apps[url] = Celery("stores", backend=url, set_as_current=False)
        apps[url].conf.update(result_extended=True)
    apps[url].set_current()  # whose a restored group is
    return apps[url]


def keep(command):
    backend = app(command).backend
    name = command["args"][0]
    status, result, traceback = OUTCOMES[name] if name in OUTCOMES else ("SUCCESS", SETS[name], None)
    children = [result_from_tuple(t, app(command)) for t in command.get("tuple") or []]
    backend.store_result(command["id"], result, status, traceback=traceback,
                         request=SimpleNamespace(id=command["id"], children=children, group=None, parent_id=None, **REQUEST))
    return {}


def outcome(command):
    result = app(command).AsyncResult(command["id"])
    value = result.result
    answer = driver.describe(result, value)
    if answer["state"] == "PENDING":
        return answer
    done = result.date_done
    answer["value"] = {
        "name": result.name, "args": result.args, "kwargs": result.kwargs, "worker": result.worker, "retries": result.retries,
        "queue": result.queue, "children": [c.as_tuple() if isinstance(c, ResultBase) else c for c in result.children or []],
        "date_done": done.replace(tzinfo=done.tzinfo or dt.timezone.utc, microsecond=0).isoformat() if done else None,
    }
    if "set" in command:
        want = SETS[command["set"]]
        answer["equal"], answer["want"] = same(want, value), short(want)
    return answer


def save(command):
    result_from_tuple(command["tuple"], app(command)).save()
    return {}


def restore(command):
    result = app(command).GroupResult.restore(command["id"])
    return {"value": result and result.as_tuple()}


def delete(command):
    app(command).GroupResult.restore(command["id"]).delete()
    return {}


def cleanup(command):
    backend = app(command).backend
    backend.expires = 1e-6 if command["task"].startswith("file:") else dt.timedelta(microseconds=1)
    backend.cleanup()
    return {}


if __name__ == "__main__":
    if os.environ.get("DJANGO"):
        djangodb.set_up(os.environ["RESULT_BACKEND"], "django_celery_results")
        djangodb.migrate()
    driver.main({f.__name__: f for f in (keep, outcome, save, restore, delete, cleanup, driver.hello)})
