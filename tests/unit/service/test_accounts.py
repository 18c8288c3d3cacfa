"""What a daemon tells, as plain values and back; real monitors, of a libvirt without a daemon."""

import json
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from asynchost import DiskSource, HostMonitor, MonitorSettings, Policy
from asynchost.service import accounts
from asynchost.service.accounts import Account, Told, Watched, answer, nobody, one_line, plain
from asynchost.service.config import HostConfig
from asynchost.service.control import Answer
from tests.unit.service.known import account, domain

POLICY = Policy(reserved_memory_mb=512, include=("a*", "b*"))


def test_an_account_survives_the_way_through_json() -> None:
    """Policy and settings, too: a recount must count alike."""
    before = account(domain("w\udc80eb"), settings=MonitorSettings(policy=POLICY), service_id=7)
    after = Account.from_plain(json.loads(json.dumps(plain(before))))
    assert after == before
    assert after.settings.policy.include == ("a*", "b*")


def test_where_the_disk_comes_from_survives_as_well() -> None:
    """A recount must look at the same disk, too."""
    settings = MonitorSettings(disk=DiskSource.NONE, instances_path="/srv")
    after = Account.from_plain(json.loads(json.dumps(plain(account(settings=settings)))))
    assert after.settings == settings
    assert isinstance(after.settings.disk, DiskSource)


def test_an_account_tells_how_to_look_at_its_host_again() -> None:
    """A host without a name of its own has none the next time, either."""
    settings = MonitorSettings(policy=POLICY)
    named = account(host="node1", settings=settings, service_id=3)
    assert named.config == HostConfig("qemu:///system", "node1", 3, POLICY)
    assert account(settings=settings).config == HostConfig("qemu:///system", None, None, POLICY)


@pytest.mark.parametrize("called", ["node7", "test:///default"])
async def test_a_host_is_known_by_each_of_its_names(called: str) -> None:
    """By the name it was given, what the row calls it, and its URI; by no other."""
    watched = Watched(
        HostConfig("test:///default", name="node7"),
        MonitorSettings(),
        HostMonitor("test:///default", name="node7"),
    )
    assert watched.is_called(called)
    assert not watched.is_called("node")


async def test_a_host_that_was_never_reached_is_told_without_numbers() -> None:
    """Neither totals nor a row: unknown is never zero."""
    host = HostConfig("test:///default", name="node7", service_id=5)
    watched = Watched(host, MonitorSettings(), HostMonitor(host.uri, name=host.name))
    told = await answer([watched], {"host": None})
    (one,) = [Account.from_plain(each) for each in told["accounts"]]
    assert (one.explanation, one.row, one.service_id) == (None, None, 5)
    assert (await answer([watched], {"host": "other"}))["accounts"] == []
    assert told["hosts"] == ["node7"]


async def test_the_loop_goes_on_while_an_account_is_drawn_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Going over each domain takes seconds on large hosts, and events come meanwhile."""
    threads: dict[str, set[int]] = {}

    def record(value: Any) -> Any:
        threads.setdefault(type(value).__name__, set()).add(threading.get_ident())
        return plain(value)

    monkeypatch.setattr(accounts, "plain", record)
    host = HostConfig("test:///default")
    async with HostMonitor(host.uri) as monitor:
        watched = Watched(host, MonitorSettings(), monitor)
        told = await answer([watched], {})
    assert threading.get_ident() not in threads["Explanation"]
    (one,) = [Account.from_plain(each) for each in json.loads(json.dumps(told))["accounts"]]
    assert one.explanation is not None
    assert [domain["name"] for domain in one.explanation["domains"]] == ["test"]


async def test_what_all_daemons_say_is_put_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of their hosts' names, whoever answered first."""

    async def ask(question: Mapping[str, Any], _: Mapping[str, str]) -> tuple[Any, list[str]]:
        answers = [
            Answer({"accounts": [plain(account(host=host))], "hosts": [host]}, 7)
            for host in ("b", "a")
        ]
        return answers, ["one is mute"]

    monkeypatch.setattr(accounts, "ask_all", ask)
    told = await accounts.from_daemons(None, {})
    assert [one.host for one in told.accounts] == told.hosts == ["a", "b"]
    assert {one.user for one in told.accounts} == {7}
    assert told.problems == ["one is mute"]


@pytest.mark.parametrize(
    "changed",
    [
        {"settings": None},
        {"settings": {"policy": {"include": [], "exclude": [], "tomorrow": 1}}},
        {"settings": {"policy": {"include": [], "exclude": [], "count": "half"}}},
        {"tomorrow": 1},
    ],
)
async def test_a_daemon_of_another_version_is_told_of(
    monkeypatch: pytest.MonkeyPatch, changed: Mapping[str, Any]
) -> None:
    """One that goes on while its package is replaced, say: no fault, and the others are heard."""

    async def ask(question: Mapping[str, Any], _: Mapping[str, str]) -> tuple[Any, list[str]]:
        mine = {"accounts": [plain(account())], "hosts": ["a"]}
        others = [{"accounts": [{**plain(account()), **changed}], "hosts": ["b"]}, {}]
        return [Answer(said, 7) for said in (mine, *others)], []

    monkeypatch.setattr(accounts, "ask_all", ask)
    told = await accounts.from_daemons(None, {})
    assert len(told.accounts) == 1
    assert ["another version" in problem for problem in told.problems] == [True, True]


def test_another_users_daemon_names_no_host_to_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its URI could run a command as this user, and its session is another one."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    command = "qemu+ext:///system?command=/tmp/x"
    assert account(uri=command, user=0).may_be_looked_at
    assert not account(uri=command, user=1001).may_be_looked_at
    assert not account(uri="qemu:///session", user=1001).may_be_looked_at
    assert account(uri="qemu:///system", user=1001).may_be_looked_at
    assert account(user=0).as_its_user == "sudo -u root"
    assert account(user=2**31 - 2).as_its_user == "sudo -u '#2147483646'"


def test_why_there_is_no_account() -> None:
    """A name that nobody has, a daemon that does not answer, or no daemon at all."""
    assert nobody("x", Told([], ["a", "b"], [])).message == "no host is called 'x'; there are a, b"
    assert nobody(None, Told([], [], ["it is mute"])).message == "it is mute"
    assert "asynchost run" in nobody(None, Told([], [], [])).message


def test_a_policy_in_one_line() -> None:
    """Only what was chosen."""
    assert one_line(Policy()) == "default policy"
    assert one_line(POLICY) == "reserved_memory_mb=512, include=('a*', 'b*')"
