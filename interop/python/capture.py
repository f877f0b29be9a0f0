"""A monitor as a process: writes every event that Celery's own receiver hands out as one line of JSON, as it was sent but
for what the receiver adds: local_received, and the clock of task-sent. Events of workers also have "alive": whether
Celery's state of the cluster takes the worker for alive then. "ready" is the first line.
"""
import json
import sys

from app import app


def main():
    app.conf.event_queue_ttl = 600.0  # by default RabbitMQ throws events away that a busy machine has not read in five seconds
    state = app.events.State()

    def tell(event):
        if event["type"].startswith("worker-elect"):  # which ends Celery's state of the cluster: a Worker's id has no setter
            print(json.dumps(event), flush=True)
            return
        state.event(event.copy())
        if event["type"].startswith("worker-"):
            event["alive"] = state.workers[event["hostname"]].alive
        print(json.dumps(event), flush=True)

    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": tell})
        ready = receiver.on_consume_ready

        def on_consume_ready(*args, **kwargs):
            ready(*args, **kwargs)
            print(json.dumps("ready"), flush=True)

        receiver.on_consume_ready = on_consume_ready
        receiver.capture(limit=None, timeout=None, wakeup=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
