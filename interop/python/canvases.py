"""Tasks that workflows are built of, and the workflows of canvas_test.go as a Python program builds them.

The driver imports this module when CONF names it among the imports.
"""
import os

from celery import chain, chord, group, signature  # noqa: F401 (for the expressions)

from app import app


@app.task(name="py.total")
def total(numbers):
    return sum(numbers)


@app.task(name="py.tell")
def tell(message, *, path):
    """Adds a line to a file: what callbacks and error callbacks were called with. One positional
    parameter: an error callback with more is called by Celery in the worker of the failed task, with other arguments."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(fd, f"{message}\n".encode())
    finally:
        os.close(fd)


@app.task(name="py.replaced", bind=True)
def replaced(self, name, queue, x):
    return self.replace(call(name, queue, x, 1))


def call(name, queue, *args, **options):
    return signature(name, args=args, queue=queue, app=app, **options)


def py(name, *args, **options):
    return call("py." + name, "py", *args, **options)


def go(name, *args, **options):
    return call("go." + name, "go", *args, **options)
