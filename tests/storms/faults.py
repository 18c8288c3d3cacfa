"""The faults of a storm, by name: each breaks something, and has mended it when it returns.

May live here: one function for each fault. Must not: what must hold all the same. Two of them are
at work at once, one of the servers' and one of :data:`NETWORK`. A cluster's are in ``galera``.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import pymysql

from asynchost.database.foreign_edits import REPAIRS_PER_HOUR
from tests.storms.load import VERSION
from tests.storms.scene import WRITER, ImpossibleError, OneServer, Scene
from tests.support.disk import fill
from tests.support.mariadb import numbers
from tests.support.proxy import WHOLE_BYTES, Proxy, Waylaid
from tests.support.waiting import eventually

AnyScene = TypeVar("AnyScene", bound=Scene)
Fault = Callable[[AnyScene], Awaitable[None]]

SERVER: dict[str, Fault[OneServer]] = {}
"""What befalls a single server and its tables."""
NETWORK: dict[str, Fault[Scene]] = {}
"""What befalls the bytes on their way."""

_WRITE = f"{VERSION} = ".encode()
"""Stands in each statement that writes states, and in no other."""
_DEADLINE_SECONDS = 10.0


def among(faults: dict[str, Fault[AnyScene]]) -> Callable[[Fault[AnyScene]], Fault[AnyScene]]:
    """Register a fault under its function's name."""

    def register(fault: Fault[AnyScene]) -> Fault[AnyScene]:
        faults[fault.__name__.replace("_", " ")] = fault
        return fault

    return register


# -- the server -------------------------------------------------------------------------------


@among(SERVER)
async def sigkill(scene: OneServer) -> None:
    """What was acknowledged within the last second may be gone."""
    await scene.server.restart(crash=True)


@among(SERVER)
async def restart(scene: OneServer) -> None:
    """In good order."""
    await scene.server.restart()


@among(SERVER)
async def sigstop(scene: OneServer) -> None:
    """Connections stay open, nothing answers; then everything does."""
    scene.server.suspend()
    try:
        await scene.pause(0.2, 2.5)
    finally:
        scene.server.resume()


@among(SERVER)
async def read_only(scene: OneServer) -> None:
    """As a primary that has become a replica."""
    await scene.execute("SET GLOBAL read_only = 1")
    try:
        await scene.pause(0.1, 1.5)
    finally:
        await scene.execute("SET GLOBAL read_only = 0")


@among(SERVER)
async def kill_of_the_session(scene: OneServer) -> None:
    """Whatever it is doing."""
    for session in await _sessions(scene):
        with contextlib.suppress(pymysql.err.OperationalError):  # it has ended since
            await scene.execute(f"KILL {session}")


@among(SERVER)
async def too_many_connections(scene: OneServer) -> None:
    """The writer loses its session and gets no other one."""
    admin = scene.databases[0].connect()
    holders = []
    try:
        with admin.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = 10")
            with contextlib.suppress(pymysql.err.OperationalError):
                while True:
                    holders.append(
                        pymysql.connect(unix_socket=str(scene.server.socket), user=WRITER)
                    )
            cursor.execute(
                f"SELECT id AS id FROM information_schema.processlist WHERE user = '{WRITER}'"
            )
            held = [holder.thread_id() for holder in holders]
            for row in cursor.fetchall():
                if row["id"] not in held:
                    cursor.execute(f"KILL {row['id']}")
            holders.append(pymysql.connect(unix_socket=str(scene.server.socket), user=WRITER))
    except pymysql.err.OperationalError:
        pass  # the writer was back first
    finally:
        await scene.pause(0.1, 1.0)
        for holder in holders:
            holder.close()
        with admin.cursor() as cursor:
            cursor.execute("SET GLOBAL max_connections = 40")
        admin.close()


@among(SERVER)
async def locks_of_a_rival(scene: OneServer) -> None:
    """Rows locked one after another, in no order: waits for locks, and deadlocks."""
    hold_seconds = scene.rng.uniform(0.0, 1.5)
    hosts = scene.rng.sample(scene.load.hosts, min(20, len(scene.load.hosts)))

    def lock() -> None:
        rival = scene.databases[0].connect()
        try:
            with rival.cursor() as cursor:
                cursor.execute("SET innodb_lock_wait_timeout = 1")
                cursor.execute("BEGIN")
                # Somebody who has written much is not the one that a deadlock costs.
                cursor.execute(f"INSERT INTO scratch {numbers(5000)}")
                for host in hosts:
                    cursor.execute(
                        "SELECT t.id FROM compute_nodes t JOIN asynchost_fence ON cn_id = t.id"
                        f" WHERE node = '{host.host}' FOR UPDATE"
                    )
                cursor.execute(f"DO SLEEP({hold_seconds:f})")
        except pymysql.err.OperationalError as error:
            if error.args[0] not in (1205, 1213):
                raise
        finally:
            rival.rollback()
            rival.close()

    await asyncio.to_thread(lock)


@among(SERVER)
async def locks_held_for_long(scene: OneServer) -> None:
    """Some rows and some guards, for several lock waits: as a migration that was left open."""
    hosts = scene.rng.sample(scene.load.hosts, min(20, len(scene.load.hosts)))
    rows, guards = (
        ", ".join(f"'{host.host}'" for host in part) or "''" for part in (hosts[::2], hosts[1::2])
    )
    rival = scene.databases[0].connect()
    try:
        with rival.cursor() as cursor, contextlib.suppress(pymysql.err.OperationalError):
            cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
            cursor.execute("BEGIN")
            for statement in (
                f"SELECT * FROM compute_nodes WHERE hypervisor_hostname IN ({rows}) FOR UPDATE",
                f"SELECT * FROM asynchost_fence WHERE node IN ({guards}) FOR UPDATE",
            ):
                await asyncio.to_thread(cursor.execute, statement)
        await scene.pause(2.0, 5.0)
    finally:
        rival.rollback()
        rival.close()


@among(SERVER)
async def poisoned_rows(scene: OneServer) -> None:
    """A trigger of somebody's refuses some hosts' values, with an error code that nobody knows."""
    hosts = scene.rng.sample(scene.load.hosts, min(3, len(scene.load.hosts)))
    names = ", ".join(f"'{host.host}'" for host in hosts)
    await scene.execute(
        "CREATE TRIGGER poison BEFORE UPDATE ON compute_nodes FOR EACH ROW BEGIN IF"
        f" NEW.hypervisor_hostname IN ({names}) AND NEW.vcpus_used <> OLD.vcpus_used THEN SIGNAL"
        " SQLSTATE '45000' SET MYSQL_ERRNO = 5001, MESSAGE_TEXT = 'quota'; END IF; END"
    )
    try:
        await scene.pause(0.5, 3.0)
    finally:
        await scene.execute("DROP TRIGGER poison")


@among(SERVER)
async def table_away(scene: OneServer) -> None:
    """And back."""
    await scene.execute("RENAME TABLE compute_nodes TO away")
    try:
        await scene.pause(0.1, 1.0)
    finally:
        await scene.execute("RENAME TABLE away TO compute_nodes")


@among(SERVER)
async def right_revoked(scene: OneServer) -> None:
    """And granted again."""
    await scene.execute(f"REVOKE UPDATE ON asynchost_fence FROM {WRITER}@localhost")
    try:
        await scene.pause(0.1, 1.0)
    finally:
        await scene.grant()


@among(SERVER)
async def disk_full(scene: OneServer) -> None:
    """Nothing has room to grow, what the server keeps in reserve included; then there is again."""
    if scene.disk is None:
        raise ImpossibleError
    ballast = scene.disk / "ballast"
    await asyncio.to_thread(fill, ballast)

    def hoard() -> None:
        with contextlib.suppress(pymysql.err.Error, OSError):
            scene.databases[0].execute(
                f"INSERT INTO hoard SELECT number, REPEAT('x', 4000) FROM ({numbers(50_000)}) n"
            )

    hoarding = asyncio.create_task(asyncio.to_thread(hoard))
    try:
        await scene.pause(0.5, 2.5)
    finally:
        await asyncio.to_thread(ballast.unlink)
        await hoarding
    await scene.execute("TRUNCATE TABLE hoard")


@among(SERVER)
async def guards_lost(scene: OneServer) -> None:
    """Somebody has tidied up."""
    await scene.execute("DELETE FROM asynchost_fence WHERE RAND() < 0.05")


@among(SERVER)
async def rows_soft_deleted(scene: OneServer) -> None:
    """Somebody thought that the hosts were gone; of no host more often than a row is made anew."""
    await scene.execute(
        "UPDATE compute_nodes SET deleted = 1 WHERE deleted = 0 AND RAND() < 0.05"
        " AND hypervisor_hostname NOT IN (SELECT * FROM (SELECT hypervisor_hostname"
        f" FROM compute_nodes WHERE deleted <> 0 GROUP BY 1 HAVING COUNT(*) >= {REPAIRS_PER_HOUR})"
        " often)"
    )


# -- the network ------------------------------------------------------------------------------


@among(NETWORK)
async def reset(scene: Scene) -> None:
    """Of every connection, wherever it stands."""
    for proxy in scene.proxies:
        proxy.reset()


@among(NETWORK)
async def cut(scene: Scene) -> None:
    """In good order."""
    for proxy in scene.proxies:
        proxy.cut()


@among(NETWORK)
async def cut_in_mid_packet(scene: Scene) -> None:
    """Each connection gets so far and no further."""
    for proxy in scene.proxies:
        proxy.reset_after_bytes = scene.rng.randint(100, 60_000)
    await scene.pause(0.2, 1.5)
    for proxy in scene.proxies:
        proxy.reset_after_bytes = None


@among(NETWORK)
async def half_open(scene: Scene) -> None:
    """The connection is there, and nothing comes through any more."""
    for proxy in scene.proxies:
        proxy.silence()


@among(NETWORK)
async def everything_held(scene: Scene) -> None:
    """Nothing passes for some time; then it all does."""
    for proxy in scene.proxies:
        proxy.hold()
    await scene.pause(0.2, 2.5)
    for proxy in scene.proxies:
        proxy.release()


@among(NETWORK)
async def slow(scene: Scene) -> None:
    """Each piece on its own, and late."""
    for proxy in scene.proxies:
        proxy.delay_seconds = scene.rng.uniform(0.005, 0.1)
        proxy.piece_bytes = scene.rng.choice((2_000, WHOLE_BYTES))
    await scene.pause(0.2, 1.5)
    for proxy in scene.proxies:
        proxy.delay_seconds, proxy.piece_bytes = 0.0, WHOLE_BYTES


@among(NETWORK)
async def lost_answer(scene: Scene) -> None:
    """The write has landed, and the writer does not hear of it."""
    await _taken(scene, [proxy.lose_answer(_WRITE) for proxy in scene.proxies])


@among(NETWORK)
async def late_packet(scene: Scene) -> None:
    """A write is held back, and goes on after a newer one has landed; by way of another node,
    where there is one."""
    waylaid = [proxy.hold_back(_WRITE) for proxy in scene.proxies]
    for proxy in await _taken(scene, waylaid):
        if len(scene.proxies) > 1:
            proxy.hold()  # what comes now; what is held back has passed that gate
        # Whatever it holds is outdated from here on.
        scene.load.move_all()
        versions = scene.load.versions()
        with contextlib.suppress(AssertionError):  # a fault of the servers may forbid it
            await eventually(lambda versions=versions: scene.holds(versions), _DEADLINE_SECONDS)
        waylaid[scene.proxies.index(proxy)].release()
        proxy.release()


async def _taken(scene: Scene, waylaid: Sequence[Waylaid]) -> list[Proxy]:
    """Wait for a write to be waylaid; where that happened."""
    with contextlib.suppress(AssertionError):
        await eventually(
            lambda: scene.ended() or any(each.taken for each in waylaid), _DEADLINE_SECONDS
        )
    for proxy in scene.proxies:
        proxy.let_pass()
    return [proxy for proxy, each in zip(scene.proxies, waylaid, strict=True) if each.taken]


async def _sessions(scene: OneServer) -> list[int]:
    rows = await scene.execute(
        f"SELECT id AS id FROM information_schema.processlist WHERE user = '{WRITER}'"
    )
    return [row["id"] for row in rows]
