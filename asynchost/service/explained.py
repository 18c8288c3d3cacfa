"""An account as text: each domain with what it adds and why, and the totals as sums.

Pure: an account in, lines out. A domain's line fits into eighty columns: a longer name is cut in
the middle, and only a reason that quotes the policy's patterns can make it longer.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from asynchost.masking import masked_uri
from asynchost.model import DomainState
from asynchost.service.accounts import Account, one_line
from asynchost.service.terminal import escape, pad, shorten

_NAME: Final = 17
"""As long as the names that Nova gives: instance-0000001a."""
_READ: Final = 11
_CAUSES: Final = {"look-again": "look"}
"""A word that is too long for its column."""


def explained(account: Account) -> Iterator[str]:
    """The account's lines."""
    yield heading(account)
    explanation = account.explanation
    if explanation is None:
        yield "  no totals yet: the first listing is not complete"
        return
    yield _line("domain", "state", "vCPUs", "KiB", read="last read", why="why")
    for domain in explanation["domains"]:
        cost = domain["cost"]
        counts = not domain["rule"].startswith("not counted")
        yield _line(
            shorten(domain["name"] or domain["uuid"], _NAME),
            _state(domain["state"]),
            # What it adds, so that the column is a sum; of one that does not count, what it has.
            cost["vcpus_used"] if counts else domain["vcpus"],
            cost["memory_kib_used"] if counts else domain["memory_kib"],
            read=shorten(_read(domain), _READ),
            why=escape(domain["rule"]),
        )
        if domain["unreadable"] is not None:
            yield f"    cannot be read: {escape(domain['unreadable'])}"
    yield from _sums(explanation)
    if explanation["incomplete"] is not None:
        yield f"  domains that do not count may be missing: {escape(explanation['incomplete'])}"


def heading(account: Account) -> str:
    """The host, and who says so."""
    if account.stale_seconds is not None:
        freshness = f"stale for {age(account.stale_seconds)}"
    else:
        freshness = "not ready" if account.explanation is None else "fresh"
    who = "looked at now" if account.pid is None else f"daemon {account.pid}, {freshness}"
    name = "" if account.name in (None, account.host) else f" = {escape(str(account.name))}"
    shown = masked_uri(account.uri)
    uri = "" if shown == account.host else f" ({escape(shown)})"
    return f"{escape(account.host)}{name}{uri}: {who}, {escape(one_line(account.settings.policy))}"


def _sums(explanation: Mapping[str, Any]) -> Iterator[str]:
    counted = [domain for domain in explanation["domains"] if any(domain["cost"].values())]
    parts: Sequence[tuple[str, list[Mapping[str, int]]]] = (
        (f"{len(counted)} counted", [domain["cost"] for domain in counted]),
        ("reserved", [explanation["reserved"]]),
    )
    for what, costs in parts:
        vcpus = sum(cost["vcpus_used"] for cost in costs)
        memory = sum(cost["memory_kib_used"] for cost in costs)
        yield _line(what, "", vcpus, memory)
    usage = explanation["usage"]
    yield _line("total", "", usage["vcpus_used"], usage["memory_kib_used"])
    yield (
        f"  vcpus_used {usage['vcpus_used']}, memory_mb_used {usage['memory_kib_used'] // 1024},"
        f" running_vms {usage['running_vms']}, current_workload {usage['current_workload']}"
    )


def _line(
    name: str, state: str, vcpus: int | str, kib: int | str, *, read: str = "", why: str = ""
) -> str:
    padded = pad(name, _NAME)
    return f"  {padded} {state:9.9}{vcpus:>5} {kib:>10}  {read:{_READ}} {why}".rstrip()


def _state(number: int | None) -> str:
    if number is None:
        return "unknown"
    try:
        return DomainState(number).name.lower()
    except ValueError:
        return str(number)


def _read(domain: Mapping[str, Any]) -> str:
    if domain["read_seconds_ago"] is None:
        return "never"
    if domain["cause"] is None:
        return "now"
    return f"{age(domain['read_seconds_ago'])} {_CAUSES.get(domain['cause'], domain['cause'])}"


def age(seconds: float) -> str:
    """A time span in a few characters."""
    if seconds < 1:
        return f"{seconds:.1f}s"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"
