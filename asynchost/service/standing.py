"""Whether hosts' rows are kept, as ``asynchost status`` and ``asynchost doctor`` tell it.

Pure: answers of daemons in, verdicts and lines out. Memory: nothing is kept.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple

from asynchost.service.explained import age
from asynchost.service.terminal import INDENT, escape, fill, pad, shorten

_LATE_SECONDS: Final = 60.0
"""A change is written within a second where nothing is in the way."""
_MISSED_AUDITS: Final = 3
_STARTING_SECONDS: Final = 60.0
_WIDTH: Final = 80
_HOST: Final = 22


class Standing(IntEnum):
    """How it stands, as monitoring plug-ins say it: the exit statuses of ``asynchost status``."""

    KEPT = 0
    """All rows are kept."""
    LATE = 1
    """Something is late, refused, or only stood by for."""
    NOT_KEPT = 2
    """A row is not kept."""
    NO_DAEMON = 3
    """No daemon answers."""

    @property
    def word(self) -> str:
        """For people."""
        return ("ok", "LATE", "NOT KEPT", "NO DAEMON")[self]


class Remark(NamedTuple):
    """Something that is not as it should be."""

    standing: Standing
    text: str


def remarks_on(host: Mapping[str, Any], daemon: Mapping[str, Any]) -> list[Remark]:
    """What is to be said of one host of a daemon; nothing where its row is kept."""
    starting = daemon["running_seconds"] < _STARTING_SECONDS
    missing = Standing.LATE if starting else Standing.NOT_KEPT
    monitor, row = host["monitor"], host["row"]
    remarks = []
    if not host["fresh"]:
        since = monitor["stale_seconds"]
        how = "no totals yet" if since is None else f"totals frozen for {age(since)}"
        remarks.append(Remark(missing, f"{how}: {monitor['reason']}"))
    else:
        remarks += _of_monitor(host, monitor)
    if row is not None:
        remarks += _of_row(row, daemon, missing)
    return remarks


def _of_monitor(host: Mapping[str, Any], monitor: Mapping[str, Any]) -> Iterator[Remark]:
    interval, last = host["audit_interval_seconds"], monitor["last_audit_seconds"]
    if interval and last is not None and last > max(_MISSED_AUDITS * interval, _LATE_SECONDS):
        yield Remark(Standing.LATE, f"no complete audit for {age(last)}")
    for what in ("unreadable", "unreadable_disks"):
        if unreadable := monitor[what]:
            some, reason = len(unreadable), next(iter(unreadable.values()))
            text = "domains cannot be read" if what == "unreadable" else "domains' disks unread"
            yield Remark(Standing.LATE, f"{some} {text}, such as: {reason}")
    if not host["disk_known"]:
        yield Remark(Standing.LATE, "disk not known: give --instances-path or --disk")
    for pattern in host["patterns_without_domain"]:
        yield Remark(Standing.LATE, f"--only {pattern} matches no domain")


def _of_row(
    row: Mapping[str, Any], daemon: Mapping[str, Any], missing: Standing
) -> Iterator[Remark]:
    owner = f"; {row['owner']} owns the row" if row["owner"] else ""
    match row["state"]:
        case "given up":
            yield Remark(Standing.NOT_KEPT, f"row given up: {row['reason']}")
        case "standing by":
            yield Remark(Standing.LATE, f"standing by{owner}")
        case "refused":
            yield Remark(Standing.LATE, "the database refuses the row; the log says why")
        case "partial":
            yield Remark(Standing.LATE, "columns are left out of the row; the log says which")
        case "waiting":
            why = daemon["writer"]["reason"] or "it is about to be claimed"
            yield Remark(missing, f"no row yet: {why}")
    unwritten = row["unwritten_seconds"]
    if unwritten is not None and unwritten > _LATE_SECONDS:
        yield Remark(Standing.LATE, f"a change is not written for {age(unwritten)}")


def remarks_on_daemon(daemon: Mapping[str, Any]) -> list[Remark]:
    """What is to be said of a daemon's database and log."""
    writer = daemon["writer"]
    remarks = []
    if not writer["connected"]:
        since = writer["connection_seconds"]
        long = since is not None and since > _LATE_SECONDS
        for_long = "" if since is None else f" for {age(since)}"
        remarks.append(
            Remark(
                Standing.NOT_KEPT if long else Standing.LATE,
                f"no database{for_long}: {writer['reason'] or 'not connected yet'}",
            )
        )
    return remarks


def verdict(daemons: Sequence[Mapping[str, Any]], problems: Sequence[str]) -> Standing:
    """The worst of all hosts. A host that one daemon keeps and another stands by for is kept."""
    if not daemons:
        return Standing.NO_DAEMON
    worst = Standing.NOT_KEPT if problems else Standing.KEPT
    best: dict[str, Standing] = {}
    for daemon in daemons:
        of_daemon = max((one.standing for one in remarks_on_daemon(daemon)), default=Standing.KEPT)
        for host in daemon["hosts"]:
            standing = max(
                (one.standing for one in remarks_on(host, daemon)), default=Standing.KEPT
            )
            standing = max(standing, of_daemon)
            name = host["name"] or host["host"]
            best[name] = min(best.get(name, standing), standing)
    return max([worst, *best.values()])


def lines(daemons: Sequence[Mapping[str, Any]], problems: Iterable[str]) -> Iterator[str]:
    """The status for a terminal of 80 columns; nothing from outside is left unescaped."""
    for daemon in daemons:
        writer = daemon["writer"]
        since = writer["connection_seconds"]
        how = "connected" if writer["connected"] else "not connected"
        for_long = "" if since is None else f" for {age(since)}"
        yield (
            f"daemon {daemon['pid']}, running for {age(daemon['running_seconds'])},"
            f" database {how}{for_long}{', dry run' if daemon['dry_run'] else ''}"
        )
        if lost := daemon["log_lines_lost"]:
            yield f"  {lost} log lines were lost, because nobody took them"
        yield from _folded(remarks_on_daemon(daemon), "  ")
        yield f"  {'host':{_HOST}} {'vCPUs':>6} {'MiB':>9} {'VMs':>5}  row"
        for host in daemon["hosts"]:
            yield _line(host)
            yield from _folded(remarks_on(host, daemon), "    ")
    for problem in problems:
        yield from _wrapped(problem, "")


def _line(host: Mapping[str, Any]) -> str:
    usage, row = host["usage"], host["row"]
    numbers = ["-", "-", "-"]
    if usage is not None:
        numbers = [str(usage[name]) for name in ("vcpus_used", "memory_mb_used", "running_vms")]
    parts = [] if row is None else [row["state"]]
    if row is not None and row["term"] is not None:
        parts.append(f"term {row['term']}")
    if row is not None and row["written_seconds"] is not None:
        parts.append(f"written {age(row['written_seconds'])} ago")
    if drift := host["monitor"]["drift"]:
        parts.append(f"drift {drift}")
    name = pad(shorten(host["host"], _HOST), _HOST)
    return f"  {name} {numbers[0]:>6} {numbers[1]:>9} {numbers[2]:>5}  {', '.join(parts)}".rstrip()


def _folded(remarks: Iterable[Remark], indent: str) -> Iterator[str]:
    for remark in remarks:
        yield from _wrapped(f"{remark.standing.word}: {remark.text}", indent)


def _wrapped(text: str, indent: str) -> Iterator[str]:
    room = _WIDTH - len(indent) - len(INDENT)
    # A word that no line has room for is cut, so that it cannot fill a screen.
    words = [shorten(word, room) for word in escape(text).split(" ")]
    for line in fill(words, _WIDTH - len(indent)).splitlines():
        yield indent + line
