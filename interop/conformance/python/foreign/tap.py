"""The signal task_received for what a worker of another process receives.

Some tests listen to that signal in the worker's process, where they would run. On a Redis broker MONITOR tells all that a
worker needs to send it: kombu's transport, and whatever is compatible with it, writes each message into the hash unacked
as it takes it.
"""
import base64
import json
import logging
import threading

import redis

ESCAPES = {"n": 10, "r": 13, "t": 9, "a": 7, "b": 8}


def unquoted(line):
    """The arguments of a command as MONITOR quotes them."""
    words, word, at = [], None, 0
    while at < len(line):
        c = line[at]
        if word is None:
            if c == '"':
                word = bytearray()
        elif c == '"':
            words.append(bytes(word))
            word = None
        elif c == "\\":
            at += 1
            c = line[at]
            if c == "x":
                word.append(int(line[at + 1:at + 3], 16))
                at += 2
            else:
                word.append(ESCAPES.get(c, ord(c)))
        else:
            word.append(ord(c))
        at += 1
    return words


class Tap(threading.Thread):
    """Watches a broker for as long as the process lives."""

    def __init__(self, url, app):
        super().__init__(name="tap", daemon=True)
        self.url, self.app = url, app
        self.opened = threading.Event()
        # What a receiver of the signal raises is its test's verdict, which it keeps; the log of it is no news.
        logging.getLogger("celery.utils.dispatch.signal").addFilter(lambda record: record.threadName != self.name)

    def run(self):
        connection = redis.ConnectionPool.from_url(self.url).make_connection()
        connection.connect()
        connection.send_command("MONITOR")
        connection.read_response()
        self.opened.set()
        while True:
            try:
                line = connection.read_response()
            except redis.exceptions.TimeoutError:
                continue
            except (redis.exceptions.ConnectionError, OSError):
                return  # the broker is gone
            if isinstance(line, bytes):
                line = line.decode("latin-1")
            if '"unacked"' in line[:120]:
                self.received(unquoted(line))

    def received(self, words):
        if words[0].upper() != b"HSET":
            return
        for value in words[3::2]:
            self.announce(json.loads(value)[0])

    def announce(self, envelope):
        """Sends the signal with the request that a worker would make of the message."""
        from celery import signals
        from celery.worker.request import Request

        headers, properties = envelope["headers"], envelope["properties"]
        if "task" not in headers:
            return
        body = envelope["body"]
        if properties.get("body_encoding") == "base64":
            body = base64.b64decode(body)

        class Message:
            content_type = envelope.get("content-type")
            content_encoding = envelope.get("content-encoding")
            delivery_info = properties.get("delivery_info") or {}
            payload = json.loads(body)

        message = Message()
        message.headers, message.properties, message.body = headers, properties, body
        request = Request(message, app=self.app, headers=headers, body=message.payload, decoded=True, utc=True,
                          on_ack=lambda *_: None, on_reject=lambda *_: None, connection_errors=())
        signals.task_received.send(sender=None, request=request)
