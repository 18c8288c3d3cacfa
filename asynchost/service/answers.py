"""What a daemon answers, beside the accounts of its hosts: its status, and changes as they happen.

Everything comes from memory: no answer here takes a call into libvirt or a statement. May live
here: how the daemon's state becomes JSON. Must not: sockets, text for people. Memory: one bounded
subscription for each host and listener.
"""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

import structlog

from asynchost import ComputeNodeWriter, HostMonitor, __version__
from asynchost.masking import without_secrets
from asynchost.service.accounts import Watched, answer
from asynchost.service.control import Lines
from asynchost.service.streams import outlet_of

_log = structlog.get_logger("asynchost.service")

_NEW_HOSTS_SECONDS: Final = 1.0
"""How often a listener's answer looks for hosts that came, and for monitors begun anew."""
FORMAT: Final = 1
"""The version of the status as JSON. It grows when a member goes or gets another meaning; a member
that is added leaves it as it is."""
_WAITING_LINES: Final = 1000
"""For one listener that does not read; what is folded before that is bounded as well."""


class Answers:
    """Answers questions about one daemon."""

    def __init__(
        self, hosts: Sequence[Watched], writer: ComputeNodeWriter, *, dry_run: bool
    ) -> None:
        self._hosts = hosts
        self._writer = writer
        self._dry_run = dry_run
        self._began = monotonic()
        self.unmatched: dict[str, list[str]] = {}
        """The ``--only`` patterns that matched no domain when the host was ready, by its name."""

    async def to_owner(self, question: Mapping[str, Any]) -> Mapping[str, Any] | Lines:
        """Whatever the daemon's own user or root asks."""
        if "ask" in question:
            return await self.to_group(question)
        return await answer(self._hosts, question)

    async def to_group(self, question: Mapping[str, Any]) -> Mapping[str, Any] | Lines:
        """What the members of the daemon's group may know, which holds no URI and no setting.

        Raises ValueError for any other question.
        """
        if question.get("ask") == "status":
            return self.status()
        if question.get("ask") == "watch":
            return self._changes(question.get("host"))
        raise ValueError("only the daemon's own user and root may ask that")

    def status(self) -> dict[str, Any]:
        """How the daemon is doing, as JSON types."""
        outlet = outlet_of(sys.stderr)
        return {
            "format": FORMAT,
            "pid": os.getpid(),
            "version": __version__,
            "running_seconds": monotonic() - self._began,
            "dry_run": self._dry_run,
            "log_lines_lost": 0 if outlet is None else outlet.total_lost,
            "writer": self._writer.status.as_dict(),
            "hosts": [self._host(one) for one in self._hosts],
        }

    def log_status(self) -> None:
        """Write the status into the log: one line for the daemon, one for each host."""
        status = self.status()
        hosts = status.pop("hosts")
        _log.info("status", **status)
        for host in hosts:
            row = host.pop("row")
            monitor = host.pop("monitor")
            keys = ("reason", "events", "audits", "drift", "last_audit_seconds", "held_threads")
            _log.info(
                "status of host",
                **host,
                **{key: monitor[key] for key in keys},
                unreadable=len(monitor["unreadable"]),
                unreadable_disks=len(monitor["unreadable_disks"]),
                row={key: value for key, value in row.items() if key not in ("host", "reason")},
            )

    def _host(self, watched: Watched) -> dict[str, Any]:
        monitor, attachment = watched.monitor, watched.attachment
        snapshot = monitor.snapshot()
        disk_asked = watched.settings.disk is None or watched.settings.disk.value != "none"
        return {
            "host": watched.config.called,
            "name": snapshot.name,
            "fresh": snapshot.fresh,
            "usage": None if snapshot.usage is None else snapshot.usage.as_dict(),
            "disk_known": snapshot.disk is not None or not disk_asked or not snapshot.disk_settled,
            "audit_interval_seconds": watched.settings.audit_interval_seconds,
            "patterns_without_domain": self.unmatched.get(watched.config.called, []),
            "monitor": _named(watched, monitor.status.as_dict()),
            "row": None if attachment is None else _named(watched, attachment.status.as_dict()),
        }

    async def _changes(self, host: str | None) -> Lines:
        """Each change of the totals of all hosts, or of one, from now on."""
        lines: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_WAITING_LINES)
        tasks: dict[HostMonitor, asyncio.Task[None]] = {}

        async def follow(watched: Watched) -> None:
            with watched.monitor.changes() as changes:
                async for change in changes:
                    # A full queue makes the subscription fold what comes next.
                    await lines.put({**change.as_dict(), "host": watched.config.called})

        try:
            yield {"following": [one.config.called for one in self._meant(host)]}
            look_at = 0.0
            while True:
                if monotonic() >= look_at:
                    look_at = monotonic() + _NEW_HOSTS_SECONDS
                    meant = {one.monitor: one for one in self._meant(host)}
                    for monitor in [one for one in tasks if one not in meant]:
                        tasks.pop(monitor).cancel()
                    for monitor, one in meant.items():
                        if monitor not in tasks:
                            tasks[monitor] = asyncio.create_task(follow(one))
                            # What ended a monitor is told in the log and by its status.
                            tasks[monitor].add_done_callback(_forget)
                try:
                    line = await asyncio.wait_for(lines.get(), _NEW_HOSTS_SECONDS)
                except TimeoutError:
                    continue
                yield line
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    def _meant(self, host: str | None) -> list[Watched]:
        return [
            one
            for one in self._hosts
            if host is None or one.is_called(host) or one.config.called == host
        ]


def _named(watched: Watched, status: Mapping[str, Any]) -> dict[str, Any]:
    """The status with the host's name, and without the secrets of the host's URI.

    Reasons hold libvirt's own texts, and libvirt repeats a URI as it was given.
    """
    uri = watched.config.uri
    cleaned: dict[str, Any] = {"host": watched.config.called}
    for name, value in status.items():
        if name == "reason" and value is not None:
            cleaned[name] = without_secrets(value, uri)
        elif name in ("unreadable", "unreadable_disks"):
            cleaned[name] = {one: without_secrets(text, uri) for one, text in value.items()}
        elif name != "host":
            cleaned[name] = value
    return cleaned


def _forget(task: "asyncio.Task[None]") -> None:
    if not task.cancelled():
        task.exception()
