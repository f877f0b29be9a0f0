"""Argument sets: named lists of values that cross the wire and are judged on this side.

The Go tests hold the same sets in their own words (interop/values.go). ``same`` is stricter than ``==``: 1 is not
1.0 is not True, and 12:00+02:00 is not 10:00+00:00.
"""
import datetime as dt
import decimal
import math
import uuid

_IST = dt.timezone(dt.timedelta(hours=5, minutes=30))

SETS = {
    "none": [None],
    "bool": [True, False],
    "int": [0, 1, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63)],
    "bigint": [2**63, 2**64, -(2**70), 10**100],
    "float": [1.0, -0.0, 0.1, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 123456789.0],
    "nan": [math.nan, math.inf, -math.inf],
    "str": ["", "a", " ", "yes", "null", "1", "1.0", "2026-01-02", "~", "- a: b", "line\nline\ttab\r\n"],
    "unicode": ["h\u00e9llo", "\u65e5\u672c", "\U0001f600", "\u2028\u2029", "<&>\"'\\/", "\u0000\u0001\u007f"],
    "surrogate": ["\ud800", "a\udfffz"],
    "bytes": [b"", b"ab", b"\xff\x00\x80", "h\u00e9".encode()],
    "datetime": [
        dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc),
        dt.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=_IST),
    ],
    "localtime": [dt.datetime(2026, 1, 2, 3, 4, 5), dt.datetime(1969, 12, 31, 23, 59, 59, 999999)],
    "date": [dt.date(2026, 1, 2), dt.date(1, 1, 1), dt.date(9999, 12, 31)],
    "time": [dt.time(0, 0), dt.time(23, 59, 59, 999999)],
    "decimal": [decimal.Decimal(text) for text in ("1.10", "-0", "1E+5", "0.000000000000000000000001")],
    "uuid": [uuid.UUID("12345678-1234-4678-9234-567812345678"), uuid.UUID(int=0)],
    "empty": ["", [], {}],
    "nested": [{"a": [1, {"b": [None, True, "x", 2.5]}], "c": {}}, [[[[]]]], {"": {"k k": {"\u00e9": [1]}}}],
    "deep": [None],
    "many": list(range(300)),
    "big": ["x" * (10 * 1024 * 1024)],
}
for _ in range(60):
    SETS["deep"] = [SETS["deep"]]


def same(a, b):
    """Tells whether two values are of the same type and equal, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (float, decimal.Decimal)):
        return repr(a) == repr(b)  # tells -0.0 from 0.0 and finds nan equal to nan
    if isinstance(a, dt.datetime):
        return a == b and a.utcoffset() == b.utcoffset()
    return a == b


def short(value, limit=300):
    """repr that does not fill a log with a big payload."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"
