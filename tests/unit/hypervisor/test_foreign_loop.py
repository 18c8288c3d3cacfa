"""A libvirt event loop that the program registered before us: does it run, and take threads?"""

import threading
from collections.abc import Callable

import libvirt
import pytest

from asynchost.hypervisor.foreign_loop import why_unserved


async def test_another_implementation_is_asked_whether_it_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does when a timer that a thread armed fires, wherever; the timer is taken back."""
    removed: list[int] = []

    def fire(_interval: int, callback: Callable[..., None], opaque: object) -> int:
        threading.Thread(target=callback, args=(5, opaque)).start()
        return 5

    def refuse(*_: object) -> int:
        raise libvirt.libvirtError("virEventAddTimeout() failed")

    monkeypatch.setattr(libvirt, "virEventRemoveTimeout", removed.append)
    monkeypatch.setattr(libvirt, "virEventAddTimeout", fire)
    assert await why_unserved(10.0) is None
    monkeypatch.setattr(libvirt, "virEventAddTimeout", lambda *_: 6)
    nothing_runs = await why_unserved(0.01)
    assert nothing_runs is not None
    assert "nothing runs" in nothing_runs[0]
    assert removed == [5, 6]
    monkeypatch.setattr(libvirt, "virEventAddTimeout", refuse)
    refuses_threads = await why_unserved(10.0)
    assert refuses_threads is not None
    assert "in threads" in refuses_threads[0]
    assert removed == [5, 6], "there is none to take back"
