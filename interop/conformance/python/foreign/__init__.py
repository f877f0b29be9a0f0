"""Celery's integration suite in front of a worker that it has not started: a pytest plugin (foreign.plugin)."""
