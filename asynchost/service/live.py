"""The commands that show daemons at work: status and watch.

May live here: whom each asks, and with which status it ends. Must not: what the answers mean.
"""

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import click

from asynchost.plain import plain
from asynchost.service.answers import FORMAT
from asynchost.service.control import Answer, ask_all, listen_to_all
from asynchost.service.logs import configure_logs
from asynchost.service.options import json_option
from asynchost.service.standing import Standing, lines, remarks_on, remarks_on_daemon, verdict
from asynchost.service.streams import reader_has_gone
from asynchost.service.terminal import escape

_ANSWER_SECONDS: Final = 1.5
"""A status comes from memory; monitoring plug-ins get two seconds in all."""
_AGAIN_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.5
_NOT_UNDERSTOOD: Final = "a daemon's answer could not be understood; it is of another version"


@click.command(
    epilog="Exit status: 0 all rows are kept, 1 something is late, refused or only stood by for, "
    "2 a row is not kept, 3 no daemon answers."
)
@json_option
@click.option("--watch", "again", is_flag=True, help="Show it again every two seconds.")
def status(*, as_json: bool, again: bool) -> int:
    """Say whether the rows are kept that the daemons on this machine watch.

    Answers within two seconds, from the daemons' memory. A member of the daemon's group may ask.
    """
    configure_logs("error", "console")
    return asyncio.run(_status(as_json=as_json, again=again))


async def _status(*, as_json: bool, again: bool) -> int:
    while True:
        daemons, problems, standing = await ask_status(_ANSWER_SECONDS)
        if again and not as_json and sys.stdout.isatty():
            click.clear()
        if as_json:
            document = {
                "format": FORMAT,
                "standing": standing.word,
                "exit_status": int(standing),
                "daemons": [_with_remarks(daemon) for daemon in daemons],
                "problems": problems,
            }
            click.echo(json.dumps(plain(document), indent=None if again else 2))
        else:
            for line in lines(daemons, problems):
                click.echo(escape(line))
            if not daemons and not problems:
                click.echo("no daemon runs here that this user may ask: asynchost run")
            click.echo(standing.word)
        sys.stdout.flush()
        if not again or reader_has_gone(sys.stdout):
            return int(standing)
        await asyncio.sleep(_AGAIN_SECONDS)


async def ask_status(seconds: float) -> tuple[list[dict[str, Any]], list[str], Standing]:
    """What the daemons on this machine say, why others say nothing, and what it amounts to."""
    given, problems = await ask_all({"ask": "status"}, os.environ, seconds=seconds)
    daemons: list[dict[str, Any]] = []
    problems = list(problems)
    for said, _ in given:
        try:
            verdict([said], [])
            list(lines([said], []))
        except (KeyError, TypeError, AttributeError, ValueError):
            problems.append(_NOT_UNDERSTOOD)
        else:
            daemons.append(said)
    return daemons, problems, verdict(daemons, problems)


def _with_remarks(daemon: Mapping[str, Any]) -> dict[str, Any]:
    hosts = [
        {**host, "remarks": [one.text for one in remarks_on(host, daemon)]}
        for host in daemon["hosts"]
    ]
    return {
        **daemon,
        "hosts": hosts,
        "remarks": [one.text for one in remarks_on_daemon(daemon)],
    }


@click.command()
@click.argument("host", required=False)
@json_option
def watch(*, host: str | None, as_json: bool) -> int:
    """Show each change of the daemons' totals as it happens, with the guest that made it.

    HOST is a name or URI as the daemon knows it. [default: all hosts]. Ends when the daemons have
    ended, when nobody reads any more, or by Ctrl-C. Exit status 3 if no daemon answers.
    """
    configure_logs("error", "console")
    return asyncio.run(_watch(host, as_json=as_json))


async def _watch(host: str | None, *, as_json: bool) -> int:
    heard: list[str] = []

    def take(answer: Answer) -> None:
        said = answer.said
        if "following" in said:
            heard.extend(map(str, said["following"]))
            return
        try:
            text = json.dumps(said) if as_json else change_line(said)
        except (KeyError, TypeError, ValueError):
            text = _NOT_UNDERSTOOD
        click.echo(escape(text))
        sys.stdout.flush()

    listening = asyncio.create_task(listen_to_all({"ask": "watch", "host": host}, os.environ, take))
    leaving = asyncio.create_task(_until_nobody_reads())
    try:
        await asyncio.wait([listening, leaving], return_when=asyncio.FIRST_COMPLETED)
        if not listening.done():
            return int(Standing.KEPT)
        for problem in listening.result().problems:
            click.echo(f"asynchost: {escape(problem)}", err=True)
    finally:
        for task in (listening, leaving):
            task.cancel()
        await asyncio.gather(listening, leaving, return_exceptions=True)
    if not heard:
        what = "no daemon answers" if host is None else f"no daemon watches a host {host!r}"
        click.echo(f"asynchost: {escape(what)}", err=True)
    return int(Standing.KEPT if heard else Standing.NO_DAEMON)


async def _until_nobody_reads() -> None:
    # Nothing tells of it but a look: an idle host has no line to write.
    while not reader_has_gone(sys.stdout):  # noqa: ASYNC110
        await asyncio.sleep(_LOOK_SECONDS)


def change_line(change: Mapping[str, Any]) -> str:
    """One change as one line: when, on which host, which guest, what moved from what to what."""
    before, after = change["before"], change["after"]
    columns = (
        ("vCPUs", "vcpus_used", ""),
        ("memory", "memory_mb_used", " MiB"),
        ("VMs", "running_vms", ""),
        ("workload", "current_workload", ""),
    )
    moved = ", ".join(
        f"{what} {int(before[name])} -> {int(after[name])}{unit}"
        for what, name, unit in columns
        if before[name] != after[name]
    )
    at = datetime.fromisoformat(change["at"]).astimezone()
    who = change["domain_name"] or change["uuid"] or "the host"
    folded = "" if change["folded"] == 1 else f" ({int(change['folded'])} changes)"
    return f"{at:%H:%M:%S} {change['host']} {who} {change['kind']}{folded}: {moved or 'no total'}"
