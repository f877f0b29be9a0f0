"""What the plugin is told by its environment."""
import json
import os

SETTINGS = json.loads(os.environ.get("FOREIGN", "{}"))

TABLE = SETTINGS.get("table", "")           # path of tests.tsv
VERSION = SETTINGS.get("version", "")       # of the suite: "5.6"
STACK = SETTINGS.get("stack", "")           # broker and result backend: "redis+redis"
RESULTS = SETTINGS.get("results", "")       # path of the file of verdicts, one JSON object a line
SHORT = SETTINGS.get("short", False)        # only the short form
NODE = SETTINGS.get("node", "")             # node name of the worker
PID = SETTINGS.get("pid", 0)                # its process id
RESET = SETTINGS.get("reset", "")           # URL; a POST brings the worker back as it was at its start
LIMIT = SETTINGS.get("limit", 300)          # seconds a test may take at most
RERUNS = SETTINGS.get("reruns", 1)          # how often a test that fails is tried again
REDIS_PORT = SETTINGS.get("redis_port", 0)  # of the Redis at 127.0.0.1 that the tasks write to
