"""How a running daemon is asked what it knows: a Unix socket that only its own user can open.

One line of JSON is a question, one line the answer. May live here: sockets and where they are.
Must not: what is asked and what is answered.

A daemon's socket has a name of its own in a folder that all of them share, so that several can
run on one machine and whoever asks finds them all. Nothing of it is needed for the work: where
no socket can be made, the daemon says so and goes on.
"""

import asyncio
import json
import os
import secrets
import socket
import stat
import struct
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog

FOLDER_VARIABLE: Final = "RUNTIME_DIRECTORY"
"""What systemd sets for a unit with ``RuntimeDirectory=asynchost``."""
_SHARED_FOLDER: Final = Path("/run/asynchost")
_SUFFIX: Final = ".sock"
_QUESTION_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 45.0
"""More than a listing may take."""
_LONGEST_LINE: Final = 2**26
"""Bytes; some tens of thousands of domains."""
_LISTEN_TRIES: Final = 5
"""The folder may be removed, empty, by a daemon that ends just then."""

Answering = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_made: dict[Path, bool] = {}
"""The sockets of this process, and whether their folder goes with the last one in it."""

_log = structlog.get_logger("asynchost.control")


def own_folder(environment: Mapping[str, str]) -> Path:
    """Where a daemon of this user puts its socket."""
    if given := environment.get(FOLDER_VARIABLE):
        return Path(given.partition(":")[0])
    if os.geteuid() == 0:
        return _SHARED_FOLDER
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        return Path(runtime) / "asynchost"
    return Path(tempfile.gettempdir()) / f"asynchost-{os.geteuid()}"


def searched_folders(environment: Mapping[str, str]) -> list[Path]:
    """Where this user may find daemons: its own and, unless told otherwise, the system's."""
    own = own_folder(environment)
    return [own] if environment.get(FOLDER_VARIABLE) else list(dict.fromkeys([_SHARED_FOLDER, own]))


def remove_sockets() -> None:
    """What an end at once must not leave."""
    for path in list(_made):
        _remove(path)


def _remove(path: Path) -> None:
    """The socket, and the folder where it was the last one in it."""
    path.unlink(missing_ok=True)
    if _made.pop(path, False):
        with suppress(OSError):  # another daemon's socket is in it
            path.parent.rmdir()


class ControlSocket:
    """Answers questions for as long as it is entered."""

    def __init__(self, answer: Answering, environment: Mapping[str, str]) -> None:
        self._answer = answer
        self._folder = own_folder(environment)
        # A folder that was given is the service manager's.
        self._removes_folder = not environment.get(FOLDER_VARIABLE)
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._asking: set[asyncio.Task[Any] | None] = set()

    async def __aenter__(self) -> Self:
        try:
            listening, self._path = _listen(self._folder)
        except OSError as error:
            _log.warning(
                "no control socket, so explain and diff will not find this daemon",
                folder=str(self._folder),
                reason=error.strerror or str(error),
            )
            return self
        _made[self._path] = self._removes_folder
        self._server = await asyncio.start_unix_server(
            self._serve, sock=listening, limit=_LONGEST_LINE
        )
        return self

    async def __aexit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._server is None or self._path is None:
            return
        _remove(self._path)
        self._server.close()
        asking = [task for task in self._asking if task is not None]
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self._asking.add(task)
        answered = False
        try:
            async with asyncio.timeout(_QUESTION_SECONDS):
                question = json.loads(await reader.readline())
            try:
                answer = await self._answer(question)
            except Exception as error:  # noqa: BLE001 - whoever asks is told, and the daemon goes on
                answer = {"error": f"{type(error).__name__}: {error}"}
            # In a thread: of a hundred thousand domains it takes a second.
            writer.write(await asyncio.to_thread(_line, answer))
            async with asyncio.timeout(_QUESTION_SECONDS):
                await writer.drain()
            answered = True
        except (OSError, ValueError, TimeoutError, RecursionError):
            pass  # no question, or nobody there any more to hear the answer
        finally:
            self._asking.discard(task)
            if not answered:
                # What is still to be sent would keep the connection, and that the server's end.
                writer.transport.abort()
            writer.close()


def _listen(folder: Path) -> tuple[socket.socket, Path]:
    for _ in range(_LISTEN_TRIES - 1):
        with suppress(FileNotFoundError):
            return _listen_in(folder)
    return _listen_in(folder)


def _listen_in(folder: Path) -> tuple[socket.socket, Path]:
    private = folder.parent == Path(tempfile.gettempdir())
    folder.mkdir(mode=0o700 if private else 0o755, parents=True, exist_ok=True)
    if private and not _is_ours(folder):
        raise OSError(0, "the folder is somebody else's")
    for path in folder.glob(f"*{_SUFFIX}"):
        if not _is_alive(path):
            path.unlink(missing_ok=True)
    path = folder / f"{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"
    unready = path.with_suffix("")
    listening = socket.socket(socket.AF_UNIX)
    try:
        # What the socket has, its name is made with. By the name, in a folder of another user's,
        # it would be whatever that one put there meanwhile.
        os.fchmod(listening.fileno(), 0o600)
        listening.bind(str(unready))
        listening.setblocking(False)
        listening.listen()
        # Named so only now: whoever finds a socket that does not listen takes it for a dead one.
        unready.rename(path)
    except BaseException:
        listening.close()
        unready.unlink(missing_ok=True)
        raise
    return listening, path


def _is_ours(folder: Path) -> bool:
    status = folder.lstat()
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    )


def _is_alive(path: Path) -> bool:
    """Whether somebody listens there. Whatever cannot be told is left alone."""
    with socket.socket(socket.AF_UNIX) as probe:
        # One that was stopped, and that too many have asked since, would be waited for.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


class Answer(NamedTuple):
    """What one daemon said."""

    said: dict[str, Any]
    user: int
    """Whose process it is, as the kernel tells."""


class Answers(NamedTuple):
    """What the daemons said."""

    given: list[Answer]
    problems: list[str]
    """Of those that may not be asked by this user, or did not answer."""


async def ask_all(question: Mapping[str, Any], environment: Mapping[str, str]) -> Answers:
    """Ask every daemon on this machine; none runs where there is neither answer nor problem."""
    paths = [
        path
        for folder in searched_folders(environment)
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
    ]
    answers = Answers([], [])
    for answer in await asyncio.gather(*(_ask(path, question) for path in paths)):
        if isinstance(answer, str):
            answers.problems.append(answer)
        elif answer is not None:
            answers.given.append(answer)
    return answers


async def _ask(path: Path, question: Mapping[str, Any]) -> Answer | str | None:
    """The answer, or what is wrong, or None where nobody is there any more."""
    try:
        answer = await _exchange(path, question)
    except (ConnectionError, FileNotFoundError):
        return None  # it ended
    except PermissionError:
        return f"the daemon at {path} is another user's: ask as that user, or as root"
    except TimeoutError:
        return f"the daemon at {path} did not answer within {_ANSWER_SECONDS:g} s"
    except (OSError, ValueError) as error:
        return f"the daemon at {path} could not be understood: {error}"
    if "error" in answer.said:
        return f"the daemon at {path} could not answer: {answer.said['error']}"
    return answer


async def _exchange(path: Path, question: Mapping[str, Any]) -> Answer:
    """Raises ConnectionError where the daemon ended, PermissionError where it is not to be asked,
    ValueError for what is no answer."""
    async with asyncio.timeout(_ANSWER_SECONDS):
        reader, writer = await asyncio.open_unix_connection(str(path), limit=_LONGEST_LINE)
        try:
            user = _user_behind(writer.get_extra_info("socket"))
            if not _is_believed(user):
                raise PermissionError
            writer.write(_line(question))
            line = await reader.readline()
        finally:
            writer.close()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    said = json.loads(line)
    if not isinstance(said, dict):
        raise ValueError("no object")  # noqa: TRY004 - it is a word from outside
    return Answer(said, user)


def _line(value: Mapping[str, Any]) -> bytes:
    """As JSON, host by host: until ``json.dumps`` is done no other thread gets a turn."""
    members = []
    for name, member in value.items():
        text = (
            f"[{', '.join([json.dumps(one) for one in member])}]"
            if isinstance(member, list)
            else json.dumps(member)
        )
        members.append(f"{json.dumps(name)}: {text}")
    return f"{{{', '.join(members)}}}\n".encode()


def _user_behind(connected: socket.socket) -> int:
    """Whose process listens there."""
    credentials = struct.Struct("3i")  # process, user, group
    got = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, credentials.size)
    user: int = credentials.unpack(got)[1]
    return user


def _is_believed(user: int) -> bool:
    """Whether to take a daemon's word: in a folder that all may write to, anybody may pose as one.

    Root asks all: what stands in its folder was put there by a service of this machine.
    """
    return os.geteuid() in (0, user) or user == 0
