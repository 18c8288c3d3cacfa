"""What the command line's options mean, and the text of every refusal."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.accounting import Policy
from asynchost.errors import ConfigurationError, InvalidSettingError
from asynchost.service.config import HostConfig, RunConfig, load, parse_connect
from asynchost.settings import DiskSource, MonitorSettings

ONE_HOST = {"connect": ["test:///default"]}


def hosts_of(connects: list[str], **options: list[str]) -> tuple[HostConfig, ...]:
    """The hosts of a command line with these options."""
    texts = {name.replace("_", "-"): values for name, values in options.items()}
    return load({"connect": connects, **texts}).run.hosts


def options_of(**options: str | None) -> RunConfig:
    """What a command line with one host and these options asks for."""
    texts = {name.replace("_", "-"): [text] for name, text in options.items() if text is not None}
    return load({**ONE_HOST, **texts}).run


@pytest.mark.parametrize(
    ("text", "name", "uri"),
    [
        ("qemu:///system", None, "qemu:///system"),
        ("node1=qemu:///system", "node1", "qemu:///system"),
        ("qemu:///system?socket=/x", None, "qemu:///system?socket=/x"),
        ("node1=qemu:///system?socket=/x=y", "node1", "qemu:///system?socket=/x=y"),
        ("test:///a=b.xml", None, "test:///a=b.xml"),
        ("qemu+ssh://user@host/system", None, "qemu+ssh://user@host/system"),
        ("a.b-c_9=lxc:///", "a.b-c_9", "lxc:///"),
        ("größe=test:///default", "größe", "test:///default"),
        ("x=test:default", "x", "test:default"),
    ],
)
def test_connect_splits_a_name_from_its_uri(text: str, name: str | None, uri: str) -> None:
    """A ``=`` of the URI's query is never taken for the one after a name."""
    assert parse_connect(text) == (name, uri)


@given(
    name=st.text(st.characters(categories=["L", "N"], include_characters=".-_"), min_size=1),
    query=st.text(st.characters(categories=["L", "N"], include_characters="=&/")),
)
def test_connect_gives_back_any_name_and_query(name: str, query: str) -> None:
    """Whatever stands in name and query, both come back as they were."""
    uri = f"qemu:///system?{query}"
    assert parse_connect(uri) == (None, uri)
    if len(name) <= 255:
        assert parse_connect(f"{name}={uri}") == (name, uri)


NAME_RULE = "NAME must have 1 to 255 printable characters without spaces"
URI_RULE = "give [NAME=]URI with a libvirt URI, such as qemu:///system"


@pytest.mark.parametrize(
    ("connects", "text"),
    [
        (
            [],
            "--connect is missing: give at least one libvirt URI, such as qemu:///system",
        ),
        ([""], f"--connect: '' is not usable: {URI_RULE}"),
        (["system"], f"--connect: 'system' is not usable: {URI_RULE}"),
        (["node1="], f"--connect: 'node1=' is not usable: {URI_RULE}"),
        (["node1=node2"], f"--connect: 'node1=node2' is not usable: {URI_RULE}"),
        (["qemu:"], f"--connect: 'qemu:' is not usable: {URI_RULE}"),
        (["qemu:///a b"], f"--connect: 'qemu:///a b' is not usable: {URI_RULE}"),
        (["qemu:///\x1b[2J"], f"--connect: 'qemu:///\\x1b[2J' is not usable: {URI_RULE}"),
        (["=qemu:///system"], f"--connect: '=qemu:///system' is not usable: {NAME_RULE}"),
        (["a b=qemu:///system"], f"--connect: 'a b=qemu:///system' is not usable: {NAME_RULE}"),
        (["a\x00b=test:///x"], f"--connect: 'a\\x00b=test:///x' is not usable: {NAME_RULE}"),
        (
            ["test:///default", "a=test:///default"],
            "--connect: 'test:///default' is not usable: it is given 2 times; name each host once",
        ),
        (
            ["a=test:///1.xml", "b=test:///2.xml", "a=test:///3.xml"],
            (
                "--connect: 'a' is not usable: 2 hosts carry this name and would share one row; "
                "give each its own"
            ),
        ),
    ],
)
def test_connect_refusals_name_value_and_way_out(connects: list[str], text: str) -> None:
    """A host list that cannot work is refused before anything is opened."""
    with pytest.raises(ConfigurationError) as caught:
        hosts_of(connects)
    assert str(caught.value) == text


def test_connect_refuses_a_name_longer_than_its_column() -> None:
    """A name that the column would cut could meet another host's row."""
    longest = "n" * 255
    assert parse_connect(f"{longest}=test:///default") == (longest, "test:///default")
    with pytest.raises(InvalidSettingError, match="1 to 255"):
        parse_connect(f"{longest}n=test:///default")


def test_hosts_keep_their_order_and_their_service_ids() -> None:
    """A service id with a name goes to the host of that name; the others have none."""
    assert hosts_of(
        ["a=test:///1.xml", "test:///2.xml", "c=test:///3.xml"], service_id=["c=7"]
    ) == (
        HostConfig("test:///1.xml", "a"),
        HostConfig("test:///2.xml"),
        HostConfig("test:///3.xml", "c", 7),
    )


@pytest.mark.parametrize("connect", ["test:///default", "a=test:///default"])
def test_a_bare_service_id_belongs_to_the_only_host(connect: str) -> None:
    """With one host, its name need not be repeated."""
    (host,) = hosts_of([connect], service_id=["2147483647"])
    assert host.service_id == 2147483647


@pytest.mark.parametrize(
    ("service_ids", "text"),
    [
        (
            ["3"],
            (
                "'3' is not usable: there are several hosts; say whose it is with NAME=N, "
                "after --connect NAME=URI"
            ),
        ),
        (["c=3"], "'c=3' is not usable: no host is named 'c'; give --connect c=URI"),
        (["a=3", "a=4"], "'a=4' is not usable: that host has one already"),
        (["a="], "'a=' is not usable: give a whole number from 0 to 2147483647"),
        (["a=-1"], "'a=-1' is not usable: give a whole number from 0 to 2147483647"),
        (["a=1.5"], "'a=1.5' is not usable: give a whole number from 0 to 2147483647"),
        (["a=٣"], "'a=٣' is not usable: give a whole number from 0 to 2147483647"),
        (
            ["a=2147483648"],
            "'a=2147483648' is not usable: give a whole number from 0 to 2147483647",
        ),
    ],
)
def test_service_id_refusals_name_value_and_way_out(service_ids: list[str], text: str) -> None:
    """Every service id has one owner and fits its column."""
    with pytest.raises(InvalidSettingError) as caught:
        hosts_of(["a=test:///1.xml", "b=test:///2.xml"], service_id=service_ids)
    assert str(caught.value) == f"--service-id: {text}"


def test_a_service_id_of_thousands_of_digits_is_refused() -> None:
    """Python itself refuses to convert such a number, with an error of its own."""
    with pytest.raises(InvalidSettingError, match="whole number"):
        hosts_of(["test:///default"], service_id=["1" * 5000])


@pytest.mark.parametrize(
    ("debounce", "max_delay", "delays"),
    [
        (None, None, (0.05, 0.5)),
        ("0", None, (0, 0.5)),
        (None, "0", (0.05, 0)),
        ("0", "0", (0, 0)),
        ("2", "2", (2, 2)),
        ("1e-3", "3600", (0.001, 3600)),
    ],
)
def test_delays_are_seconds_with_defaults(
    debounce: str | None, max_delay: str | None, delays: tuple[float, float]
) -> None:
    """Zero is allowed for both, and the maximum delay may be below the default quiet time."""
    found = options_of(debounce=debounce, max_delay=max_delay)
    assert (found.quiet_seconds, found.maximum_delay_seconds) == delays


RANGE = "is not usable: give seconds from 0 to 3600"


@pytest.mark.parametrize(
    ("debounce", "max_delay", "text"),
    [
        ("-1", None, f"--debounce: '-1' {RANGE}"),
        ("soon", None, f"--debounce: 'soon' {RANGE}"),
        ("nan", None, f"--debounce: 'nan' {RANGE}"),
        ("", None, f"--debounce: '' {RANGE}"),
        (None, "inf", f"--max-delay: 'inf' {RANGE}"),
        (None, "3601", f"--max-delay: '3601' {RANGE}"),
        (
            "2",
            None,
            (
                "--debounce: '2' is not usable: it is longer than the maximum delay of 0.5 s; "
                "raise --max-delay as well"
            ),
        ),
    ],
)
def test_delay_refusals_name_value_and_way_out(
    debounce: str | None, max_delay: str | None, text: str
) -> None:
    """A delay out of range, or one that could never take effect, is refused."""
    with pytest.raises(InvalidSettingError) as caught:
        options_of(debounce=debounce, max_delay=max_delay)
    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 60), ("0", 0), ("0.0", 0), ("0.1", 0.1), ("86400", 86400)]
)
def test_audit_interval_is_seconds_or_zero(text: str | None, seconds: float) -> None:
    """Zero turns the periodic audit off."""
    found = options_of(audit_interval=text)
    assert found.monitor.audit_interval_seconds == seconds


@pytest.mark.parametrize("text", ["-5", "0.01", "86401", "inf", "nan", "hourly", ""])
def test_audit_interval_refusals_name_value_and_way_out(text: str) -> None:
    """An interval so short that it would be a storm, or longer than a day, is refused."""
    with pytest.raises(InvalidSettingError) as caught:
        options_of(audit_interval=text)
    assert str(caught.value) == (
        f"--audit-interval: {text!r} is not usable: give seconds from 0.1 to 86400, or 0 for none"
    )


def test_instances_path_is_absolute() -> None:
    """A relative path would mean another folder to each start of the daemon."""
    (host,) = hosts_of(["qemu:///system"], instances_path=["/srv/vm"])
    assert host.instances_path == "/srv/vm"
    for wrong in ("srv/vm", "", "~/vm", "/srv\0vm"):
        with pytest.raises(InvalidSettingError) as caught:
            hosts_of(["qemu:///system"], instances_path=[wrong])
        assert str(caught.value) == (
            f"--instances-path: {wrong!r} is not usable: "
            "give an absolute path, such as /var/lib/libvirt/images"
        )


def test_the_disk_is_told_for_all_hosts_or_for_one() -> None:
    """A host's own value takes the place of the one for all; a path may hold a "="."""
    hosts = hosts_of(
        ["a=qemu:///system", "b=qemu://b/system", "qemu://c/system"],
        disk=["none", "b=pool"],
        instances_path=["b=/srv/b=1", "/srv/a=1"],
    )
    assert [(host.disk, host.instances_path) for host in hosts] == [
        (DiskSource.NONE, "/srv/a=1"),
        (DiskSource.POOL, "/srv/b=1"),
        (DiskSource.NONE, "/srv/a=1"),
    ]


def test_a_host_is_watched_like_all_but_for_what_it_has_of_its_own() -> None:
    """Policy, disk and folder."""
    of_all = MonitorSettings(disk=DiskSource.PATH, instances_path="/srv", call_deadline_seconds=3)
    policy = Policy(reserved_vcpus=1)
    own = HostConfig("qemu:///system", policy=policy, disk=DiskSource.POOL, instances_path="/i")
    assert own.settings(of_all) == replace(
        of_all, policy=policy, disk=DiskSource.POOL, instances_path="/i"
    )
    assert HostConfig("qemu:///system").settings(of_all) == of_all


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"disk": ["tape"]}, "--disk: 'tape' is not usable: give pool, path or none"),
        ({"disk": ["x=pool"]}, "--disk: 'x=pool' is not usable: no host is named 'x'"),
        ({"disk": ["pool", "path"]}, "--disk: 'path' is not usable: all hosts have one already"),
        ({"instances_path": ["a=srv"]}, "--instances-path: 'a=srv' is not usable: give an abs"),
        ({"instances_path": ["x=/srv"]}, "--instances-path: 'x=/srv' is not usable: no host is"),
    ],
)
def test_disk_refusals_name_value_and_way_out(given: dict[str, list[str]], text: str) -> None:
    """Before anything is opened."""
    with pytest.raises(InvalidSettingError) as caught:
        hosts_of(["a=qemu:///system"], **given)
    assert str(caught.value).startswith(text)


def test_a_configuration_begins_with_the_librarys_defaults() -> None:
    """What is not said on the command line is what the library does by itself."""
    config = RunConfig(hosts=(HostConfig("test:///default"),))
    assert config.monitor == MonitorSettings()
    assert (config.quiet_seconds, config.maximum_delay_seconds) == (0.05, 0.5)
