"""The Python half of examples/mixed-canvas:

    celery -A tasks -b redis://localhost:6379/0 --result-backend redis://localhost:6379/1 worker -Q python
"""
from celery import Celery

app = Celery("tasks")


@app.task(name="shop.average")
def average(numbers):
    return sum(numbers) / len(numbers)
