"""What must hold, whatever breaks: watched by the database itself, by a reader, and at the end.

May live here: the looking, and what was seen. Must not: what is broken, and who writes. Memory:
what was found wrong, up to a hundred.
"""

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pymysql
from pymysql.cursors import DictCursor

from tests.storms.load import FACTS, VERSION, StormHost, row_of, torn_sql
from tests.support.mariadb import Database

MOST_TOLD = 100
_SAMPLE_SECONDS = 0.2
_COLUMNS = ("hypervisor_hostname", *row_of(0))

TABLES = (
    "CREATE TABLE violations (id BIGINT AUTO_INCREMENT PRIMARY KEY, what VARCHAR(500) NOT NULL)",
    "CREATE TABLE scratch (number BIGINT NOT NULL PRIMARY KEY)",
    "CREATE TABLE hoard (number BIGINT NOT NULL PRIMARY KEY, what TEXT NOT NULL)",
)
TRIGGERS = (
    f"""CREATE TRIGGER watch_update AFTER UPDATE ON compute_nodes FOR EACH ROW
    BEGIN
      IF NEW.{VERSION} < OLD.{VERSION} THEN
        INSERT INTO violations (what) VALUES (CONCAT('an older value over a newer one: ',
          NEW.hypervisor_hostname, ' from ', OLD.{VERSION}, ' to ', NEW.{VERSION}));
      END IF;
      IF {torn_sql("NEW")} THEN
        INSERT INTO violations (what) VALUES (CONCAT('a row of no one state: ',
          NEW.hypervisor_hostname, ' at ', NEW.{VERSION}));
      END IF;
      IF OLD.deleted <> 0 AND NEW.{VERSION} <> OLD.{VERSION} THEN
        INSERT INTO violations (what) VALUES (CONCAT('a deleted row written: ', NEW.id));
      END IF;
    END""",
    f"""CREATE TRIGGER watch_insert AFTER INSERT ON compute_nodes FOR EACH ROW
    BEGIN
      IF {torn_sql("NEW")} THEN
        INSERT INTO violations (what) VALUES (CONCAT('a row of no one state: ',
          NEW.hypervisor_hostname, ' at ', NEW.{VERSION}));
      END IF;
    END""",
    """CREATE TRIGGER watch_guard AFTER UPDATE ON asynchost_fence FOR EACH ROW
    BEGIN
      IF NEW.term < OLD.term OR (NEW.term = OLD.term AND NEW.seq < OLD.seq) THEN
        INSERT INTO violations (what) VALUES (CONCAT('a guard went back: ', NEW.node,
          ' from ', OLD.term, '/', OLD.seq, ' to ', NEW.term, '/', NEW.seq));
      END IF;
    END""",
)
"""They stand in the writer's own transaction, so that no landing escapes them, and in the order
in which the writes land, because each holds the row's lock."""


class InvariantError(Exception):
    """Something that must hold does not; tells all that was seen."""

    def __init__(self, violations: Sequence[str]) -> None:
        self.violations = tuple(violations)
        super().__init__("\n".join(violations[:MOST_TOLD]))


class Log:
    """The writer's log: counted, and searched for what it must never say. A structlog processor."""

    FORBIDDEN = ("row changed by another program", "row left out until its values change")
    """Nobody else changes values in a storm, and all of them fit."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.last: list[str] = []
        """The newest lines that are not about rows."""

    def __call__(self, _logger: Any, _method: str, event: dict[str, Any]) -> str:
        """Keep what matters of one line."""
        name = event["event"]
        self.counts[name] += event["count"] if name == "rows written" else 1
        if name in self.FORBIDDEN and len(self.violations) < MOST_TOLD:
            self.violations.append(f"the writer says: {event}")
        if not name.startswith(("row ", "rows ")):
            self.last = [*self.last[-9:], f"{time.monotonic():.3f} {event}"]
        return ""


class Reader:
    """Looks at all rows again and again, as their readers do, while the writer writes."""

    def __init__(self, database: Database, versions: Callable[[], Mapping[str, int]]) -> None:
        self.samples = 0
        """How many rows were looked at."""
        self.violations: list[str] = []
        self._database = database
        self._versions = versions
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Look from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        connection: pymysql.Connection[DictCursor] | None = None
        while not self._stopping.wait(_SAMPLE_SECONDS):
            try:
                if connection is None:
                    connection = self._database.connect()
                with connection.cursor() as cursor:
                    cursor.execute(
                        f"SELECT {', '.join(_COLUMNS)} FROM compute_nodes WHERE deleted = 0"
                    )
                    rows = list(cursor.fetchall())
            except (pymysql.err.Error, OSError):
                _closed(connection)
                connection = None
                continue
            self.samples += len(rows)
            self.violations += wrong_in(rows, self._versions())
            del self.violations[MOST_TOLD:]
        _closed(connection)


def _closed(connection: "pymysql.Connection[Any] | None") -> None:
    """Close a connection that may be broken already."""
    if connection is not None:
        with contextlib.suppress(pymysql.err.Error):
            connection.close()


def wrong_in(rows: Sequence[Mapping[str, Any]], versions: Mapping[str, int]) -> list[str]:
    """What no reader may ever see, in the live rows read at one moment, a moment ago."""
    wrong = []
    times = Counter(row["hypervisor_hostname"] for row in rows)
    wrong += [f"{host} has {number} live rows" for host, number in times.items() if number > 1]
    for row in rows:
        host, version = row["hypervisor_hostname"], row[VERSION]
        if {column: row[column] for column in row_of(0)} != row_of(version):
            wrong.append(f"a reader saw a row of no one state: {dict(row)}")
        if version > versions.get(host, 0):
            wrong.append(f"a reader saw a state that {host} has not reached: {version}")
    return wrong


def wrong_at_rest(rows: Sequence[Mapping[str, Any]], hosts: Sequence[StormHost]) -> list[str]:
    """What differs between all rows and their hosts, none of which moves any more."""
    live = [row for row in rows if row["deleted"] == 0]
    by_name = {row["hypervisor_hostname"]: row for row in live}
    wrong = wrong_in(live, {host.host: host.version for host in hosts})
    for host in hosts:
        row = by_name.pop(host.host, None)
        expected = {**row_of(host.version), "vcpus": FACTS.vcpus, "memory_mb": FACTS.memory_mb}
        if row is None:
            wrong.append(f"{host.host} has no live row")
        elif (found := {column: row[column] for column in expected}) != expected:
            wrong.append(f"{host.host} ended as {found} instead of {expected}")
    return wrong + [f"a row of nobody: {name}" for name in by_name]
