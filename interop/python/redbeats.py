"""Reads all entries of a schedule with RedBeat's own class and says when each is due; with the argument write it writes entries of
every kind, and says which moments follow which times.
"""
import json
import sys
import time
from datetime import datetime, timedelta, timezone

from celery.schedules import crontab, schedule
from redbeat import RedBeatSchedulerEntry
from redbeat.schedulers import get_redis
from redbeat.schedules import rrule

from app import app


def read():
    client = get_redis(app)
    found = {}
    for key, score in client.zrange("redbeat::schedule", 0, -1, withscores=True):
        entry = RedBeatSchedulerEntry.from_key(key, app=app)
        entry.is_due()
        # Not due_at, which is early by the time since the last run.
        due = time.time() + entry.schedule.remaining_estimate(entry.last_run_at).total_seconds()
        found[entry.name] = {"Due": due, "Score": score, "Enabled": entry.enabled}
    return found


BEGIN = datetime(2026, 11, 1, 12, 30, 15, tzinfo=timezone.utc)

RULES = {
    "daily": dict(freq="DAILY", dtstart=BEGIN),
    "third day": dict(freq="DAILY", interval=3, dtstart=BEGIN),
    "offices": dict(freq="WEEKLY", dtstart=BEGIN, byweekday=[0, 1, 2, 3, 4], byhour=[9, 17], byminute=0, bysecond=0),
    "second week": dict(freq="WEEKLY", interval=2, dtstart=BEGIN, wkst=6, byweekday=[6, 1]),
    "last of month": dict(freq="MONTHLY", dtstart=BEGIN, bymonthday=-1),
    "last workday": dict(freq="MONTHLY", dtstart=BEGIN, byweekday=[0, 1, 2, 3, 4], bysetpos=-1),
    "yearly": dict(freq="YEARLY", dtstart=BEGIN, bymonth=[2, 8], bymonthday=29),
    "leap": dict(freq="YEARLY", dtstart=datetime(2024, 2, 29, 1, 2, 3, tzinfo=timezone.utc)),
    "hours": dict(freq="HOURLY", interval=7, dtstart=BEGIN),
    "minutes": dict(freq="MINUTELY", dtstart=BEGIN, byhour=[8], interval=1, bysecond=[0, 30]),
    "seconds": dict(freq="SECONDLY", interval=45, dtstart=BEGIN),
    "counted": dict(freq="DAILY", count=5, dtstart=BEGIN),
    "until": dict(freq="DAILY", until=BEGIN + timedelta(days=9), dtstart=BEGIN),
    "easter": dict(freq="YEARLY", dtstart=BEGIN, byeaster=[0, 1]),
    "offset": dict(freq="DAILY", dtstart=BEGIN.astimezone(timezone(timedelta(hours=5, minutes=30))), byhour=0, byminute=0, bysecond=0),
}


def write():
    schedules = {name: rrule(app=app, **rule) for name, rule in RULES.items()}
    written = {}
    for name, rule in schedules.items():
        RedBeatSchedulerEntry(name, "tick", rule, args=[name], options={"queue": "q"}, app=app).save()
        after = []
        for hours in (0, 1, 30, 24 * 9, 24 * 40, 24 * 500):
            at = BEGIN + timedelta(hours=hours, seconds=7)
            following = rule.rrule.after(at)
            after.append([at.timestamp(), following.timestamp() if following else 0])
        written[name] = {"After": after}
    for name, plain in {
        "interval": schedule(timedelta(seconds=1.5), app=app),
        "relative": schedule(3600, relative=True, app=app),
        "crontab": crontab(minute="*/20", hour=[5, 6], day_of_week="mon,fri", app=app),
    }.items():
        RedBeatSchedulerEntry(name, "tick", plain, app=app).save()
        written[name] = {"After": []}
    return written


json.dump(write() if sys.argv[1:] == ["write"] else read(), sys.stdout)
