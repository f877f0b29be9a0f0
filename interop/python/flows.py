"""Workflows for the tests of results, and their tasks, for a worker that imports this module beside app.py. The Go tests
have the same tasks under the same names."""
from celery import chain, chord, current_task, group

from app import app


@app.task(name="flow.add")
def add(x, y):
    return x + y


@app.task(name="flow.total")
def total(numbers):
    return sum(numbers)


@app.task(name="flow.fail")
def fail(*args):
    raise ValueError(*args[-1:])


@app.task(name="flow.sends")
def sends(n):
    """Sends children of its own: a task, and a group of n."""
    queue = current_task.request.delivery_info["routing_key"]
    add.apply_async((n, n), queue=queue)
    if n:
        group(add.s(i, i).set(queue=queue) for i in range(n)).apply_async()
    return n


def build(name, queue):
    """Makes a workflow whose tasks all go to the queue."""
    def s(task, *args):
        return task.s(*args).set(queue=queue)

    return {
        "task": lambda: s(add, 1, 1),
        "chain": lambda: chain(s(add, 1, 1), s(add, 2), s(add, 3)),
        "group": lambda: group(s(add, i, i) for i in range(4)),
        "nested group": lambda: group(s(add, 1, 1), group(s(add, 2, 2), s(add, 3, 3)), s(add, 4, 4)),
        "group in a chain in a group": lambda: group(chain(s(add, 1, 1), group(s(add, 2), s(add, 3))), s(add, 4, 4)),
        "chain in a group": lambda: group(s(add, 1, 1) | s(add, 2), s(add, 3, 3)),
        "group after a task": lambda: chain(s(add, 1, 1), group(s(add, 2), s(add, 3))),
        "chord": lambda: chord([s(add, i, i) for i in range(4)], s(total)),
        "chord in a chain": lambda: chain(s(add, 1, 1), group(s(add, 2), s(add, 3)), s(total), s(add, 10)),
        "children": lambda: s(sends, 3),
        "failing chain": lambda: chain(s(add, 1, 1), s(fail, "in the middle"), s(add, 3), s(add, 4)),
        "failing group": lambda: group(s(add, 1, 1), s(fail, "first"), s(fail, "second")),
        "failing chord": lambda: chord([s(add, 1, 1), s(fail, "of the header")], s(total)),
        "failing body": lambda: chord([s(add, 1, 1), s(add, 2, 2)], s(fail, "of the body")),
    }[name]()
