"""What the package promises by name: exactly this, all of it explained."""

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from types import ModuleType

import pytest

import asynchost
from asynchost import errors

PUBLIC = [
    "AmbiguousRowError",
    "AsynchostError",
    "CallTimeoutError",
    "Cause",
    "Change",
    "ChangeKind",
    "ClosedError",
    "ComputeNodeWriter",
    "ConfigurationError",
    "Counted",
    "CountedMemory",
    "DatabaseRefusedError",
    "DatabaseUnavailableError",
    "DiskSource",
    "DiskUsage",
    "Domain",
    "DomainAccount",
    "DomainEvent",
    "DomainEvents",
    "DomainState",
    "Drift",
    "DriftSubscription",
    "EventKind",
    "EventReason",
    "Explanation",
    "FencedError",
    "HostFacts",
    "HostMonitor",
    "HostSnapshot",
    "HypervisorRefusedError",
    "HypervisorUnavailableError",
    "InvalidSettingError",
    "MonitorSettings",
    "MonitorStatus",
    "NotReadyError",
    "NovaOwnsRowError",
    "Observation",
    "OnForeignEdit",
    "Origin",
    "Policy",
    "RowConflictError",
    "ServiceMissingError",
    "ServiceTakenError",
    "SnapshotSource",
    "Snapshots",
    "Subscription",
    "UnavailableError",
    "Usage",
    "UsageDelta",
    "WhenFenced",
    "WriterSettings",
    "WriterStatus",
    "quiet_libvirt",
]

MODULES = [
    importlib.import_module(found.name)
    for found in pkgutil.walk_packages(asynchost.__path__, "asynchost.")
    if not found.name.endswith("__main__")
]


def test_the_public_names_are_exactly_these() -> None:
    """Adding one is a promise, taking one away breaks somebody's program."""
    assert sorted(asynchost.__all__) == sorted(PUBLIC)
    for name in PUBLIC:
        assert hasattr(asynchost, name)


def test_nothing_else_looks_public() -> None:
    """Whatever has no underscore in front is a submodule or promised."""
    others = {
        name
        for name, value in vars(asynchost).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert others == set(PUBLIC)


def test_every_error_can_be_caught_by_its_public_name() -> None:
    """None is raised that only a submodule knows."""
    raised = {name for name, one in vars(errors).items() if inspect.isclass(one)}
    raised -= {"ClassVar", "Sequence"}
    assert raised <= set(PUBLIC)


def test_there_is_a_version() -> None:
    """The one that the package was built with."""
    assert asynchost.__version__.split(".")[0].isdigit()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_module_says_what_it_is_for(module: ModuleType) -> None:
    """Its purpose stands at the top of it."""
    assert module.__doc__


def explained(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The module's public classes and functions, with their public methods."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, thing
        elif inspect.isclass(thing):
            yield name, thing
            for method_name, method in vars(thing).items():
                if method_name.startswith("_"):
                    continue
                if inspect.isfunction(method) or isinstance(
                    method, property | classmethod | staticmethod
                ):
                    yield f"{name}.{method_name}", method


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_each_public_class_and_function_has_a_docstring(module: ModuleType) -> None:
    """Written by somebody: those that dataclasses make up do not count."""
    missing = [name for name, thing in explained(module) if not _written(thing)]
    assert missing == []


def _written(thing: object) -> bool:
    text = getattr(thing, "__doc__", None) or ""
    if not inspect.isclass(thing):
        return bool(text)
    # What dataclasses and named tuples are given: their name and fields.
    return bool(text) and not text.startswith(f"{thing.__name__}(")
