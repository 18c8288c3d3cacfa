"""The configuration files: found, read, and every value of them checked by itself.

May live here: which files there are, and what stands in them, with every mistake. Must not: what
the environment and the command line say. Memory: the files' values; a file is one mebibyte at most.
"""

import os
import re
import stat
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from asynchost.errors import ConfigurationError, HypervisorRefusedError, InvalidSettingError
from asynchost.hypervisor.uri import check_uri
from asynchost.masking import names_secret
from asynchost.service.declared import SETTINGS, USUAL_FOLDER, Scope, Setting
from asynchost.service.mistakes import Given, Shown
from asynchost.service.toml_lines import lines_of

MAIN_FILE: Final = "asynchost.toml"
EXTRA_FOLDER: Final = "conf.d"
_SUFFIX: Final = ".toml"
_LONGEST_FILE: Final = 2**20
"""Bytes: some thousands of hosts."""
_MOST_FILES: Final = 1_000
_AT_LINE: Final = re.compile(r" \(at line (\d+), column \d+\)$")
_TYPES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "an array",
    dict: "a table",
}


@dataclass(frozen=True, slots=True)
class HostTable:
    """One ``[[host]]`` that has a name and a URI."""

    name: str
    uri: str
    given: Mapping[str, list[Given]]
    """All that it says, by the setting's name."""


@dataclass(slots=True)
class Files:
    """What stands in the configuration files."""

    paths: list[Path] = field(default_factory=list)
    """The files that were read, in their order."""
    of_all: dict[str, list[Given]] = field(default_factory=dict)
    """For all hosts, by the setting's name."""
    hosts: list[HostTable] = field(default_factory=list)
    unusable_hosts: list[str] = field(default_factory=list)
    """Where a ``[[host]]`` stands that has no usable name or URI."""
    mistakes: list[ConfigurationError] = field(default_factory=list)


def read_files(place: str | None) -> Files:
    """Read a file, or ``asynchost.toml`` and ``conf.d/*.toml`` of a folder.

    None is the folder ``/etc/asynchost``, which need not be there. The files of ``conf.d`` are read
    in the order of their names after ``asynchost.toml``; a later file's value takes the place of an
    earlier one's, hosts add up. Whatever is wrong is noted among the mistakes. Blocks while the
    file system does.
    """
    files = Files()
    for path in _find(place, files):
        _read_file(path, files)
    return files


def has_files(place: str | None) -> bool:
    """Whether there is a file to read, be it right or wrong."""
    if place is not None:
        return Path(place) != Path(os.devnull)
    return bool(_find(None, Files()))


def _find(place: str | None, files: Files) -> list[Path]:
    """The files to read, in their order."""
    path = Path(USUAL_FOLDER if place is None else place)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        if place is not None or not isinstance(error, FileNotFoundError):
            files.mistakes.append(_unreadable(path, error))
        return []
    if not stat.S_ISDIR(mode):
        return [path]
    main = path / MAIN_FILE
    found = [main] if os.path.lexists(main) else []
    try:
        names = sorted(one.name for one in (path / EXTRA_FOLDER).iterdir())
    except FileNotFoundError:
        names = []
    except OSError as error:
        files.mistakes.append(_unreadable(path / EXTRA_FOLDER, error))
        names = []
    # What begins with a dot is an editor's, or is hidden on purpose.
    extra = [name for name in names if name.endswith(_SUFFIX) and not name.startswith(".")]
    if len(extra) > _MOST_FILES:
        files.mistakes.append(
            InvalidSettingError(
                "configuration",
                str(path / EXTRA_FOLDER),
                f"it holds {len(extra)} files; {_MOST_FILES} are read at most",
            )
        )
    found += [path / EXTRA_FOLDER / name for name in extra[:_MOST_FILES]]
    if not found and place is not None and not files.mistakes:
        files.mistakes.append(
            InvalidSettingError(
                "configuration",
                str(path),
                f"the folder holds neither {MAIN_FILE} nor {EXTRA_FOLDER}/*{_SUFFIX}",
            )
        )
    return found


def _unreadable(path: Path, error: Exception) -> InvalidSettingError:
    # ValueError is what a path with a zero byte raises.
    reason = getattr(error, "strerror", None) or str(error)
    wanted = "folder" if path.name == EXTRA_FOLDER else "file"
    return InvalidSettingError(
        "configuration", str(path), f"{reason}; give a {wanted} that this user can read"
    )


def _read_file(path: Path, files: Files) -> None:
    try:
        text = _text_of(path)
    except (OSError, ValueError) as error:
        files.mistakes.append(_unreadable(path, error))
        return
    if text is None:
        return
    files.paths.append(path)
    try:
        document = tomllib.loads(text)
        lines = lines_of(text)
    except (ValueError, RecursionError) as error:
        files.mistakes.append(_malformed(path, error))
        return
    _Reader(path, lines, files).read(document)


def _text_of(path: Path) -> str | None:
    """The file's text; None for the null device.

    Raises OSError, or ValueError for what is no text of a fitting size.
    """
    # Without waiting: a named pipe in the file's place would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if os.path.samestat(status, Path(os.devnull).stat()):
            return None
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no file")
        content = file.read(_LONGEST_FILE + 1)
    if len(content) > _LONGEST_FILE:
        raise ValueError(f"it is larger than {_LONGEST_FILE} bytes; split it into {EXTRA_FOLDER}/")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} holds bytes that are no UTF-8") from None


def _malformed(path: Path, error: Exception) -> ConfigurationError:
    if isinstance(error, RecursionError):
        return ConfigurationError(f"{path}: its arrays and tables are nested too deeply")
    reason = str(error)
    line = ""
    if place := _AT_LINE.search(reason):
        line, reason = f":{place[1]}", reason[: place.start()]
    return ConfigurationError(f"{path}{line}: it is no TOML: {reason[:1].lower()}{reason[1:]}")


class _Reader:
    """Checks what one file says."""

    def __init__(
        self, path: Path, lines: Mapping[tuple[str | int, ...], int], files: Files
    ) -> None:
        self._path = path
        self._lines = lines
        self._files = files

    def read(self, document: Mapping[str, Any]) -> None:
        for key, value in document.items():
            if key == "host":
                self._hosts(value)
                continue
            setting = SETTINGS.get(key)
            if setting is None:
                self._unknown((key,), value, [*_for_all(), "host"])
            elif setting.scope is Scope.ONE:
                self._mistake((key,), value, "it belongs to one host: write it into a [[host]]")
            elif given := self._given((key,), setting, value):
                self._files.of_all[key] = given

    def _hosts(self, tables: object) -> None:
        if not isinstance(tables, list) or not all(isinstance(one, dict) for one in tables):
            self._mistake(("host",), tables, "begin each host with a line [[host]]")
            self._files.unusable_hosts.append(self._where(("host",)))
            return
        for index, table in enumerate(tables):
            self._host(("host", index), table)

    def _host(self, path: tuple[str | int, ...], table: Mapping[str, Any]) -> None:
        found: dict[str, list[Given]] = {}
        for key, value in table.items():
            setting = SETTINGS.get(key)
            if setting is None:
                self._unknown((*path, key), value, _for_one())
            elif setting.scope is Scope.PROCESS:
                self._mistake(
                    (*path, key), value, "it holds for all hosts: write it above the first [[host]]"
                )
            elif given := self._given((*path, key), setting, value):
                found[key] = given
        for key in ("name", "connect"):
            if key not in table:
                where = self._where(path)
                setting = SETTINGS[key]
                self._files.mistakes.append(
                    ConfigurationError(
                        f"{where}: {key} is missing: {setting.expected}, as in"
                        f" {key} = {setting.example}"
                    )
                )
        if "name" in found and "connect" in found:
            uri = found["connect"][0].fields["uri"]
            self._files.hosts.append(HostTable(found["name"][0].fields["name"], uri, found))
        else:
            self._files.unusable_hosts.append(self._where(path))

    def _given(self, path: tuple[str | int, ...], setting: Setting, value: Any) -> list[Given]:
        """The value, or several of a setting that can be repeated; none if one is wrong."""
        many = setting.repeatable and setting.name != "connect"
        if many and isinstance(value, list):
            ones = [self._one((*path, at), setting, one) for at, one in enumerate(value)]
        else:
            ones = [self._one(path, setting, value)]
        given = [one for one in ones if one is not None]
        return given if len(given) == len(ones) else []

    def _one(self, path: tuple[str | int, ...], setting: Setting, value: Any) -> Given | None:
        if type(value) not in setting.toml:
            kinds = " or ".join(dict.fromkeys(_TYPES[one] for one in setting.toml))
            given = _TYPES.get(type(value), "a date or time")
            expected = setting.expected
            self._mistake(path, value, f"it is {given}, and must be {kinds}: {expected}")
            return None
        text = str(value).lower() if isinstance(value, bool) else str(value)
        try:
            fields = setting.read(text)
            if setting.name == "connect":
                check_uri(text)
        except HypervisorRefusedError as error:
            self._mistake(path, value, f"{error.reason}; {error.remedy}")
            return None
        except ValueError:
            self._mistake(path, value, setting.expected)
            return None
        return Given(fields, value, self._where(path))

    def _unknown(self, path: tuple[str | int, ...], value: Any, known: Sequence[str]) -> None:
        key = str(path[-1])
        shown = "'***'" if names_secret(key) else repr(Shown(value))
        near = get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0.6)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
        self._files.mistakes.append(
            ConfigurationError(f"{self._where(path)}: unknown key, with the value {shown}; {hint}")
        )

    def _mistake(self, path: tuple[str | int, ...], value: Any, expected: str) -> None:
        self._files.mistakes.append(InvalidSettingError(self._where(path), Shown(value), expected))

    def _where(self, path: tuple[str | int, ...]) -> str:
        """``FILE:LINE: key``, with the key as a person would name it."""
        key = "".join(f"[{one + 1}]" if isinstance(one, int) else f".{one}" for one in path)
        # Without a line only if a file changes its meaning under the scan, which no test has seen.
        line = self._lines.get(path, 0)
        return f"{self._path}:{line}: {key.removeprefix('.')}"


def _for_all() -> list[str]:
    return [one.name for one in SETTINGS.values() if one.scope is not Scope.ONE]


def _for_one() -> list[str]:
    return [one.name for one in SETTINGS.values() if one.scope is not Scope.PROCESS]


def open_to_all(path: Path) -> bool:
    """Whether every user of the machine can read the file."""
    return bool(path.stat().st_mode & stat.S_IROTH)
