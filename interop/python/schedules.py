"""Celery's own schedules on command: driver.py's protocol.

    crontabs args (cases)    answers for each case [minute, hour, day_of_week, day_of_month, month_of_year, zone, last run] what
                             its fields hold and when it runs next, in seconds since 1970: {"fields", "next"}, or {"error"}
    solars args (cases)      answers for each case [event, latitude, longitude, last run] when it comes next, or {"error"}
    hello
"""
import datetime as dt

from celery import Celery
from celery.schedules import crontab, solar

import driver

apps = {}


def answer(minute, hour, day_of_week, day_of_month, month_of_year, zone, last):
    if zone not in apps:
        apps[zone] = Celery(zone, set_as_current=False)
        apps[zone].conf.timezone = zone
    last = dt.datetime.fromtimestamp(last, dt.timezone.utc).astimezone(apps[zone].timezone)
    try:
        c = crontab(minute, hour, day_of_week, day_of_month, month_of_year, nowfun=lambda: last, app=apps[zone])
        fields = [sorted(f) for f in (c.minute, c.hour, c.day_of_week, c.day_of_month, c.month_of_year)]
        return {"fields": fields, "next": round(last.timestamp() + c.remaining_estimate(last).total_seconds())}
    except Exception as e:  # noqa: BLE001: ValueError, TypeError, ParseException, RuntimeError
        return {"error": f"{type(e).__name__}: {e}"}


def crontabs(command):
    return {"value": [answer(*case) for case in command["args"]]}


def solars(command):
    app, answers = Celery("solar", set_as_current=False), []
    for event, latitude, longitude, last in command["args"]:
        last = dt.datetime.fromtimestamp(last, dt.timezone.utc)
        try:
            remaining = solar(event, latitude, longitude, nowfun=lambda: last, app=app).remaining_estimate(last)
            answers.append({"next": last.timestamp() + remaining.total_seconds()})
        except Exception as e:  # noqa: BLE001: of polar days
            answers.append({"error": f"{type(e).__name__}: {e}"})
    return {"value": answers}


if __name__ == "__main__":
    driver.main({f.__name__: f for f in (crontabs, solars, driver.hello)})
