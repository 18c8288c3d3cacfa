"""The rights that are printed: all that an agent does can be done with them, and with none less."""

import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

import pymysql
import pytest

from asynchost.database import ComputeNodeWriter, WhenFenced, WriterSettings, schema
from asynchost.database.session import Session
from asynchost.testing import FakeHost
from tests.support.mariadb import MYSQL, Database
from tests.support.waiting import eventually

SETTINGS = WriterSettings(
    quiet_seconds=0,
    maximum_delay_seconds=0,
    renewal_interval_seconds=0.2,
    when_fenced=WhenFenced.WAIT,
)
ACCOUNT = "'little'@'localhost'"
REFUSED = (1142, 1143)
DEADLINE_SECONDS = 30.0


@pytest.fixture
def url(database: Database) -> str:
    """The way in for an account with the printed rights."""
    database.make_account(ACCOUNT, *schema.grant_statements(database.name, ACCOUNT))
    return database.server.url(database.name, user="little")


async def whole_life(database: Database, url: str) -> None:
    """All that an agent ever does: rows made, adopted and taken from another guard; written alone
    and together, in all columns; read back, fenced, stood by for, and had again."""
    database.insert_node(hypervisor_hostname="there", deleted=None)
    database.insert_node(hypervisor_hostname="edited", service_id=3)
    database.execute(
        "INSERT INTO asynchost_fence VALUES (NULL, 'edited', '0', 2, 1, 0, 'old', 'fresh', NULL,"
        " NOW(), NOW())"
    )
    hosts = [FakeHost(name) for name in ("new", "there", "edited")]
    async with ComputeNodeWriter(url, settings=SETTINGS) as writer:
        attached = [writer.attach(host) for host in hosts]
        await writer.flush()
        for host in hosts:
            host.start(vcpus=3)
        await writer.flush()
        for where in ("TRUE", "hypervisor_hostname = 'new'"):
            database.execute(
                "UPDATE compute_nodes SET "
                + ", ".join(f"{column} = 9" for column in schema.OWNED_COLUMNS)
                + f" WHERE {where}"
            )
            await eventually(lambda: written(database) == [3, 3, 3], DEADLINE_SECONDS)
        rival = replace(SETTINGS, renewal_interval_seconds=0.05)
        async with ComputeNodeWriter(url, settings=rival) as other:
            other.attach(FakeHost("new"))
            await other.flush()
            await eventually(lambda: attached[0].standby is not None, DEADLINE_SECONDS)
        await eventually(lambda: attached[0].term == 3, DEADLINE_SECONDS)
        hosts[1].lose()
        await writer.flush()
    assert sorted(fence["state"] for fence in database.fences() if fence["cn_id"]) == (
        ["stopped"] * 3
    )


def written(database: Database) -> list[int]:
    return [row["vcpus_used"] for row in database.rows() if row["cpu_info"] != "9"]


async def test_the_printed_rights_suffice_and_none_is_too_many(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each column of each right taken away in turn, something of what was done is refused."""
    done: dict[str, str] = {}
    run = Session._run

    async def noted(self: Session, statement: str) -> int:
        if statement.startswith(("SELECT", "INSERT", "UPDATE")) and "WHERE FALSE" not in statement:
            done[re.sub(r"\d+|'[^']*'", "?", statement)] = statement
        return await run(self, statement)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_run", noted)
        await whole_life(database, url)
    assert refusals(database, done) == set()
    superfluous = []
    with closing(database.connect()) as admin, admin.cursor() as cursor:
        for table, right, column in granted():
            which = f"{right} (`{column}`) ON {database.name}.{table}"
            cursor.execute(f"REVOKE {which} FROM {ACCOUNT}")
            if not refusals(database, done) & {*REFUSED}:
                superfluous.append(which)
            cursor.execute(f"GRANT {which} TO {ACCOUNT}")
    # MySQL does without three that MariaDB asks for; one list is printed for both.
    fence = f"ON {database.name}.asynchost_fence"
    spare = ("SELECT (`stale_since`)", "UPDATE (`node`)", "UPDATE (`service`)")
    assert superfluous == ([f"{right} {fence}" for right in spare] if MYSQL else [])
    assert refusals(database, done) == set()


def granted() -> Iterator[tuple[str, str, str]]:
    """Table, right and column; of the columns that come from the host three stand for all, since
    every statement names them together."""
    alike = schema.OWNED_COLUMNS[1:-1]
    for table, rights in ((schema.TABLE, schema.NODE_RIGHTS), (schema.FENCE, schema.FENCE_RIGHTS)):
        for right, columns in rights.items():
            for column in columns:
                if column not in alike or column == "cpu_info":
                    yield table, right, column


def refusals(database: Database, statements: Mapping[str, str]) -> set[int]:
    """The codes that the account is given for these statements; nothing is carried out."""
    codes = set()
    connection = pymysql.connect(
        unix_socket=str(database.server.socket), user="little", database=database.name
    )
    try:
        with connection.cursor() as cursor:
            for statement in statements.values():
                try:
                    cursor.execute(f"EXPLAIN {statement}")
                except pymysql.err.Error as error:
                    codes.add(error.args[0])
    finally:
        connection.close()
    return codes
