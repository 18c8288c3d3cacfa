"""A Galera cluster of three nodes on the loopback interface, and what befalls clusters.

May live here: the nodes, and the faults that a single server does not know. Needs the packages
``galera-4``, ``mariadb-client-core`` and ``rsync``, and the scripts of ``mariadb-server`` in the
folder that ``ASYNCHOST_GALERA_SCRIPTS`` names; ``./dev storm --galera`` sees to it, and
``./dev bench --galera``.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pymysql

from asynchost.database import ComputeNodeWriter, PrivateMariaDB, apply_schema
from asynchost.errors import DatabaseUnavailableError
from tests.storms.faults import Fault, among
from tests.storms.load import VERSION, Load, StormHost
from tests.storms.scene import HURRIED, WRITER, Scene, furnish
from tests.support.libvirtd_settings import free_tcp_port
from tests.support.mariadb import Database
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

NODES = 3
_TWINS = 20
SCRIPTS = "ASYNCHOST_GALERA_SCRIPTS"
FAULTS: dict[str, Fault["ThreeNodes"]] = {}
"""What befalls a cluster."""
_PROVIDER = Path("/usr/lib/galera/libgalera_smm.so")
_SYNCED_SECONDS = 120.0
"""A node that joins copies everything, and two of them may wait for the same donor."""
_EVICTED_SECONDS = 6.0
"""A node that is silent for longer is out of the cluster."""
_ARGUMENTS = (
    "--binlog-format=ROW",
    "--innodb-autoinc-lock-mode=2",
    "--innodb-flush-log-at-trx-commit=2",
    "--innodb-buffer-pool-size=64M",
    "--max-connections=60",
    "--wsrep-on=ON",
    f"--wsrep-provider={_PROVIDER}",
    "--wsrep-cluster-name=storm",
    "--wsrep-node-address=127.0.0.1",
    "--wsrep-sst-method=rsync",
    "--wsrep-slave-threads=2",
)
_PROVIDER_OPTIONS = {
    "evs.keepalive_period": "PT0.5S",
    "evs.inactive_check_period": "PT0.5S",
    "evs.suspect_timeout": "PT3S",
    "evs.inactive_timeout": "PT6S",
    "evs.install_timeout": "PT6S",
    "gcache.size": "64M",
    "pc.recovery": "true",
}
"""A silent node is given up in seconds; the order of these times must stay as it is."""


_STARTS = 4
"""How often one is started before it is given up."""


class Node(PrivateMariaDB):
    """One node; the first one of :meth:`cluster` founds the cluster, unless it is there."""

    def __init__(self, number: int, ports: list[int]) -> None:
        port, transfer, copy = ports[3 * number : 3 * number + 3]
        members = ",".join(f"127.0.0.1:{ports[3 * each]}" for each in range(NODES))
        options = {
            **_PROVIDER_OPTIONS,
            "base_port": str(port),
            "gmcast.listen_addr": f"tcp://127.0.0.1:{port}",
            "ist.recv_addr": f"127.0.0.1:{transfer}",
        }
        self._joining = (
            *_ARGUMENTS,
            f"--wsrep-node-name=node{number}",
            f"--wsrep-cluster-address=gcomm://{members}",
            f"--wsrep-sst-receive-address=127.0.0.1:{copy}",
            f"--wsrep-provider-options={';'.join(f'{n}={v}' for n, v in options.items())}",
        )
        founding = ("--wsrep-new-cluster",) if number == 0 else ()
        super().__init__(arguments=[*self._joining, *founding], start_timeout_seconds=120)

    async def start(self) -> None:
        """Start it, and wait until it takes part."""
        await self.begin()
        await self.synced()

    async def begin(self) -> None:
        """Start it: it takes part once enough of the others do."""
        for started in range(_STARTS):
            try:
                await super().start()
            except DatabaseUnavailableError:
                # The others took its last life for alive still and let no second one in, or those
                # that it needs were not there in time: what watches over a node starts it again.
                await self.kill()
                if started == _STARTS - 1:
                    raise
            else:
                break
        # Whoever founds a second time, founds a second cluster.
        self._arguments = self._joining

    async def synced(self) -> None:
        """Wait until it takes part."""

        def takes_part() -> bool:
            try:
                rows = Database(self, "mysql").execute(
                    "SHOW STATUS WHERE Variable_name IN ('wsrep_ready', 'wsrep_local_state')"
                )
            except (pymysql.err.Error, OSError):
                return False
            return {row["Value"] for row in rows} == {"ON", "4"}

        try:
            await eventually(lambda: asyncio.to_thread(takes_part), _SYNCED_SECONDS)
        except AssertionError:
            raise self._failure("the node does not take part") from None

    def forget(self) -> None:
        """Lose the place in the cluster's history, so that everything is copied again."""
        for name in ("grastate.dat", "gvwstate.dat", "galera.cache"):
            Path(self.folder, "data", name).unlink(missing_ok=True)


class ThreeNodes(Scene):
    """A cluster, each node behind a proxy of its own."""

    def __init__(self, nodes: list[Node], proxies: list[Proxy], *rest: Any) -> None:
        super().__init__([Database(node, "nova") for node in nodes], proxies, *rest)
        self.nodes = nodes

    def some(self, number: int) -> list[Node]:
        """So many nodes."""
        return self.rng.sample(self.nodes, number)


def why_impossible() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if not _PROVIDER.exists() or SCRIPTS not in os.environ:
        return "a cluster needs what ./dev storm --galera and ./dev bench --galera install"
    return None


@asynccontextmanager
async def cluster() -> AsyncIterator[list[Node]]:
    """A cluster's nodes, all taking part; the first one founded it. All gone afterwards."""
    # The server finds the scripts that copy its data by this path.
    os.environ["PATH"] = f"{os.environ[SCRIPTS]}:{os.environ['PATH']}"
    ports = [free_tcp_port() for _ in range(3 * NODES)]
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Node(number, ports)) for number in range(NODES)]


@asynccontextmanager
async def three_nodes(load: Load, rng: random.Random) -> AsyncIterator[ThreeNodes]:
    """A cluster with both tables, empty, and the ways to it; all gone afterwards."""
    async with AsyncExitStack() as stack:
        nodes = await stack.enter_async_context(cluster())
        proxies = [stack.enter_context(Proxy(node.socket)) for node in nodes]
        await furnish(nodes[0])
        Database(nodes[0], "mysql").execute("CREATE DATABASE twins")
        await apply_schema(nodes[0].url("twins"))
        places = ",".join(f"127.0.0.1:{proxy.port}" for proxy in proxies)
        url = f"mysql://{WRITER}@{places}/nova"
        scene = ThreeNodes(nodes, proxies, url, load, rng)
        await scene.grant()
        yield scene


async def _bring_back(scene: ThreeNodes, nodes: list[Node]) -> None:
    """Start nodes that were killed, at the same time, for one may need the other."""
    await asyncio.gather(*(node.begin() for node in nodes))
    for node in scene.nodes:
        await node.synced()


@among(FAULTS)
async def node_killed(scene: ThreeNodes) -> None:
    """It catches up with what it missed."""
    nodes = scene.some(1)
    await nodes[0].kill()
    await scene.pause(0.5, 8.0)
    await _bring_back(scene, nodes)


@among(FAULTS)
async def node_lost(scene: ThreeNodes) -> None:
    """It comes back without its history and is given a copy of everything."""
    nodes = scene.some(1)
    await nodes[0].kill()
    nodes[0].forget()
    await scene.pause(0.5, 3.0)
    await _bring_back(scene, nodes)


@among(FAULTS)
async def quorum_lost(scene: ThreeNodes) -> None:
    """Two of three die at once; the one that is left serves nobody until they are back."""
    nodes = scene.some(2)
    await asyncio.gather(*(node.kill() for node in nodes))
    await scene.pause(0.5, 8.0)
    await _bring_back(scene, nodes)


@among(FAULTS)
async def node_stopped(scene: ThreeNodes) -> None:
    """For some moments, or until the others have given it up."""
    nodes = scene.some(scene.rng.choice((1, 2)))
    for node in nodes:
        node.suspend()
    try:
        await scene.pause(0.2, 2 * _EVICTED_SECONDS)
    finally:
        for node in nodes:
            node.resume()
    for node in scene.nodes:
        await node.synced()


@among(FAULTS)
async def restart_in_turn(scene: ThreeNodes) -> None:
    """As for an upgrade."""
    for node in scene.some(NODES):
        await node.terminate()
        await _bring_back(scene, [node])


@among(FAULTS)
async def rival_on_other_nodes(scene: ThreeNodes) -> None:
    """Somebody writes columns of the same rows through all nodes: certification fails."""
    seconds = scene.rng.uniform(1.0, 4.0)

    def write(database: Database) -> None:
        with contextlib.suppress(pymysql.err.Error, OSError):
            rival = database.connect()
            try:
                with rival.cursor() as cursor:
                    cursor.execute(
                        "SET @until = NOW(6) + INTERVAL %s MICROSECOND", (seconds * 1e6,)
                    )
                    while cursor.execute("SELECT 1 FROM DUAL WHERE NOW(6) < @until"):
                        with contextlib.suppress(pymysql.err.OperationalError):
                            cursor.execute(
                                "UPDATE compute_nodes SET deleted_at = NOW() - INTERVAL"
                                " FLOOR(RAND() * 1e6) SECOND WHERE RAND() < 0.1"
                            )
            finally:
                rival.close()

    await asyncio.gather(*(asyncio.to_thread(write, database) for database in scene.databases))


@among(FAULTS)
async def two_agents_at_once(scene: ThreeNodes) -> None:
    """They start at the same moment on two nodes, for the same hosts: one row and one owner each.

    In a database of their own, past the proxies.
    """
    nodes = scene.some(2)
    names = [f"twin{scene.rng.randrange(10**9)}-{number}" for number in range(_TWINS)]
    async with asyncio.timeout(_SYNCED_SECONDS), AsyncExitStack() as stack:
        writers = [
            await stack.enter_async_context(ComputeNodeWriter(node.url("twins"), settings=HURRIED))
            for node in nodes
        ]
        hosts = [[StormHost(name) for name in names] for _ in writers]
        attached = [
            [writer.attach(host) for host in own]
            for writer, own in zip(writers, hosts, strict=True)
        ]
        await asyncio.gather(*(writer.flush() for writer in writers))
        for times, own in enumerate(hosts, start=1):
            for host in own:
                for _ in range(times):
                    host.move()
        await asyncio.gather(*(writer.flush() for writer in writers))
        expected = {}
        for name, *rivals in zip(names, *attached, strict=True):
            alive = [number for number, each in enumerate(rivals) if each.error is None]
            if len(alive) != 1:
                scene.violations.append(f"{len(alive)} of two agents own {name}")
            expected[name] = [hosts[number][0].version for number in alive]
        try:
            await eventually(lambda: _hold(scene.nodes, expected), 30)
        except AssertionError as error:
            scene.violations.append(f"two agents: {error}")


async def _hold(nodes: list[Node], expected: dict[str, list[int]]) -> bool:
    """Whether the live rows of these hosts are in these states, on each node."""
    for node in nodes:
        rows = await asyncio.to_thread(Database(node, "twins").rows, "deleted = 0")
        found: dict[str, list[int]] = {name: [] for name in expected}
        for row in rows:
            if row["hypervisor_hostname"] in found:
                found[row["hypervisor_hostname"]].append(row[VERSION])
        assert found == expected, f"{found} instead of {expected}"
    return True
