"""Observers: one rule for adding, removing and for observers that raise."""

import asyncio

import pytest

from asynchost.observers import Observers


def refuse(error: BaseException, _observer: object) -> None:
    """No observer is expected to raise."""
    raise error


def test_observers_are_called_in_the_order_of_adding() -> None:
    """With the arguments of the call; the same function may be added twice."""
    called: list[tuple[str, int]] = []
    observers: Observers[[int]] = Observers(refuse)
    assert not observers
    for name in ("a", "b", "a"):
        observers.add(lambda number, name=name: called.append((name, number)))  # type: ignore[misc]
    observers(7)
    assert observers
    assert called == [("a", 7), ("b", 7), ("a", 7)]


def test_removing_is_idempotent_and_removes_one_addition() -> None:
    """A second removal takes nobody else's observer out, also of the same function."""
    called: list[int] = []
    observers: Observers[[int]] = Observers(refuse)
    first = observers.add(called.append)
    second = observers.add(called.append)
    first()
    first()
    observers(1)
    assert called == [1]
    second()
    observers(2)
    assert called == [1]


def test_an_observer_may_remove_and_add_observers() -> None:
    """A removed observer is not called any more; an added observer is called from then on."""
    called: list[str] = []
    observers: Observers[[]] = Observers(refuse)

    def first() -> None:
        called.append("first")
        remove_second()
        remove_first()
        observers.add(lambda: called.append("third"))

    remove_first = observers.add(first)
    remove_second = observers.add(lambda: called.append("second"))
    observers()
    observers()
    assert called == ["first", "third"]


@pytest.mark.parametrize("error", [ValueError("own"), asyncio.CancelledError()])
def test_an_observer_that_raises_is_reported_and_the_next_is_called(error: BaseException) -> None:
    """Whatever it raises, but for the two that end a program."""
    called: list[str] = []
    reported: list[tuple[BaseException, object]] = []
    observers: Observers[[]] = Observers(lambda *one: reported.append(one))

    def broken() -> None:
        raise error

    observers.add(broken)
    observers.add(lambda: called.append("next"))
    observers()
    assert (called, reported) == (["next"], [(error, broken)])


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_what_ends_a_program_is_raised(error: type[BaseException]) -> None:
    """As asyncio does it with a callback."""
    observers: Observers[[]] = Observers(refuse)

    def ends() -> None:
        raise error

    observers.add(ends)
    with pytest.raises(error):
        observers()
