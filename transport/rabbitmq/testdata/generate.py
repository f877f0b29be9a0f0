"""Writes py-amqp.json: header tables as py-amqp packs them, one character for each byte.

Run with a Python that has amqp, from this directory: python generate.py
"""

import datetime
import decimal
import json
import math
import struct

from amqp.serialization import _write_item, dumps

ENVELOPES = "../../../protocol/testdata/celery-%s.json"


def packed(value):
    out = []
    _write_item(value, out.append, [])
    return b"".join(out).decode("latin-1")


envelopes = {}
for version in ("5.2.7", "5.6.3"):
    with open(ENVELOPES % version) as f:
        for name, text in json.load(f)["envelopes"].items():
            headers = json.loads(text)["headers"]
            try:
                table = dumps("F", [headers]).decode("latin-1")[4:]
            except struct.error:
                table = None  # an integer beyond 64 bits
            envelopes[version + "/" + name] = table

# What JSON has a form for comes back from it as the same bytes.
both_ways = [
    None, True, False, 0, 1, -1, 2**31 - 1, -(2**31) + 1, 2**31, -(2**31), 2**40, -(2**40), 2**63 - 1, -(2**63),
    0.0, -0.0, 1.5, 1e300, 5e-324, 1e16, math.inf, -math.inf, "", "text", "é\u20ac\U0001f600", "\ud800", "a\ud83dz",
    "quote \" slash \\ \n\t\x00\x1f", [], {}, [1, "a", None, [True, {"x": -(2**33)}]],
    {"b": 1, "a": {"deep": [{}, []]}, "": "", "k" * 255: 0, "ключ": -1.25},
    {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "at_ms": 1790000000000},
]
# What it has no form for is turned into something near.
one_way = [
    (b"\xff\xfe", "\udcff\udcfe"),
    (b"ok", "ok"),
    (datetime.datetime(2020, 1, 1), 1577836800),
    (decimal.Decimal("3.14"), 3.14),
    (decimal.Decimal("-0.00005"), -0.00005),
    (decimal.Decimal("7"), 7),
]

with open("py-amqp.json", "w") as f:
    json.dump({
        "envelopes": envelopes,
        "both_ways": [{"json": json.dumps(v), "field": packed(v)} for v in both_ways],
        "one_way": [{"json": json.dumps(v), "field": packed(p)} for p, v in one_way],
    }, f, indent=1)
    f.write("\n")
