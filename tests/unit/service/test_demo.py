"""What the demonstration says about a change."""

import pytest

from asynchost.model import Cause, Change, ChangeKind, Usage
from asynchost.service.demo import describe
from tests.support.strategies import AT

GIB = 1024 * 1024


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            Change(
                host="h",
                generation=1,
                before=Usage(2, GIB, 1, 0),
                after=Usage(6, 3 * GIB, 2, 0),
                cause=Cause.EVENT,
                detail="lifecycle started",
                domain_name="web-1",
                kind=ChangeKind.STARTED,
                number=1,
                at=AT,
            ),
            "web-1 (lifecycle started): vCPUs 2 -> 6, memory 1024 -> 3072 MiB, domains 1 -> 2",
        ),
        (
            Change(
                host="h",
                generation=1,
                before=Usage(),
                after=Usage(2, 0, 0, 1),
                cause=Cause.RESYNC,
                kind=ChangeKind.RESYNC,
                number=2,
                at=AT,
            ),
            "the host (resync): vCPUs 0 -> 2, workload 0 -> 1",
        ),
    ],
)
def test_a_change_is_one_sentence(change: Change, text: str) -> None:
    """Who, why, and only what moved."""
    assert describe(change) == text
