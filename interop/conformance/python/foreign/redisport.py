"""The suite of Celery 5.2 looks for the Redis that its tasks write to at a fixed port."""
import redis


def redirect(port):
    """Makes the port the default of every client that names none."""
    class Client(redis.StrictRedis):
        def __init__(self, *args, **kwargs):
            if not kwargs.get("connection_pool") and len(args) < 2:
                kwargs.setdefault("port", port)
            super().__init__(*args, **kwargs)

    redis.StrictRedis = Client
