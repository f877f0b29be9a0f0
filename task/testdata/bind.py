"""Writes bind.jsonl: what Python makes of random calls of random signatures. Run it with Python 3.11."""

import json
import random

random.seed(311)
NAMES = "abcdefgh"


def signature():
    names = iter(NAMES)
    posonly, plain, kwonly = (random.choice([0, 0, 1, 2]), random.randint(0, 3), random.choice([0, 0, 1, 2, 3]))
    varargs, remain = random.random() < 0.2, random.random() < 0.2
    optional = random.randint(0, posonly + plain) if random.random() < 0.5 else 0
    parts = []
    for i in range(posonly + plain):
        default = "=%d" % (100 + i) if i >= posonly + plain - optional else ""
        parts.append(next(names) + default)
        if i == posonly - 1:
            parts.append("/")
    if varargs:
        parts.append("*args")
    elif kwonly:
        parts.append("*")
    for i in range(kwonly):
        parts.append(next(names) + random.choice(["", "", "=%d" % (200 + i)]))
    if remain:
        parts.append("**rest")
    return ", ".join(parts), posonly, posonly + plain, posonly + plain + kwonly


def call(posonly, positional, named):
    if random.random() < 0.5:  # probably right
        given = random.randint(posonly, positional)
        names = NAMES[given:named]
    else:  # probably wrong
        given = random.randint(0, positional + 1)
        names = random.sample(NAMES + "z", random.choice([0, 0, 1, 2, 3]))
    args = list(range(1, 1 + given))
    return args, {n: 50 + i for i, n in enumerate(sorted(names))}


with open("bind.jsonl", "w") as out:
    for _ in range(400):
        text, *counts = signature()
        scope = {}
        exec("def f(%s): return locals()" % text, scope)
        args, kwargs = call(*counts)
        case = {"sig": text, "args": args, "kwargs": kwargs}
        try:
            case["bound"] = scope["f"](*args, **kwargs)
        except TypeError as exc:
            case["error"] = str(exc)
        out.write(json.dumps(case) + "\n")
