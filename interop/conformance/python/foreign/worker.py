"""The worker that is there, in the place of the one that the suite would start in its own process."""
import os
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from . import settings

# app is the suite's app as a client. It is known from the first test with a worker on.
app = None


class Worker:
    """What a test gets for the worker object."""

    def __init__(self, hostname, pid):
        self.hostname = hostname
        self.pid = pid


class _OS:
    """The module os, but for the process id, which is the worker's."""

    def __getattr__(self, name):
        return getattr(os, name)

    @staticmethod
    def getpid():
        return settings.PID


class _State:
    """celery.worker.state, of which tests empty the revoked stamps."""

    class revoked_stamps:
        @staticmethod
        def clear():
            if settings.RESET:
                urllib.request.urlopen(settings.RESET, data=b"", timeout=120).close()


@contextmanager
def start_worker(an_app, *_args, **_kwargs):
    """Starts nothing: it empties the queue and makes sure that the worker answers, alone."""
    global app
    app = an_app
    from celery import result

    app.finalize()
    app.set_current()
    app.set_default()
    result._set_task_join_will_block(False)
    app.control.purge()
    nodes = answering(15)
    if nodes != {settings.NODE}:
        pytest.exit(f"{settings.NODE} should answer a ping, alone; there answered: {sorted(nodes)}", returncode=13)
    yield Worker(settings.NODE, settings.PID)


def answering(patience):
    """The nodes that answer a ping, asked again until there is one or patience, in seconds, is over."""
    end = time.monotonic() + patience
    while True:
        nodes = {node for reply in app.control.ping(timeout=1.0) or [] for node in reply}
        if nodes or time.monotonic() > end:
            return nodes


def introduce():
    """Tells the modules of the suite, which know their own worker, of this one."""
    for name, module in list(sys.modules.items()):
        if name.startswith("t.integration.test_"):
            if hasattr(module, "NODENAME"):
                module.NODENAME = settings.NODE
                module.os = _OS()
            if hasattr(module, "worker_state"):
                module.worker_state = _State


def hasten_inspection():
    """An inspection waits a second for more workers to answer, after every test. There is one."""
    from celery.app.control import Inspect
    plain = Inspect.__init__

    def init(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        self.limit = self.limit or 1

    Inspect.__init__ = init
