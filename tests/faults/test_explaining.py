"""A number can be explained also while not every domain can be read."""

import asyncio
from collections.abc import Callable

import libvirt

from asynchost import Explanation, HostMonitor, Usage
from tests.faults.test_locked_domains import SETTINGS, held_guests
from tests.support.libvirtd import PrivateLibvirtd
from tests.support.locked import locking
from tests.support.waiting import eventually


async def test_a_locked_domain_is_in_its_hosts_explanation(
    private_libvirtd: Callable[..., PrivateLibvirtd],
) -> None:
    """By its last record, with the reason; and it is said that no listing came back."""
    daemon = private_libvirtd(hooks=True)
    with (
        held_guests(daemon, 1) as held,
        locking(daemon, held.names, "release") as lock,
    ):
        await asyncio.to_thread(held.start)
        async with HostMonitor(daemon.uri(), settings=SETTINGS) as monitor:
            (uuid,) = held.uuids
            before = await eventually(lambda: explained_in_full(monitor))
            # The one that is only defined is not in the totals, but in their explanation.
            assert [(one.name, one.cost.vcpus_used) for one in before.domains] == [
                ("held0", 2),
                ("beside", 0),
            ]
            await held.end_up_locked(lock)
            await eventually(lambda: uuid in monitor.status.unreadable, describe="stuck")
            during = await monitor.explain()
            (account,) = during.domains
            # It is just being shut down, if it was read in the moment before it was locked.
            ending = account.state == libvirt.VIR_DOMAIN_SHUTDOWN
            assert ending or account.state == libvirt.VIR_DOMAIN_PAUSED
            assert (account.uuid, account.cost) == (uuid, Usage(2, 16 * 1024, 1, int(ending)))
            assert "no answer" in (account.unreadable or "")
            assert during.usage == account.cost
            assert "did not answer" in (during.incomplete or "")
            await held.go_on(lock)
            await eventually(lambda: monitor.status.unreadable == {}, describe="readable again")
            after = await eventually(lambda: explained_in_full(monitor))
            assert after.usage == Usage()
            assert {one.name: one.rule for one in after.domains} == dict.fromkeys(
                ("held0", "beside"), "not counted: shut off"
            )


async def explained_in_full(monitor: HostMonitor) -> Explanation:
    explanation = await monitor.explain()
    assert explanation.incomplete is None
    return explanation
