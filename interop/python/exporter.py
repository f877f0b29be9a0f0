"""celery-exporter as a process, for a busy machine: RabbitMQ keeps events for a monitor, and by Celery's default throws away what is
older than five seconds. A monitor that gets no time for so long would miss some; all else is as it comes.
"""
from celery.app import defaults

defaults.NAMESPACES["event"]["queue_ttl"].default = defaults.DEFAULTS["event_queue_ttl"] = 600.0

from src.cli import cli  # noqa: E402

cli()
