"""Which tests of the suite can judge a worker of another process, by tests.tsv."""
from dataclasses import dataclass

# The kinds that count. "full": all that the test looks at comes from the worker. "part": some of its checks look into the
# worker's process and see nothing there. "tap": it listens to task_received in the worker, see foreign.tap. "reset": it
# empties the worker's memory between its rounds.
JUDGED = ("full", "part", "tap", "reset")


@dataclass(frozen=True)
class Row:
    test: str
    kind: str
    stacks: str
    versions: str
    short: bool


class Table:
    """The rows of the table that are about one version of the suite and one stack, "redis+redis"."""

    def __init__(self, path, version, stack):
        self.stack = stack
        self.rows = {}
        with open(path, encoding="utf-8") as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    test, kind, stacks, versions, short, _why = line.rstrip("\n").split("\t")
                    if version in versions.split():
                        self.rows[test] = Row(test, kind, stacks, versions, short == "short")

    def row(self, nodeid):
        """The row of a test: its own, or the one of all its parameters. None for an unknown test."""
        name = nodeid.removeprefix("t/integration/")
        return self.rows.get(name) or self.rows.get(name.split("[")[0])

    def judges(self, nodeid, short):
        """Whether the test is run and counted."""
        row = self.row(nodeid)
        return (row is not None and row.kind in JUDGED and (row.short or not short)
                and (row.stacks == "all" or self.stack in row.stacks.split()))

    def modules(self):
        """The files with tests that count. The others need not even be importable."""
        return sorted({row.test.split("::")[0] for row in self.rows.values() if row.kind in JUDGED})
