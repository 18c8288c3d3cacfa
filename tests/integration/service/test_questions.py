"""explain, diff and doctor beside a real daemon, a real libvirtd and a real MariaDB."""

import asyncio
import json
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import libvirt
import pytest

from tests.integration.service.processes import Command, asynchost, command, run_to_the_end
from tests.integration.service.rows import Database
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.waiting import eventually

EVENTS_ONLY = ("--audit-interval", "0")


class Beside:
    """A daemon that watches the test driver, and whoever asks about it."""

    def __init__(self, daemon: Command, database: Database, folder: Path) -> None:
        self.daemon = daemon
        self.database = database
        self._environment = {"RUNTIME_DIRECTORY": str(folder)}

    async def ask(self, *arguments: str) -> tuple[int, list[str], list[str]]:
        """Run ``asynchost`` as the daemon's own user; status, output, errors."""
        return await run_to_the_end(*arguments, environment=self._environment)

    async def diff(self, *arguments: str) -> tuple[int, list[str]]:
        """``asynchost diff`` with the database; status and output."""
        status, out, err = await self.ask("diff", *arguments, "--database", self.database.url())
        assert err == []
        return status, out


@asynccontextmanager
async def beside_a_daemon(
    connect: str, database: Database, tmp_path: Path, *options: str
) -> AsyncIterator[Beside]:
    """A daemon whose first row is written."""
    # /proc has no size and never changes, so no disk figure moves between two looks.
    options = ("--instances-path", "/proc", "--debounce", "0", *options)
    arguments = asynchost("run", "--connect", connect, "--database", database.url(), *options)
    folder = tmp_path / "run"
    folder.mkdir()
    environment = {"RUNTIME_DIRECTORY": str(folder)}
    async with command(*arguments, environment=environment) as daemon:
        await eventually(database.rows, 30)
        yield Beside(daemon, database, folder)
        assert (await daemon.stops(signal.SIGTERM))[0] == 0
    assert not list(folder.iterdir())


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder in which any user may make files."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        path.chmod(0o777)
        yield path


def define_two(connection: libvirt.virConnect) -> None:
    """One guest that runs, one that does not."""
    guests.start(connection, guests.guest_xml("web", vcpus=3, memory_kib=65_536, kind="test"))
    guests.define(connection, guests.guest_xml("idle", vcpus=2, memory_kib=2048, kind="test"))


async def test_explain_tells_every_domain_and_the_sums(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """Whether it counts and why, when it was read and why: of all hosts, or of one."""
    define_two(test_connection)
    uri = libvirtd.uri("test")
    connect = f"rack1={uri}"
    options = (*EVENTS_ONLY, "--reserved-vcpus", "1")
    async with beside_a_daemon(connect, database, tmp_path, *options) as beside:
        status, out, err = await beside.ask("explain")
        assert (status, err) == (0, [])
        assert out[0].startswith(f"rack1 ({uri}): daemon {beside.daemon.pid}, fresh")
        assert out[0].endswith("reserved_vcpus=1")
        web = next(line for line in out if line.startswith("  web"))
        assert web.split()[1:4] == ["running", "3", "65536"]
        assert " resync " in web
        assert web.endswith(" counted: active")
        idle = next(line for line in out if line.startswith("  idle"))
        assert idle.endswith("now         not counted: shut off")
        assert out[-1] == "  vcpus_used 4, memory_mb_used 64, running_vms 1, current_workload 0"

        assert (await beside.ask("explain", "rack1"))[1][0] == out[0]
        assert (await beside.ask("explain", uri))[1][0] == out[0]
        status, out, (line,) = await beside.ask("explain", "rack2")
        assert (status, out) == (2, [])
        assert line == "asynchost: error: no host is called 'rack2'; there are rack1"

        status, out, _ = await beside.ask("explain", "--json")
        (account,) = json.loads("\n".join(out))
        (counted, _) = account["explanation"]["domains"]
        assert (counted["name"], counted["cost"]["vcpus_used"]) == ("web", 3)


async def test_explain_looks_by_itself_where_it_is_told_whom_to_look_at(
    libvirtd: PrivateLibvirtd, test_connection: libvirt.virConnect
) -> None:
    """Without a daemon; and without either, it says what to do."""
    define_two(test_connection)
    status, out, err = await run_to_the_end(
        "explain", "--connect", libvirtd.uri("test"), "--count", "defined", "--except", "w*"
    )
    assert (status, err) == (0, [])
    assert "looked at now, count=defined, exclude=('w*',)" in out[0]
    assert [line.split()[0] for line in out[2:4]] == ["idle", "web"]
    assert out[2].endswith("counted: defined, shut off")
    assert out[3].endswith("not counted: name excluded by 'w*'")
    status, out, (line,) = await run_to_the_end("explain")
    assert (status, out) == (2, [])
    assert "asynchost run" in line
    assert "--connect URI" in line


async def test_diff_sees_a_row_that_somebody_else_changed(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """Nothing differs, status 0; one column of the row does, status 1 and its name."""
    define_two(test_connection)
    connect = f"rack1={libvirtd.uri('test')}"
    async with beside_a_daemon(connect, database, tmp_path, "--foreign-edits", "report") as beside:
        status, out = await beside.diff()
        assert (status, out[-1]) == (0, "  no difference")
        assert out[1].split() == ["recount", "daemon", "row", "1"]
        database.execute("UPDATE compute_nodes SET vcpus_used = 99")
        status, out = await beside.diff("rack1")
        assert (status, out[-1]) == (1, "  1 column differs")
        assert "  vcpus_used                        3              3             99  differs" in out
        status, out = await beside.diff("--connect", connect, "--json")
        (found,) = json.loads("\n".join(out))
        assert (status, found["differing"]) == (1, ["vcpus_used"])
        assert found["sides"]["recount"]["vcpus_used"] == 3
    # A daemon, whatever it does about edits, would make the row anew.
    database.execute("UPDATE compute_nodes SET deleted = 1")
    status, out = await beside.diff("--connect", connect)
    assert (status, out[-2:]) == (
        1,
        ["  row: the database has no live row of this name", "  15 columns differ"],
    )


async def test_diff_sees_drift_before_an_audit_does(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """libvirt sends no event for a live vCPU change: the recount knows better than the daemon."""
    xml = guests.guest_xml("web", vcpus=1, max_vcpus=8, memory_kib=65_536, kind="test")
    domain = guests.start(test_connection, xml)
    async with beside_a_daemon(libvirtd.uri("test"), database, tmp_path, *EVENTS_ONLY) as beside:
        # The listing that follows some seconds after a connect may find the first of them, also
        # between one side and the next.
        for vcpus in (4, 5):
            await asyncio.to_thread(domain.setVcpus, vcpus)
            status, out = await beside.diff()
            line = next(line for line in out if line.startswith("  vcpus_used"))
            recount, daemon, row = map(int, line.split()[1:4])
            if daemon == row < recount:
                break
        assert (status, out[-1]) == (1, "  1 column differs")
        assert (recount, line.split()[-1]) == (vcpus, "differs")
        assert daemon == row < recount


async def test_diff_counts_as_the_daemon_was_told_to(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """A policy is no difference, also where the host is named on the command line."""
    define_two(test_connection)
    uri = libvirtd.uri("test")
    policy = ("--count", "defined", "--reserved-memory", "512")
    async with beside_a_daemon(uri, database, tmp_path, *policy) as beside:
        status, out = await beside.diff("--connect", uri)
        assert (status, out[-1]) == (0, "  no difference")
        assert "count=defined, reserved_memory_mb=512" in out[0]
        (row,) = database.rows()
        assert (row["vcpus_used"], row["memory_mb_used"]) == (5, 64 + 2 + 512)


async def test_one_side_alone_is_no_agreement() -> None:
    """A check that lost its database's URL must not say that all is well."""
    status, out, _ = await run_to_the_end("diff", "--connect", "test:///default")
    assert (status, out[-1]) == (2, "  nothing to compare with")


async def test_a_host_inside_the_daemons_process_is_compared_with_its_row(
    database: Database, tmp_path: Path
) -> None:
    """Nobody else can recount it, and it is said."""
    connect = "node1=test:///default"
    async with beside_a_daemon(connect, database, tmp_path) as beside:
        status, out = await beside.diff()
        assert (status, out[-1]) == (0, "  no difference")
        assert "  no recount: the host exists inside the daemon's process only" in out


async def test_two_daemons_of_one_host_are_one_host(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """One writes, one stands by: there is one comparison, not two."""
    define_two(test_connection)
    uri = libvirtd.uri("test")
    wait = ("--when-fenced", "wait")
    async with beside_a_daemon(uri, database, tmp_path, *wait) as beside:
        options = ("--instances-path", "/proc", *wait)
        second = asynchost("run", "--connect", uri, "--database", database.url(), *options)
        environment = {"RUNTIME_DIRECTORY": str(tmp_path / "run")}
        async with command(*second, environment=environment) as standby:
            await standby.says("row claimed")
            status, out = await beside.diff()
            assert (status, out[-1]) == (0, "  no difference")
            assert len([line for line in out if "daemon" in line and "fresh" in line]) == 1
            assert (await standby.stops(signal.SIGTERM))[0] == 0


async def test_a_host_that_is_away_keeps_nobody_from_the_others(
    database: Database,
    libvirtd: PrivateLibvirtd,
    test_connection: libvirt.virConnect,
    tmp_path: Path,
) -> None:
    """It is told at once, with the reason; the status is 2."""
    define_two(test_connection)
    away = f"qemu+unix:///system?socket={tmp_path}/none"
    hosts = ("--connect", f"away={away}", "--connect", libvirtd.uri("test"))
    async with asyncio.timeout(60):
        status, out, (line,) = await run_to_the_end("explain", *hosts, "--json")
        assert status == 2
        assert [one["uri"] for one in json.loads("\n".join(out))] == [libvirtd.uri("test")]
        assert line.startswith(f"asynchost: {away}: ")
        assert "No such file" in line
        status, out, _ = await run_to_the_end("diff", *hosts, "--database", database.url())
    assert status == 2
    assert out[0] == "away"
    assert [line for line in out if line.startswith("  no recount: ") and "No such file" in line]
    assert "  row: the database has no live row of this name" in out


async def test_diff_without_a_database_that_is_up_compares_the_rest(
    database: Database, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """Daemon and recount still stand side by side; a row that is one of several is told."""
    uri = libvirtd.uri("test")
    async with beside_a_daemon(f"rack1={uri}", database, tmp_path, *EVENTS_ONLY) as beside:
        gone = f"mysql://me@localhost/nova?unix_socket={tmp_path}/none"
        status, out, _ = await beside.ask("diff", "--database", gone, "--json")
        (found,) = json.loads("\n".join(out))
        assert (status, found["differing"]) == (2, [])
        assert list(found["sides"]) == ["recount", "daemon"]
        assert "none" in found["problems"]["row"]
        database.execute(
            "INSERT INTO compute_nodes SELECT created_at, updated_at, deleted_at, deleted, id + 1,"
            " 7, vcpus, memory_mb, local_gb, vcpus_used, memory_mb_used, local_gb_used,"
            " hypervisor_type, hypervisor_version, cpu_info, disk_available_least, free_ram_mb,"
            " free_disk_gb, current_workload, running_vms, hypervisor_hostname FROM compute_nodes"
        )
        status, out = await beside.diff()
        assert status == 2
        assert any(line.startswith("  no row: several live rows") for line in out)
        # Which one is meant can be said, though the daemon was not told.
        status, out = await beside.diff("--connect", f"rack1={uri}", "--service-id", "7")
        assert (status, out[-1]) == (0, "  no difference")


async def test_the_doctor_starts_no_daemon() -> None:
    """libvirt would start one for a session that has none, of a user who is not root."""
    ordinary = (
        *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
        # The checkout may be below root's home, which other users may not enter.
        *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
    )
    prefix = ordinary if os.geteuid() == 0 else ()
    with open_to_all() as home:
        arguments = asynchost("doctor", "--connect", "qemu:///session")
        environment = {"XDG_RUNTIME_DIR": str(home), "HOME": str(home)}
        async with command(*prefix, *arguments, environment=environment) as doctor:
            assert await doctor.ends() == 2
        assert "which starts it" in doctor.out[1]
        # Where it starts one, it first makes the folder for its socket.
        assert not (home / "libvirt").exists()


async def test_the_doctor_finds_nothing_where_nothing_is_wrong(
    database: Database, libvirtd: PrivateLibvirtd, tmp_path: Path
) -> None:
    """Every thing that the work takes, each with its own line."""
    async with beside_a_daemon(libvirtd.uri("test"), database, tmp_path) as beside:
        status, out, err = await beside.ask("doctor", "--probe", "--database", database.url())
    assert (status, err) == (0, [])
    assert [line.split(":")[0] for line in out] == [
        *("ok    libvirt test+unix", "ok    rights", "ok    events", "ok    keepalive"),
        *("ok    event delivery", "ok    database", "ok    TLS", "ok    tables", "ok    rights"),
        *("ok    matched rows", "ok    clock", "ok    daemon"),
    ]


async def test_the_doctor_says_what_no_row_tells_yet(
    database: Database, libvirtd: PrivateLibvirtd
) -> None:
    """Before the first host has a guard row, nothing shows whether matched rows are counted."""
    status, out, err = await run_to_the_end(
        "doctor", "--connect", libvirtd.uri("test"), "--database", database.url()
    )
    assert (status, err) == (0, [])
    (line,) = (line for line in out if "matched rows" in line)
    assert line.startswith("note  matched rows: not known yet")
    assert "CLIENT_FOUND_ROWS" in line


@pytest.mark.parametrize(
    ("statement", "what", "words"),
    [
        ("DROP TABLE asynchost_fence", "MEND  tables", "CREATE TABLE `asynchost_fence`"),
        ("ALTER TABLE compute_nodes DROP running_vms", "MEND  tables", "ADD COLUMN `running_vms`"),
        ("ALTER TABLE compute_nodes MODIFY cpu_info char(9)", "MEND  tables", "MODIFY `cpu_info`"),
        ("REVOKE UPDATE ON *.* FROM agent@localhost", "MEND  rights", "GRANT SELECT"),
        ("ALTER USER agent@localhost IDENTIFIED BY 'x'", "MEND  database", "check the password"),
    ],
)
async def test_the_doctor_says_how_to_mend_the_database(
    database: Database, libvirtd: PrivateLibvirtd, statement: str, what: str, words: str
) -> None:
    """The statement that is missing stands below what is wrong, and the status is 2."""
    database.execute(
        "CREATE USER agent@localhost", "GRANT ALL ON *.* TO agent@localhost", statement
    )
    status, out, err = await run_to_the_end(
        "doctor", "--connect", libvirtd.uri("test"), "--database", database.url("agent")
    )
    assert (status, err) == (2, [])
    (number,) = [number for number, line in enumerate(out) if line.startswith("MEND")]
    assert out[number].startswith(what)
    assert words in out[number + 1]


async def test_the_doctor_notes_what_will_not_do_for_every_host(
    database: Database, libvirtd: PrivateLibvirtd
) -> None:
    """Nothing must be mended for the sake of the others."""
    database.execute("ALTER TABLE compute_nodes MODIFY vcpus tinyint NOT NULL")
    status, out, err = await run_to_the_end(
        "doctor", "--connect", libvirtd.uri("test"), "--database", database.url()
    )
    assert (status, err) == (0, [])
    noted = [number for number, line in enumerate(out) if line.startswith("note  tables")]
    assert "(tinyint(4)) holds no more than 127" in out[noted[0]]
    assert "ALTER TABLE `compute_nodes` MODIFY `vcpus` int(11) NOT NULL" in out[noted[0] + 1]


async def test_the_doctor_says_how_to_start_what_is_not_up(tmp_path: Path) -> None:
    """Neither server: both are told, and nothing waits for either."""
    uri = f"qemu+unix:///system?socket={tmp_path}/none"
    url = f"mysql://me@localhost/nova?unix_socket={tmp_path}/none"
    status, out, err = await run_to_the_end("doctor", "--connect", uri, "--database", url, "--json")
    assert (status, err) == (2, [])
    findings = {one["what"]: one for one in json.loads("\n".join(out))}
    assert "systemctl start" in findings["database"]["remedy"]
    assert findings[f"libvirt {uri}"]["health"] == "MEND"


async def test_doctor_looks_at_qemu_as_well(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """All events are there, and the keepalive is answered."""
    daemon = await asyncio.to_thread(private_libvirtd)
    status, out, _ = await run_to_the_end("doctor", "--connect", daemon.uri("qemu"))
    assert status == 0
    # libvirt has the event of a removed vCPU from 12.4 on.
    kinds = 8 + hasattr(libvirt, "VIR_DOMAIN_EVENT_ID_VCPU_REMOVED")
    assert f"ok    events: {kinds} kinds registered, as far as the driver sends them" in out
    assert "ok    keepalive: answered" in out
