"""django-celery-beat with its tables in the database of DJANGO_DATABASE, and otherwise app.py's environment. It is the
application of ``celery -A djangobeat beat -S django``, and run by itself Django's side of its tables on command, by
driver.py's protocol:

    migrate makes the tables
    create  args: rows of PeriodicTask as objects, in which a schedule is an object of its own: {"interval": {"every": 1, …}}
    change  id: the name, kwargs: fields to set, as the admin pages do
    rows    all rows, by name
    due     what Python's beat says of each enabled row: {"due", "next" in seconds}
    hello
"""
import datetime as dt
import os

import djangodb

djangodb.set_up(os.environ["DJANGO_DATABASE"], "django_celery_beat")

from django_celery_beat import models  # noqa: E402: Django must be set up
from django_celery_beat.schedulers import ModelEntry  # noqa: E402

import driver  # noqa: E402
from app import app  # noqa: E402

KINDS = {"interval": models.IntervalSchedule, "crontab": models.CrontabSchedule, "solar": models.SolarSchedule,
         "clocked": models.ClockedSchedule}
TIMES = ("expires", "start_time", "last_run_at", "clocked_time")


def times(fields):
    return {k: dt.datetime.fromisoformat(v.replace("Z", "+00:00")) if k in TIMES and v else v for k, v in fields.items()}


def create(command):
    for fields in command["args"]:
        row = times(fields)
        for kind, model in KINDS.items():
            if kind in row:
                row[kind] = model.objects.get_or_create(**times(row[kind]))[0]
        models.PeriodicTask.objects.create(**row)
    return {}


def change(command):
    row = models.PeriodicTask.objects.get(name=command["id"])
    for name, v in times(command["kwargs"]).items():
        setattr(row, name, v)
    row.save()
    return {}


def rows(command):
    def text(t):
        return t and t.isoformat()

    return {"value": {r.name: {"enabled": r.enabled, "count": r.total_run_count, "last": text(r.last_run_at), "kind": str(r.scheduler),
                               "args": r.args, "kwargs": r.kwargs, "queue": r.queue, "expire_seconds": r.expire_seconds}
                      for r in models.PeriodicTask.objects.all()}}


def due(command):
    answers = {}
    for row in models.PeriodicTask.objects.enabled():
        is_due, seconds = ModelEntry(row, app=app).is_due()
        answers[row.name] = {"due": is_due, "next": seconds}
    return {"value": answers}


if __name__ == "__main__":
    driver.main({f.__name__: f for f in (djangodb.migrate, create, change, rows, due, driver.hello)})
