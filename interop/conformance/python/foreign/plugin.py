"""A pytest plugin: Celery's integration suite judges a worker that runs already.

What the suite's fixtures start in the process of the tests is replaced by foreign.worker; which tests are run, and count,
says foreign.table; foreign.settings is what is to be told. Nothing of the suite is changed.
"""
import json
import os
import signal

import pytest

from . import redisport, settings, worker
from .table import Table
from .tap import Tap


def pytest_configure(config):
    from celery.contrib import pytest as fixtures
    from celery.contrib.testing import worker as embedded

    if not config.pluginmanager.is_registered(fixtures):
        config.pluginmanager.register(fixtures, "celery.contrib.pytest")
    embedded.start_worker = worker.start_worker
    worker.hasten_inspection()
    redisport.redirect(settings.REDIS_PORT)
    config.pluginmanager.register(Judge(Table(settings.TABLE, settings.VERSION, settings.STACK)), "foreign-judge")


class Judge:
    """Chooses the tests, limits their time and writes down what came of them."""

    def __init__(self, table):
        self.table = table
        self.verdicts = {}
        self.tap = None

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config, items):
        chosen = [i for i in items if self.table.judges(i.nodeid, settings.SHORT)]
        config.hook.pytest_deselected(items=[i for i in items if i not in chosen])
        for item in chosen:
            item.add_marker(pytest.mark.flaky(reruns=settings.RERUNS, reruns_delay=1), append=False)
        # The tests of inspection compare whole lists, in which nothing of others may be left.
        items[:] = sorted(chosen, key=lambda i: "test_inspect" not in i.nodeid)
        worker.introduce()
        self.write(selected=[i.nodeid for i in items])

    # Limits of time. A signal that rings again until the phase is over also ends a test in which a subtest has swallowed
    # the first one.

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        self.open_tap()
        mark = item.get_closest_marker("timeout")
        own = mark and (mark.args[0] if mark.args else mark.kwargs.get("timeout"))
        return (yield from self.limited(min(settings.LIMIT, own or settings.LIMIT), "the test"))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_teardown(self, item):
        return (yield from self.limited(60, "what follows the test, where the worker must become idle,"))

    @staticmethod
    def limited(seconds, what):
        def ring(_signal, _frame):
            pytest.fail(f"{what} took more than {seconds} s")

        signal.signal(signal.SIGALRM, ring)
        signal.setitimer(signal.ITIMER_REAL, seconds, 2)
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def open_tap(self):
        broker = os.environ["TEST_BROKER"]
        if self.tap is None and worker.app is not None and broker.startswith("redis"):
            self.tap = Tap(broker, worker.app)
            self.tap.start()
            if not self.tap.opened.wait(10):
                raise RuntimeError("the broker does not let itself be watched")

    # Verdicts.

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report):
        v = self.verdicts.setdefault(report.nodeid, {"outcome": "", "why": "", "seconds": 0.0, "reruns": 0})
        if type(report).__name__ == "SubTestReport":
            if report.failed:
                v.update(outcome="failed", why="subtest: " + reason(report))
            return
        v["seconds"] = round(v["seconds"] + report.duration, 2)
        if report.outcome == "rerun":
            v.update(outcome="", why=reason(report), reruns=v["reruns"] + 1)
        elif report.failed:
            v.update(outcome="failed", why=reason(report))
        elif report.skipped:
            v.update(outcome="skipped", why=reason(report))
        elif report.when == "call" and not v["outcome"]:
            v["outcome"] = "passed"

    def pytest_runtest_logfinish(self, nodeid):
        self.write(test=nodeid, **self.verdicts[nodeid])

    @staticmethod
    def write(**line):
        with open(settings.RESULTS, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")


def reason(report):
    """The line of a report that says most: the first one of the error."""
    text = getattr(report, "wasxfail", "") or report.longreprtext
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line[1:].strip() for line in lines if line.startswith("E ")]
    return (errors or lines or [""])[0][:300]
