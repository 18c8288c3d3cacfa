"""Configuration files: what is read, and that every mistake is told with its place."""

import os
import tomllib
from pathlib import Path

import pytest

from asynchost.errors import ConfigurationError
from asynchost.service import config_files
from asynchost.service.config import Loaded, load
from asynchost.service.config_files import read_files
from asynchost.service.credentials import database_credentials
from asynchost.service.mistakes import all_of

GOOD = """
database = "mysql://nova@db/nova"
debounce = 1
max-delay = 2.5
dry-run = true
only = "web-*"

[[host]]
name = "a"
connect = "qemu:///system"
service-id = 7
only = ["x-*", "y-*"]

[[host]]
name = "b"
connect = "qemu+tls://b/system"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A configuration's folder, with an empty conf.d."""
    (tmp_path / "conf.d").mkdir()
    return tmp_path


def write(folder: Path, text: str, name: str = "asynchost.toml") -> Path:
    """One file in the folder."""
    path = folder / name
    path.write_text(text)
    return path


def mistakes(place: Path, environment: dict[str, str] | None = None) -> list[str]:
    """Every mistake's text."""
    with pytest.raises(ConfigurationError) as caught:
        load({}, environment, read_files(str(place)))
    return [mistake.message for mistake in all_of(caught.value)]


def read(place: Path, **environment: str) -> Loaded:
    """What the files and the environment say."""
    return load({}, environment, read_files(str(place)))


def test_a_file_says_what_options_say(folder: Path) -> None:
    """Numbers, flags, patterns, hosts with values of their own."""
    found = read(write(folder, GOOD)).run
    assert (found.quiet_seconds, found.maximum_delay_seconds, found.dry_run) == (1, 2.5, True)
    assert [(host.name, host.uri, host.service_id) for host in found.hosts] == [
        ("a", "qemu:///system", 7),
        ("b", "qemu+tls://b/system", None),
    ]
    assert [host.policy.include for host in found.hosts] == [("x-*", "y-*"), ("web-*",)]


def test_files_are_outranked_by_the_environment_and_both_by_options(folder: Path) -> None:
    """Also where the later source speaks of all hosts and the earlier one of a single host."""
    files = read_files(str(write(folder, GOOD)))
    environment = {"ASYNCHOST_DEBOUNCE": "0.5", "ASYNCHOST_MAX_DELAY": "9", "ASYNCHOST_ONLY": "c d"}
    found = load({"debounce": ["0"], "only": ["b=z"]}, environment, files)
    assert (found.run.quiet_seconds, found.run.maximum_delay_seconds) == (0, 9)
    assert [host.policy.include for host in found.run.hosts] == [("c", "d"), ("z",)]
    origins = found.origins.of_all
    assert [origins[name][0].where for name in ("debounce", "max-delay", "dry-run")] == [
        "--debounce",
        "ASYNCHOST_MAX_DELAY",
        f"{folder}/asynchost.toml:5: dry-run",
    ]
    (only,) = found.origins.of_hosts[1]["only"]
    assert only.where == "--only"


def test_hosts_of_a_later_source_take_the_place_of_all_others(folder: Path) -> None:
    """One cannot mean to watch a host twice."""
    files = read_files(str(write(folder, GOOD)))
    assert [
        host.name for host in load({}, {"ASYNCHOST_CONNECT": "x=lxc:/// "}, files).run.hosts
    ] == ["x"]
    assert [host.uri for host in load({"connect": ["xen:///"]}, {}, files).run.hosts] == ["xen:///"]


def test_a_folder_is_read_file_by_file_in_the_order_of_names(folder: Path) -> None:
    """Later values win, hosts add up; other names and hidden files are left alone."""
    write(folder, 'debounce = 1\nmax-delay = 5\ndatabase = "mysql://a@db/nova"')
    write(folder, 'debounce = 3\n[[host]]\nname = "b"\nconnect = "lxc:///"', "conf.d/20-b.toml")
    write(folder, 'debounce = 2\n[[host]]\nname = "a"\nconnect = "xen:///"', "conf.d/10-a.toml")
    for name in (".hidden.toml", "old.toml~", "README"):
        write(folder, "nonsense = [", f"conf.d/{name}")
    found = read(folder)
    assert found.run.quiet_seconds == 3
    assert [host.name for host in found.run.hosts] == ["a", "b"]
    assert found.origins.of_all["debounce"][0].where == f"{folder}/conf.d/20-b.toml:1: debounce"


def test_the_usual_folder_need_not_be_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But what was asked for must be, and /dev/null is nothing at all."""
    monkeypatch.setattr(config_files, "USUAL_FOLDER", str(folder / "none"))
    assert read_files(None).mistakes == []
    assert read_files(os.devnull).mistakes == []
    (mistake,) = read_files(str(folder / "none")).mistakes
    assert "No such file or directory" in mistake.message
    (mistake,) = read_files(str(folder)).mistakes
    assert "holds neither asynchost.toml nor conf.d/*.toml" in mistake.message


def test_all_mistakes_are_told_at_once_with_file_line_key_value_and_what_is_allowed(
    folder: Path,
) -> None:
    """Of all files, also of those behind one that is no TOML."""
    main = write(
        folder,
        """audit-intervall = 5
debounce = "fast"
count = "alll"
only = ["web-*", 5]
beside-nova = "yes"
max-delay = nan
name = "x"
[[host]]
connect = "qemo:///system"
debounce = 1
service-id = -1
[[host]]
name = "a b"
connect = "qemu:///system"
hots = 1
""",
    )
    broken = write(folder, "a = 1\nb = \n", "conf.d/1.toml")
    last = write(folder, "[host]\nname = 'x'\n", "conf.d/2.toml")
    number = "give a whole number from 0 to 2147483647"
    delay = "give seconds from 0 to 3600"
    drivers = "use one of qemu, lxc, xen, bhyve, vz, test, as in qemu:///system"
    name = "give 1 to 255 printable characters without spaces and without = : / ?"
    assert mistakes(folder) == [
        f"{main}:1: audit-intervall: unknown key, with the value 5; did you mean 'audit-interval'?",
        (
            f"{main}:2: debounce: 'fast' is not usable: it is a string, and must be a whole number"
            f" or a number: {delay}"
        ),
        f"{main}:3: count: 'alll' is not usable: give active or defined",
        (
            f"{main}:4: only[2]: 5 is not usable: it is a whole number, and must be a string:"
            " give a shell pattern of names, such as 'build-*'"
        ),
        (
            f"{main}:5: beside-nova: 'yes' is not usable: it is a string, and must be true or"
            " false: give true or false"
        ),
        f"{main}:6: max-delay: nan is not usable: {delay}",
        f"{main}:7: name: 'x' is not usable: it belongs to one host: write it into a [[host]]",
        (
            f"{main}:9: host[1].connect: 'qemo:///system' is not usable: unknown driver 'qemo';"
            f" {drivers}"
        ),
        (
            f"{main}:10: host[1].debounce: 1 is not usable: it holds for all hosts: write it above"
            " the first [[host]]"
        ),
        f"{main}:11: host[1].service-id: -1 is not usable: {number}",
        f'{main}:8: host[1]: name is missing: {name}, as in name = "rack1-7"',
        f"{main}:13: host[2].name: 'a b' is not usable: {name}",
        (
            f"{main}:15: host[2].hots: unknown key, with the value 1; known are name, connect,"
            " service-id, count, memory, reserved-vcpus, reserved-memory, domain-0, only, except,"
            " instances-path, disk"
        ),
        f"{broken}:2: it is no TOML: invalid value",
        f"{last}:1: host: {{'name': '…'}} is not usable: begin each host with a line [[host]]",
    ]


def test_hosts_that_share_a_name_or_a_uri_are_told_with_both_places(folder: Path) -> None:
    """Also across files."""
    host = '[[host]]\nname = "{}"\nconnect = "{}"\n'
    main = write(folder, host.format("a", "qemu+ssh://root:hush@h/system"))
    other = write(folder, host.format("a", "lxc:///"), "conf.d/1.toml")
    third = write(folder, host.format("c", "qemu+ssh://root:hush@h/system"), "conf.d/2.toml")
    one, two = mistakes(folder)
    assert one.startswith(f"{other}:2: host[1].name: 'a' is not usable: {main}:2: host[1].name has")
    assert two.startswith(f"{third}:3: host[1].connect: 'qemu+ssh://root:***@h/system' is not")
    assert "hush" not in one + two


@pytest.mark.parametrize(
    "text",
    [
        'password = "hush"',
        'databse = "mysql://u:hush@h/d"',
        'database = ["mysql://u:hush@h/d"]',
        'connect = "qemu+ssh://u:hush@h/system"',
        'x = {y = "hush"}',
        '[[host]]\nname = "a"\nconnect = "qemu://u:hush@h/ system"',
        '[[host]]\nname = "a"\nconnect = "qemo+tcp://h/system?password=hush"',
        '[[host]]\nname = "a"\nconnect = "lxc:///"\napi-token = "hush"',
    ],
)
def test_no_mistake_shows_a_secret(folder: Path, text: str) -> None:
    """Whoever is told of the mistake may be a log that others read."""
    told = "".join(mistakes(write(folder, text)))
    assert told
    assert "hush" not in told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a = '\xff'", "line 1 holds bytes that are no UTF-8"),
        (b"\n" * 5 + b"\xfe\xff", "line 6 holds bytes that are no UTF-8"),
        (b"# " * 2**20, "it is larger than 1048576 bytes; split it into conf.d/"),
        (b"a = " + b"[" * 100_000, "nested too deeply"),
        (b"a = " + b"1" * 5000, "it is no TOML"),
        (b"a = 1\na = 2", ": it is no TOML"),
        (b"\0", "it is no TOML"),
    ],
    ids=["latin", "utf-16", "huge", "deep", "long number", "twice", "zero"],
)
def test_what_is_no_configuration_is_named(folder: Path, content: bytes, words: str) -> None:
    """One mistake, and no traceback."""
    path = folder / "asynchost.toml"
    path.write_bytes(content)
    first = mistakes(folder)[0]
    assert str(path) in first
    assert words in first


def test_files_that_cannot_be_read_are_named_and_keep_nobody_from_the_others(folder: Path) -> None:
    """A folder, a named pipe, broken and circular links; a link to a file is followed."""
    write(folder, '[[host]]\nname = "a"\nconnect = "lxc:///"', "elsewhere")
    extra = folder / "conf.d"
    (extra / "0.toml").symlink_to(folder / "elsewhere")
    (extra / "1.toml").mkdir()
    os.mkfifo(extra / "2.toml")
    (extra / "3.toml").symlink_to("nowhere")
    (extra / "4.toml").symlink_to("4.toml")
    files = read_files(str(folder))
    assert [host.name for host in files.hosts] == ["a"]
    for name, words, mistake in zip(
        ("1", "2", "3", "4"),
        ("Is a directory", "it is no file", "No such file", "Too many levels of symbolic links"),
        files.mistakes,
        strict=True,
    ):
        assert f"{extra}/{name}.toml" in mistake.message
        assert words in mistake.message


def test_a_conf_d_that_is_a_file_is_named(folder: Path) -> None:
    """It was not meant."""
    (folder / "conf.d").rmdir()
    write(folder, "", "conf.d")
    write(folder, GOOD)
    (mistake,) = mistakes(folder)
    assert f"{folder}/conf.d" in mistake
    assert "Not a directory" in mistake


def test_a_byte_order_mark_is_no_part_of_the_first_key(folder: Path) -> None:
    """Some editors write one."""
    (folder / "asynchost.toml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert len(read(folder).run.hosts) == 2


def test_a_password_in_the_url_is_taken_from_a_private_file_only(folder: Path) -> None:
    """Every user of the machine could read it otherwise; the password file is named by its key."""
    path = write(folder, 'database = "mysql://u:hush@db/nova"\n')
    path.chmod(0o640)
    files = read_files(str(folder))
    assert database_credentials(None, None, {}, files.of_all).url == "mysql://u:hush@db/nova"
    path.chmod(0o644)
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(None, None, {}, files.of_all)
    assert str(caught.value).startswith(
        f"{path}:1: database: 'mysql://u:***@db/nova' is not usable"
    )
    path.write_text('database = "mysql://u@db/nova"\ndatabase-password-file = "/nowhere"\n')
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(None, None, {}, read_files(str(folder)).of_all)
    assert str(caught.value).startswith(f"{path}:2: database-password-file: '/nowhere' is not")
    environment = {"ASYNCHOST_DATABASE_PASSWORD": "other"}
    found = database_credentials(None, None, environment, read_files(str(folder)).of_all)
    assert found.password == "other"


def test_a_wrong_url_of_a_file_is_told_with_its_place(folder: Path) -> None:
    """As every other value."""
    path = write(folder, '\ndatabase = "oracle://u@db/nova"\n')
    with pytest.raises(ConfigurationError) as caught:
        database_credentials(None, None, {}, read_files(str(folder)).of_all)
    assert str(caught.value).startswith(f"{path}:2: database: 'oracle://u@db/nova' is not usable")


def test_the_example_is_a_configuration_with_everything(folder: Path) -> None:
    """As printed it sets nothing; without its comment marks everything."""
    from asynchost.service.configuring import example_text
    from asynchost.service.declared import SETTINGS, Scope

    text = example_text()
    assert tomllib.loads(text) == {}
    lines = [line[1:] if line[:2].strip("# ") else "" for line in text.splitlines()]
    document = tomllib.loads("\n".join(lines))
    (host,) = document.pop("host")
    all_of_them = {one.name for one in SETTINGS.values()}
    for_one = {one.name for one in SETTINGS.values() if one.scope is Scope.ONE}
    assert set(document) == all_of_them - for_one
    assert set(host) == for_one
    write(folder, "\n".join(lines))
    assert [one.name for one in read(folder).run.hosts] == ["rack1-7"]
