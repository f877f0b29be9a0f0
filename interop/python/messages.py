"""Prints the first message of each queue named on the command line as a line of JSON: what kombu makes of it."""
import base64
import json
import sys
import time

from app import app
from kombu import Queue


def first(channel, name):
    """Waits for the first message. It is sent a moment after beat has said so."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        message = Queue(name, channel=channel).get(no_ack=True)
        if message is not None:
            return message
        time.sleep(0.05)
    raise TimeoutError(name)


def main(queues):
    with app.connection_for_read() as connection:
        for name in queues:
            message = first(connection.default_channel, name)
            body = message.body.encode("latin-1") if isinstance(message.body, str) else bytes(message.body)
            headers = dict(message.headers)
            print(json.dumps({
                "queue": name,
                "body": message.decode() if message.content_type == "application/json" else base64.b64encode(body).decode(),
                "headers": headers,
                "properties": {k: v for k, v in message.properties.items() if k not in ("delivery_tag", "delivery_info")},
                "exchange": message.delivery_info.get("exchange"),
                "routing_key": message.delivery_info.get("routing_key"),
                "content_type": message.content_type,
                "content_encoding": message.content_encoding,
            }, default=str))


if __name__ == "__main__":
    main(sys.argv[1:])
