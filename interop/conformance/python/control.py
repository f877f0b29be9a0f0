"""The app of the control: a Python worker in the place of the one that is judged, with the suite's own tasks.

    celery -A control worker -P prefork -c 1 -n NAME

TEST_BROKER and TEST_BACKEND say where, as for the suite. Its settings are those of the suite's conftest.py, and
worker_deduplicate_successful_tasks, which the worker of test_dedup_chain_dispatch.py has.
"""
import os

from foreign import redisport

redisport.redirect(int(os.environ["REDIS_PORT"]))

from celery.contrib.testing.app import TestApp  # noqa: E402

app = TestApp(name="celery.tests", set_as_current=True, enable_logging=True, config={
    "broker_url": os.environ["TEST_BROKER"],
    "result_backend": os.environ["TEST_BACKEND"],
    "result_extended": True,
    "worker_deduplicate_successful_tasks": True,
    "broker_connection_retry_on_startup": True,
})
app.set_default()

from t.integration import tasks  # noqa: E402

app.register_task(tasks.ClassBasedAutoRetryTask())
app.finalize()
