"""A Python client as a process: reads one JSON command per line, answers each with one JSON line.

The environment is that of app.py. Commands ("op"):

    send    task, id?, args?, kwargs? or set?, options?, protocol?, record?   sends; options are send_task's. Answers id.
            With record, get will tell all states the task went through. Over rpc it always does.
    get     id, timeout?, set?, via?   waits for the result and says what it is. With a set, it also says whether the
            result is an echo of that set, as a Python worker would have echoed it; via is the serializer that carried
            the arguments.
    canvas  expression or signature    builds a workflow with the names of canvases.py, or of its JSON form; sends it, waits
            for the result and says what it is
    state   id       the state now, without waiting
    forget  id
    count   id, args (result, group, index), signature   counts a part of a chord as a worker does that has run it, by
            the backend's own code, which sends the body (the signature) when it is the last
    control task (the method), kwargs?, options?, timeout?   broadcasts a command of remote control and answers the replies as value;
            options are broadcast's: destination, pattern, matcher. Without a timeout no reply is asked for
    flow    task, options   applies a workflow of flows.py to the queue of the options. Answers its as_tuple as value
    join    tuple, timeout?  waits for the result of a tuple, of a group for all, as its get does by default. A failed one
            is a failed command
    tree    tuple    what is below the result of a tuple: {"edges", "collected"}; the latter is null if a task failed
    save, restore, delete   of a group result: tuple, id, id. Restore answers its as_tuple, null if there is none
    hello            the versions of this side

Every answer has "ok"; when false, "error" says why and "kind" names the exception.
"""
import json
import sys
import time
import uuid
from types import SimpleNamespace

import celery
import kombu
import redis
from celery.backends import rpc
from celery.result import AsyncResult, GroupResult, result_from_tuple
from celery.states import READY_STATES
from kombu import serialization

import flows
from app import app
from values import SETS, same, short


if celery.VERSION[:3] == (5, 6, 3):
    # This release takes the end of its own poll, which is after a second, for a lost connection. It makes a new reply
    # queue then, and what arrives meanwhile is lost (celery#10284). The releases before do this, and so will the next.
    def drain_events(self, timeout=None):
        if self._connection:
            return self._connection.drain_events(timeout=timeout)
        if timeout:
            time.sleep(timeout)

    rpc.ResultConsumer.drain_events = drain_events


def carried(value, serializer):
    """What arrives of a value when Python itself writes and reads it. An unencodable one raises."""
    content_type, encoding, data = serialization.dumps(value, serializer=serializer)
    return serialization.loads(data, content_type, encoding, accept=[content_type])


recorders = {}  # by task id: a subscription to what the worker announces


def over_rpc():
    return app.conf.result_backend.startswith("rpc")


def record(task_id):
    """Listens before the task is sent. AsyncResult would do, but it skips what happened before it is asked; over rpc all
    states are messages, and none is skipped."""
    if over_rpc():
        return
    recorders[task_id] = pubsub = app.backend.client.pubsub()
    pubsub.subscribe(app.backend.get_key_for_task(task_id))
    if pubsub.get_message(timeout=30) is None:
        raise TimeoutError("Redis does not confirm the subscription")


def recorded(task_id):
    """Reads what was announced, to the final state."""
    states = []
    with recorders.pop(task_id) as pubsub:
        while not states or states[-1] not in READY_STATES:
            message = pubsub.get_message(timeout=30)
            if message is None:
                raise TimeoutError(f"no final state was announced, only {states}")
            states.append(app.backend.decode_result(message["data"])["status"])
    return states


def send(command):
    task_id = command.get("id") or str(uuid.uuid4())
    if command.get("record"):
        record(task_id)
    protocol = command.get("protocol", 2)
    # Celery reads task_protocol once; the test wants both from one process.
    app.amqp.create_task_message = app.amqp.task_protocols[protocol]
    args = SETS[command["set"]] if "set" in command else command.get("args", [])
    result = app.send_task(
        command["task"], args=args, kwargs=command.get("kwargs", {}), task_id=task_id, **command.get("options", {}))
    return {"id": result.id}


def get(command):
    result = app.AsyncResult(command["id"])
    states = []
    options = {"on_message": lambda meta: states.append(meta["status"])} if over_rpc() else {}
    # propagate=False returns the exception of a failed task instead of raising it
    value = result.get(timeout=command.get("timeout", 30), propagate=False, **options)
    answer = describe(result, value)
    if states:
        answer["states"] = states
    if command["id"] in recorders:
        answer["states"] = recorded(command["id"])
    if "set" in command:
        arguments = carried([SETS[command["set"]], {}], command.get("via", "json"))
        want = carried({"args": arguments[0], "kwargs": arguments[1]}, app.conf.result_serializer)
        answer["equal"] = same(want, value)
        answer["want"] = short(want)
    return answer


def describe(result, value):
    answer = {"id": result.id, "state": result.state, "got": short(value), "traceback": result.traceback}
    if isinstance(value, BaseException):
        answer["exception"] = {
            "type": type(value).__name__,
            "module": type(value).__module__,
            "bases": [c.__name__ for c in type(value).__mro__],
            "args": [a if isinstance(a, (str, int, type(None))) else repr(a) for a in value.args],
        }
    else:
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            pass  # "got" tells it
        else:
            if len(text) <= 4096:  # a big payload is judged here, not carried back
                answer["value"] = value
    return answer


def canvas(command):
    """Builds a workflow of a Python expression or of its JSON form, sends it and waits for the result."""
    import canvases

    if command.get("expression"):
        sig = eval(command["expression"], vars(canvases))
    else:
        sig = canvases.signature(command["signature"], app=app)
    result = sig.apply_async()
    value = result.get(timeout=command.get("timeout", 60), propagate=False)
    if isinstance(result, GroupResult):
        return {"id": result.id, "value": value}
    return describe(result, value)


def state(command):
    result = app.AsyncResult(command["id"])
    return describe(result, result.info)


def forget(command):
    app.AsyncResult(command["id"]).forget()
    return {}


def count(command):
    result, group, index = command["args"]
    request = SimpleNamespace(id=command["id"], group=group, group_index=index, chord=command["signature"])
    app.backend.on_chord_part_return(request, "SUCCESS", result)
    return {}


def control(command):
    replies = app.control.broadcast(command["task"], arguments=command.get("kwargs", {}), reply="timeout" in command,
                                    timeout=command.get("timeout", 1), **command.get("options", {}))
    return {"value": json.loads(json.dumps(replies), parse_constant=str)}  # conf holds an Infinity


def of_tuple(command):
    return result_from_tuple(command["tuple"], app)


def waited(result, timeout=30):
    """The value of a result. A group's own get() may wait for ever while another result of its id is alive in the process,
    as that of flow() may be; its join() does not."""
    return (result.join if isinstance(result, GroupResult) else result.get)(timeout=timeout)


def flow(command):
    signature = flows.build(command["task"], command["options"]["queue"])
    return {"value": signature.apply_async().as_tuple()}


def join(command):
    return {"value": waited(of_tuple(command), command.get("timeout", 30))}


def tree(command):
    result = of_tuple(command)  # of a group as well, which has no such methods
    edges = [[parent and parent.id, node.id] for parent, node in AsyncResult.iterdeps(result, intermediate=True)]
    try:
        collected = [[node.id, waited(node)] for _, node in AsyncResult.iterdeps(result)]
    except ValueError:
        collected = None
    return {"value": {"edges": edges, "collected": collected}}


def save(command):
    of_tuple(command).save()
    return {}


def restore(command):
    result = app.GroupResult.restore(command["id"])
    return {"value": result and result.as_tuple()}


def delete(command):
    app.GroupResult.restore(command["id"]).delete()
    return {}


def hello(command):
    return {"celery": celery.__version__, "kombu": kombu.__version__, "redis": redis.__version__,
            "python": sys.version.split()[0]}


OPERATIONS = {f.__name__: f for f in (send, get, canvas, state, forget, count, control, flow, join, tree, save, restore, delete, hello)}


def main(operations=OPERATIONS):
    # What a library prints must not end up between the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    for line in sys.stdin:
        try:
            command = json.loads(line)
            answer = {"ok": True, **operations[command["op"]](command)}
        except Exception as e:  # noqa: BLE001: whatever went wrong is an answer
            answer = {"ok": False, "kind": type(e).__name__, "error": str(e)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
