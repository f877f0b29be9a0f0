"""Runs the celery command as its script does, each time in a fork of this process, so that Celery is imported only once.

A driver (driver.py) with one operation more:

    celery  args, timeout   answers {"code", "said", "failed"}: exit code, standard output and standard error
"""
import os
import sys
import tempfile
import time

import celery.bin.celery  # noqa: F401: what the forks need
from celery.__main__ import main as celery_main

import driver


def run(command):
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as failed:
        child = os.fork()
        if child == 0:
            become(["celery", *command["args"]], said, failed)
        code = wait(child, command["timeout"])
        return {"value": {"code": code, "said": text(said), "failed": text(failed)}}


def become(argv, said, failed):
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    nothing = os.open(os.devnull, os.O_RDONLY)
    for own, other in ((0, nothing), (1, said.fileno()), (2, failed.fileno())):
        os.dup2(other, own)
    sys.argv = argv
    code = 1
    try:
        celery_main()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else int(e.code is not None)
    except BaseException:  # noqa: BLE001: what the interpreter does with it
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child, timeout):
    deadline = time.monotonic() + timeout
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            raise TimeoutError(f"the command does not end in {timeout} s")
        time.sleep(0.005)


def text(file):
    file.seek(0)
    return file.read().decode()


if __name__ == "__main__":
    driver.main({**driver.OPERATIONS, "celery": run})
