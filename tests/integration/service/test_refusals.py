"""What a person must mend: one line that says how, exit status 2, no traceback."""

import asyncio
import json
import signal
import socket
from pathlib import Path

import pytest

from tests.integration.service.processes import asynchost, command, run_to_the_end
from tests.integration.service.rows import Database
from tests.support.libvirtd import PrivateLibvirtd


async def refusal(*arguments: str, environment: dict[str, str] | None = None) -> str:
    """Run ``asynchost``, which must refuse; returns the line with the error."""
    status, out, err = await run_to_the_end(*arguments, environment=environment)
    assert (status, out) == (2, [])
    # What comes before, at most, is what was logged until then.
    assert all(line.startswith("{") for line in err[:-1]), err
    assert "Traceback" not in "".join(err)
    if arguments[0] != "run":
        assert err[-1].startswith("asynchost: error: ")
        return err[-1]
    # Of a daemon, the last line is like all others: whatever reads its log can read that, too.
    record = json.loads(err[-1])
    assert (record["event"], record["level"]) == ("ended with an error", "critical")
    assert record["exit_status"] == 2
    return str(record["reason"])


@pytest.mark.parametrize("scheme", ["nosuch", "qemu+nosuch"])
async def test_a_uri_with_an_unknown_scheme(database: Database, scheme: str) -> None:
    """libvirt would take it for a daemon that is not up; it must be corrected."""
    uri = f"{scheme}:///system"
    line = await refusal("run", "--connect", uri, "--database", database.url())
    assert uri in line
    assert "'nosuch'; use one of" in line


async def test_a_uri_that_libvirt_refuses(database: Database, libvirtd: PrivateLibvirtd) -> None:
    """What only libvirt can tell is an end as orderly as any other."""
    uri = libvirtd.uri("qemu").replace("///s", "///wrong-s")
    line = await refusal("run", "--connect", uri, "--database", database.url())
    assert uri in line
    assert "correct the URI" in line


async def test_what_the_database_refuses(empty_database: Database) -> None:
    """Password, database, table, column, companion table and rights: each with its way out."""
    database = empty_database
    database.execute("CREATE USER agent@localhost IDENTIFIED BY 's3cret'")
    run = ("run", "--connect", "test:///default", "--database", database.url("agent"))
    right = {"ASYNCHOST_DATABASE_PASSWORD": "s3cret"}

    line = await refusal(*run, environment={"ASYNCHOST_DATABASE_PASSWORD": "wrong-one"})
    assert "1045" in line
    assert "password" in line
    assert "wrong-one" not in line

    database.execute("GRANT ALL ON other.* TO agent@localhost")
    other = (*run[:-1], run[-1].replace("/nova?", "/other?"))
    assert "CREATE DATABASE `other`" in await refusal(*other, environment=right)

    database.execute("GRANT SELECT ON nova.* TO agent@localhost")
    line = await refusal(*run, environment=right)
    assert "compute_nodes" in line
    assert "asynchost schema --apply" in line

    status, out, _ = await run_to_the_end("schema", "--apply", "--database", database.url())
    assert (status, out[:2]) == (0, ["compute_nodes: created", "asynchost_fence: created"])
    # The account that makes the tables is an administrator's: the daemon's is another one.
    account = "'asynchost'@'%'"
    rest = [line for line in out[2:] if line]
    assert rest[0] == "-- The account and the rights that asynchost run needs, and no other:"
    assert rest[1] == f"-- CREATE USER IF NOT EXISTS {account} IDENTIFIED BY 'PASSWORD';"
    assert [line.rpartition(" ON ")[2] for line in rest[2:4]] == [
        f"`nova`.`{table}` TO {account};" for table in ("compute_nodes", "asynchost_fence")
    ]
    line = await refusal(*run, environment=right)
    assert "GRANT" in line
    assert "compute_nodes" in line

    database.execute("GRANT ALL ON nova.* TO agent@localhost", "DROP TABLE asynchost_fence")
    line = await refusal(*run, environment=right)
    assert "CREATE TABLE `asynchost_fence`" in line

    status, out, _ = await run_to_the_end("schema", "--apply", "--database", database.url())
    assert (status, out[:2]) == (
        0,
        ["compute_nodes: was there, left as it is", "asynchost_fence: created"],
    )
    database.execute("ALTER TABLE compute_nodes DROP COLUMN running_vms")
    line = await refusal(*run, environment=right)
    assert "ADD COLUMN `running_vms`" in line


async def test_one_table_of_two_that_can_be_created(empty_database: Database) -> None:
    """It is said which table was created, which is missing, and how to go on."""
    database = empty_database
    database.execute(
        "CREATE USER maker@localhost",
        "GRANT SELECT, CREATE ON nova.compute_nodes TO maker@localhost",
    )
    apply = ("schema", "--apply", "--database", database.url("maker"))
    line = await refusal(*apply)
    assert "the table asynchost_fence is missing; created was compute_nodes" in line
    assert "GRANT CREATE ON `nova`.* TO 'maker'@'localhost'" in line
    database.execute("GRANT CREATE ON nova.* TO maker@localhost")
    status, out, _ = await run_to_the_end(*apply)
    assert (status, out[:2]) == (
        0,
        ["compute_nodes: was there, left as it is", "asynchost_fence: created"],
    )
    assert "-- CREATE USER IF NOT EXISTS 'maker'@'%' IDENTIFIED BY 'PASSWORD';" in out


async def test_several_live_rows_of_one_name(database: Database) -> None:
    """Which one is meant must be said; their ids are listed."""
    insert = (
        "INSERT INTO compute_nodes (deleted, service_id, vcpus, memory_mb, local_gb, vcpus_used,"
        " memory_mb_used, local_gb_used, hypervisor_type, hypervisor_version, cpu_info,"
        " hypervisor_hostname) VALUES (0, {}, 1, 1, 1, 0, 0, 0, 'x', 1, '{{}}', 'node1')"
    )
    database.execute(insert.format(4), insert.format(5))
    line = await refusal("run", "--connect", "node1=test:///default", "--database", database.url())
    first, second = (row["id"] for row in database.rows())
    assert f"(id {first} with service_id 4, id {second} with service_id 5)" in line
    assert "--service-id" in line


async def test_two_hosts_that_would_share_a_row(database: Database, tmp_path: Path) -> None:
    """Two drivers of one machine report one name: they must be named apart."""
    (tmp_path / "b.xml").write_text(
        "<node><cpu><active>1</active><nodes>1</nodes><sockets>1</sockets><cores>1</cores>"
        "<threads>1</threads></cpu><memory>1024</memory></node>"
    )
    line = await refusal(
        *("run", "--connect", "test:///default", "--connect", f"test://{tmp_path}/b.xml"),
        *("--database", database.url()),
    )
    assert "would both write the row" in line
    assert "--connect NAME=URI" in line


async def test_schema_apply_without_a_server(tmp_path: Path) -> None:
    """A command that is over at once does not wait for a server; it says that there is none."""
    url = f"mysql://nova@localhost/nova?unix_socket={tmp_path}/none"
    assert f"{tmp_path}/none" in await refusal("schema", "--apply", "--database", url)


async def test_output_that_nobody_reads() -> None:
    """``asynchost schema | head -1`` is no error."""
    async with command("/bin/sh", "-c", f"{' '.join(asynchost('schema'))} | head -1") as pipe:
        assert await pipe.ends() == 0
    assert len(pipe.out) == 1
    assert pipe.err == []


async def test_output_to_a_full_disk() -> None:
    """One line as for everything that somebody must mend."""
    line = f"{' '.join(asynchost('schema'))} > /dev/full"
    async with command("/bin/sh", "-c", line) as running:
        assert await running.ends() == 2
    (line,) = running.err
    assert line == (
        "asynchost: error: cannot write standard output: No space left on device;"
        " make room where the output is sent"
    )


async def test_schema_apply_is_interrupted_without_a_traceback(tmp_path: Path) -> None:
    """Ctrl-C while a server does not answer: nothing was begun, so it just ends."""
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute"))
        mute.listen()
        mute.setblocking(False)
        url = f"mysql://nova@localhost/nova?unix_socket={tmp_path}/mute"
        async with command(*asynchost("schema", "--apply", "--database", url)) as running:
            accepted, _ = await asyncio.get_running_loop().sock_accept(mute)
            with accepted:
                status, _ = await running.stops(signal.SIGINT)
    assert status == 128 + signal.SIGINT
    assert "".join(running.err).strip() == ""
