"""Reading many dirty domains: one by one, or after one listing. Where would a switch lie?

Blocking calls over libvirtd's socket, in this process, with no loop beside them: what libvirt
charges for each way, whoever asks.
"""

import random
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import libvirt

from benchmarks.figures import Interval, ratio_interval
from benchmarks.report import Goal, Result, Table, microseconds
from tests.support import guests
from tests.support.libvirtd import PrivateLibvirtd

SHARES = (0.01, 0.1, 0.5, 1.0)
QEMU_GUESTS = 20
_ACTIVE = libvirt.VIR_CONNECT_LIST_DOMAINS_ACTIVE
# What a read wants to know beside the state. QEMU asks each guest's monitor for it.
_NEEDED = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
)

Domains = Sequence[libvirt.virDomain]
Way = Callable[[libvirt.virConnect, Domains], object]


def _one_by_one(_connection: libvirt.virConnect, dirty: Domains) -> object:
    return [domain.info() for domain in dirty]


def _looked_up(connection: libvirt.virConnect, dirty: Domains) -> object:
    return [connection.lookupByUUID(domain.UUID()).info() for domain in dirty]


def _listed(connection: libvirt.virConnect, dirty: Domains) -> object:
    wanted = {domain.UUID() for domain in dirty}
    return [
        domain.info() for domain in connection.listAllDomains(_ACTIVE) if domain.UUID() in wanted
    ]


def _statistics(connection: libvirt.virConnect, _dirty: Domains) -> object:
    return connection.getAllDomainStats(_NEEDED, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_ACTIVE)


WAYS: dict[str, Way] = {
    "info() of the event's object": _one_by_one,
    "look-up, then info()": _looked_up,
    "one listing, then info()": _listed,
}


def run(options: Namespace) -> Result:
    """Each way at each share of dirty domains, in interleaved rounds."""
    size = max(options.domains)
    shares = {share: max(1, round(size * share)) for share in SHARES}
    with PrivateLibvirtd() as daemon:
        with daemon.connection("test") as connection:
            guests.remove_all(connection)
            for number in range(size):
                guests.start(connection, guests.guest_xml(f"d{number}", kind="test"))
            found = _measure(connection, shares, options.rounds)
        with daemon.connection() as connection:
            for number in range(QEMU_GUESTS):
                guests.start(connection, guests.guest_xml(f"q{number}"))
            statistics = _bulk_on_qemu(connection, options.rounds)
            guests.remove_all(connection)
    return _result(size, shares, found, statistics, options.rounds)


def _measure(
    connection: libvirt.virConnect, shares: dict[float, int], rounds: int
) -> dict[str, dict[float, list[float]]]:
    chance = random.Random(1)
    domains = connection.listAllDomains(_ACTIVE)
    found: dict[str, dict[float, list[float]]] = {
        name: {share: [] for share in shares} for name in WAYS
    }
    for number in range(rounds + 1):
        for share, count in shares.items():
            dirty = chance.sample(domains, count)
            for name in chance.sample(list(WAYS), len(WAYS)):
                seconds = _seconds(WAYS[name], connection, dirty)
                if number:
                    found[name][share].append(seconds)
    return found


def _bulk_on_qemu(connection: libvirt.virConnect, rounds: int) -> dict[str, list[float]]:
    domains = connection.listAllDomains(_ACTIVE)
    ways = {"info() each": _one_by_one, "getAllDomainStats()": _statistics}
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            seconds = _seconds(way, connection, domains) / len(domains)
            if number:
                found[name].append(seconds)
    return found


def _seconds(way: Way, connection: libvirt.virConnect, dirty: Domains) -> float:
    begun = time.monotonic()
    way(connection, dirty)
    return time.monotonic() - begun


def _result(
    size: int,
    shares: dict[float, int],
    found: dict[str, dict[float, list[float]]],
    statistics: dict[str, list[float]],
    rounds: int,
) -> Result:
    single, looked_up, listed = found.values()
    against: dict[float, Interval] = {
        share: ratio_interval(listed[share], single[share]) for share in shares
    }
    against_looked_up = {share: ratio_interval(listed[share], looked_up[share]) for share in shares}
    rows = [
        [name, *(microseconds(median(by[share]) / count) for share, count in shares.items())]
        for name, by in found.items()
    ]
    least = min(one.value for one in against.values())
    pays = [share for share, one in against_looked_up.items() if one.high < 1]
    qemu = {name: median(times) for name, times in statistics.items()}
    heading = [f"{share:.0%}" for share in shares]
    raw: dict[str, Any] = {"seconds": found, "qemu_seconds_per_domain": statistics}
    return Result(
        "reads",
        f"Reading the dirty ones of {size:,} active domains, over libvirtd's socket: by info()"
        " with the object that each event brings; by a look-up and info(), without one; and after"
        " one listing of all, by info() with the listing's objects. A listing brings no numbers,"
        " so it saves only look-ups. On QEMU: the one call that brings the numbers of all.",
        {"rounds": rounds, "QEMU guests": QEMU_GUESTS},
        [
            Table(
                "microseconds per dirty domain, median, by share of dirty domains",
                ["", *heading],
                rows,
            ),
            Table(
                "one listing, then info(): median of the rounds' ratios (95 % interval)",
                ["", "over info() alone", "over look-up and info()"],
                [
                    [
                        f"{share:.0%} dirty",
                        *(
                            f"{one.value:.2f} ({one.low:.2f} to {one.high:.2f})"
                            for one in (against[share], against_looked_up[share])
                        ),
                    ]
                    for share in shares
                ],
            ),
            Table(
                f"QEMU, {QEMU_GUESTS} idle guests: microseconds per domain, median",
                ["", *qemu],
                [["all read", *map(microseconds, qemu.values())]],
            ),
        ],
        [
            Goal(
                "no listing before reading what has its object: it costs more at every share",
                f"at least {least:.2f} x",
                least >= 1,
            )
        ],
        [
            "without objects a listing would pay"
            + (f" from {min(pays):.0%} dirty on" if pays else " at none of these shares")
        ],
        raw,
    )
