"""How a running daemon is asked what it knows: a Unix socket of its own user and its group.

One line of JSON is a question; the answer is one line, or lines until one side ends. May live here:
sockets and where they are. Must not: what is asked and what is answered.

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
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import structlog

from asynchost.together import first_end

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

MUTE: Final = "did not answer within"
"""What the problem of a daemon says that is there and does not answer."""

Lines = AsyncGenerator[Mapping[str, Any], None]
"""An answer that goes on until the asker leaves."""
Answering = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any] | Lines]]

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
    """Answers questions for as long as it is entered.

    ``answer`` answers the daemon's own user and root; ``answer_group``, where given, the members
    of the daemon's group. A question that is no JSON object is answered with an error.
    """

    def __init__(
        self,
        answer: Answering,
        environment: Mapping[str, str],
        *,
        answer_group: Answering | None = None,
    ) -> None:
        self._answer = answer
        self._answer_group = answer_group
        self._folder = own_folder(environment)
        # A folder that was given is the service manager's.
        self._removes_folder = not environment.get(FOLDER_VARIABLE)
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._asking: set[asyncio.Task[Any] | None] = set()

    async def __aenter__(self) -> Self:
        try:
            listening, self._path = _listen(self._folder, for_group=self._answer_group is not None)
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
                if not isinstance(question, dict):
                    raise ValueError("a question is a JSON object, such as {}")  # noqa: TRY004, TRY301
                answer = await self._answering(writer)(question)
            except Exception as error:  # noqa: BLE001 - whoever asks is told, and the daemon goes on
                answer = {"error": f"{type(error).__name__}: {error}"}
            if isinstance(answer, Mapping):
                # In a thread: of a hundred thousand domains it takes a second.
                writer.write(await asyncio.to_thread(_line, answer))
                async with asyncio.timeout(_QUESTION_SECONDS):
                    await writer.drain()
                answered = True
            else:
                await _send_on(answer, reader, writer)
        except (OSError, ValueError, TimeoutError, RecursionError):
            pass  # no question, or nobody there any more to hear the answer
        finally:
            self._asking.discard(task)
            if not answered:
                # What is still to be sent would keep the connection, and that the server's end.
                writer.transport.abort()
            writer.close()

    def _answering(self, writer: asyncio.StreamWriter) -> Answering:
        """Who answers the process at the other end."""
        if self._answer_group is None:
            return self._answer
        asker = _user_behind(writer.get_extra_info("socket"))
        return self._answer if asker in (0, os.geteuid()) else self._answer_group


async def _send_on(
    lines: Lines, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Send lines until there are no more, or the asker leaves. A slow asker delays only itself."""

    async def send() -> None:
        async with aclosing(lines):
            async for line in lines:
                writer.write(_line(line))
                await writer.drain()

    await first_end(send(), _until_it_leaves(reader))


async def _until_it_leaves(reader: asyncio.StreamReader) -> None:
    while await reader.read(2**10):
        pass


def _listen(folder: Path, *, for_group: bool) -> tuple[socket.socket, Path]:
    for _ in range(_LISTEN_TRIES - 1):
        with suppress(FileNotFoundError):
            return _listen_in(folder, for_group=for_group)
    return _listen_in(folder, for_group=for_group)


def _listen_in(folder: Path, *, for_group: bool) -> tuple[socket.socket, Path]:
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
        os.fchmod(listening.fileno(), 0o660 if for_group else 0o600)
        # The name gets the socket's mode without what the umask takes away.
        before = os.umask(0o007)
        try:
            listening.bind(str(unready))
        finally:
            os.umask(before)
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


def _sockets(environment: Mapping[str, str]) -> list[Path]:
    """Those that this user may find, of daemons that live or have left theirs."""
    return [
        path
        for folder in searched_folders(environment)
        for path in sorted(folder.glob(f"*{_SUFFIX}"))
    ]


async def ask_all(
    question: Mapping[str, Any],
    environment: Mapping[str, str],
    *,
    seconds: float | None = None,
) -> Answers:
    """Ask every daemon on this machine; none runs where there is neither answer nor problem.

    A daemon that has not answered after ``seconds`` is a problem. None: as long as a listing may
    take.
    """
    seconds = _ANSWER_SECONDS if seconds is None else seconds
    answers = Answers([], [])
    asking = (_ask(path, question, seconds) for path in _sockets(environment))
    for answer in await asyncio.gather(*asking):
        if isinstance(answer, str):
            answers.problems.append(answer)
        elif answer is not None:
            answers.given.append(answer)
    return answers


async def listen_to_all(
    question: Mapping[str, Any], environment: Mapping[str, str], take: Callable[[Answer], None]
) -> Answers:
    """Ask every daemon on this machine, and have ``take`` called with each line of the answers.

    Returns when all daemons have ended, with those that could not be asked as problems. Cancelling
    is safe.
    """
    answers = Answers([], [])

    async def listen(path: Path) -> None:
        try:
            async with _asking(path, question) as (reader, user):
                while (line := await reader.readline()).endswith(b"\n"):
                    answer = _understood(line, user)
                    if "error" in answer.said:
                        answers.problems.append(_no_answer(path, answer))
                        return
                    take(answer)
        except (ConnectionError, FileNotFoundError):
            pass  # it ended
        except (OSError, ValueError) as error:
            answers.problems.append(_problem(path, error, 0))

    await asyncio.gather(*(listen(path) for path in _sockets(environment)))
    return answers


async def _ask(path: Path, question: Mapping[str, Any], seconds: float) -> Answer | str | None:
    """The answer, or what is wrong, or None where nobody is there any more."""
    try:
        answer = await _exchange(path, question, seconds)
    except (ConnectionError, FileNotFoundError):
        return None  # it ended
    except (OSError, ValueError, TimeoutError) as error:
        return _problem(path, error, seconds)
    return _no_answer(path, answer) if "error" in answer.said else answer


def _problem(path: Path, error: Exception, seconds: float) -> str:
    if isinstance(error, PermissionError):
        return f"the daemon at {path} is another user's: ask as that user, or as root"
    if isinstance(error, TimeoutError):
        return f"the daemon at {path} {MUTE} {seconds:g} s"
    return f"the daemon at {path} could not be understood: {error}"


def _no_answer(path: Path, answer: Answer) -> str:
    return f"the daemon at {path} could not answer: {answer.said['error']}"


async def _exchange(path: Path, question: Mapping[str, Any], seconds: float) -> Answer:
    """Raises ConnectionError where the daemon ended, PermissionError where it is not to be asked,
    ValueError for what is no answer."""
    async with asyncio.timeout(seconds), _asking(path, question) as (reader, user):
        line = await reader.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError
    return _understood(line, user)


@asynccontextmanager
async def _asking(
    path: Path, question: Mapping[str, Any]
) -> AsyncIterator[tuple[asyncio.StreamReader, int]]:
    """A connection on which the question was asked, and whose process is at its other end."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=_LONGEST_LINE)
    try:
        user = _user_behind(writer.get_extra_info("socket"))
        if not _is_believed(user, path.parent):
            raise PermissionError
        writer.write(_line(question))
        yield reader, user
    finally:
        writer.close()


def _understood(line: bytes, user: int) -> Answer:
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


def _is_believed(user: int, folder: Path) -> bool:
    """Whether to take a daemon's word: in a folder that all may write to, anybody may pose as one.

    Root asks all: what stands in its folder was put there by a service of this machine. A daemon
    is believed also in a folder that is its own and that nobody else can write to.
    """
    if os.geteuid() in (0, user) or user == 0:
        return True
    status = folder.stat()
    return status.st_uid == user and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
