"""What the command line adds to an error that the library made."""

import pytest

from asynchost.errors import (
    AmbiguousRowError,
    AsynchostError,
    NovaOwnsRowError,
    RowConflictError,
    ServiceMissingError,
    ServiceTakenError,
)
from asynchost.service.exits import with_options


@pytest.mark.parametrize(
    ("error", "option"),
    [
        (AmbiguousRowError("n", [(1, 1), (2, 2)]), "--service-id"),
        (RowConflictError("n", ("a", "b")), "--connect NAME=URI"),
        (NovaOwnsRowError("n", "h", 1), "--beside-nova"),
        (ServiceMissingError("n", 0), "--service-id"),
        (ServiceTakenError("n", [(1, 1)]), "--service-id"),
    ],
)
def test_the_options_that_mend_an_error_are_named_by_the_command_line_alone(
    error: AsynchostError, option: str
) -> None:
    """A program that embeds the library has no options."""
    assert "--" not in error.message
    assert with_options(error).startswith(error.message)
    assert option in with_options(error)


def test_an_error_that_no_option_mends_is_told_as_it_is() -> None:
    """Nothing is added."""
    assert with_options(AsynchostError("gone")) == "gone"
