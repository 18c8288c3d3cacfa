"""Asking daemons: real sockets, in folders of the test's own, and no daemon behind them."""

import asyncio
import json
import os
import select
import socket
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from asynchost.service import control
from asynchost.service.control import (
    Answer,
    Answers,
    ControlSocket,
    ask_all,
    own_folder,
    remove_sockets,
    searched_folders,
)


async def echo(question: Mapping[str, Any]) -> Mapping[str, Any]:
    """A daemon that knows no more than it was asked."""
    return {"asked": dict(question)}


def place(folder: Path) -> dict[str, str]:
    """An environment in which sockets stand in this folder, as systemd says it."""
    return {"RUNTIME_DIRECTORY": str(folder)}


def inside(folder: Path) -> list[Path]:
    """What stands in it."""
    return sorted(folder.iterdir())


async def test_every_daemon_answers(tmp_path: Path) -> None:
    """Two in one folder, each with a name of its own."""
    async with ControlSocket(echo, place(tmp_path)), ControlSocket(echo, place(tmp_path)):
        answers = await ask_all({"host": "node1"}, place(tmp_path))
    assert answers == Answers([Answer({"asked": {"host": "node1"}}, os.geteuid())] * 2, [])


@pytest.mark.parametrize(
    "said", [{}, {"a": []}, {"a\n": [1, {"b": [None]}, "\ud800\n"], "c": {"d": [2.5]}, "e": "\0"}]
)
async def test_an_answer_arrives_as_it_was_given(tmp_path: Path, said: dict[str, Any]) -> None:
    """Put together piece by piece as it is."""

    async def tell(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return said

    async with ControlSocket(tell, place(tmp_path)):
        ((heard, _),) = (await ask_all({}, place(tmp_path))).given
    assert heard == said


async def test_where_no_daemon_runs_there_is_no_answer(tmp_path: Path) -> None:
    """Nor a problem; an absent folder is like an empty one."""
    assert await ask_all({}, place(tmp_path)) == Answers([], [])
    assert await ask_all({}, place(tmp_path / "absent")) == Answers([], [])


async def test_a_socket_opens_to_its_user_alone_and_goes_with_the_daemon(tmp_path: Path) -> None:
    """What a daemon knows is nobody else's business, and nothing of it stays."""
    before = os.umask(0)
    try:
        control_socket = ControlSocket(echo, place(tmp_path))
        await control_socket.__aenter__()
    finally:
        os.umask(before)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(control_socket)
        (path,) = inside(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.suffix == ".sock"
    assert inside(tmp_path) == []


async def test_a_dead_daemons_socket_is_swept_and_a_living_ones_is_not(tmp_path: Path) -> None:
    """A killed process leaves its socket; the next start removes it."""
    dead = tmp_path / "1-dead.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    async with ControlSocket(echo, place(tmp_path)), ControlSocket(echo, place(tmp_path)):
        assert not dead.exists()
        assert len(inside(tmp_path)) == 2


async def test_a_daemon_that_fails_to_answer_says_so_and_goes_on(tmp_path: Path) -> None:
    """A fault in an answer is no fault of the daemon's work."""

    async def fail(_: Mapping[str, Any]) -> Mapping[str, Any]:
        raise ZeroDivisionError("oh")

    async with ControlSocket(fail, place(tmp_path)):
        for _ in range(2):
            given, (problem,) = await ask_all({}, place(tmp_path))
            assert given == []
            assert "ZeroDivisionError: oh" in problem


async def test_one_that_is_mute_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And keeps nobody from hearing the others."""
    # Within which the others answer, however busy the machine is.
    monkeypatch.setattr(control, "_ANSWER_SECONDS", 2.0)
    with socket.socket(socket.AF_UNIX) as mute:
        mute.bind(str(tmp_path / "mute.sock"))
        mute.listen()
        async with ControlSocket(echo, place(tmp_path)):
            given, (problem,) = await ask_all({}, place(tmp_path))
    assert len(given) == 1
    assert "mute.sock did not answer within 2 s" in problem


@pytest.mark.parametrize("words", [b"not json\n", b"\n", b""])
async def test_nonsense_gets_no_answer_and_harms_nobody(tmp_path: Path, words: bytes) -> None:
    """The next question is answered."""
    async with ControlSocket(echo, place(tmp_path)):
        (path,) = inside(tmp_path)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(words)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert (await ask_all({}, place(tmp_path))).given == [Answer({"asked": {}}, os.geteuid())]


async def test_the_end_waits_for_no_answer(tmp_path: Path) -> None:
    """Whoever asks a daemon that ends hears nothing, and delays nothing."""
    asked = asyncio.Event()

    async def think(_: Mapping[str, Any]) -> Mapping[str, Any]:
        asked.set()
        await asyncio.Event().wait()
        return {}

    async with ControlSocket(think, place(tmp_path)):
        asking = asyncio.create_task(ask_all({}, place(tmp_path)))
        await asked.wait()
    assert await asyncio.wait_for(asking, 10) == Answers([], [])


async def test_without_a_folder_the_daemon_goes_on(tmp_path: Path) -> None:
    """Where no socket can be made, nothing is lost but the answers."""
    (tmp_path / "file").write_text("")
    async with ControlSocket(echo, place(tmp_path / "file")):
        assert await ask_all({}, place(tmp_path / "file")) == Answers([], [])


async def test_an_end_at_once_removes_the_sockets(tmp_path: Path) -> None:
    """Not every end is an orderly one."""
    async with ControlSocket(echo, place(tmp_path)):
        remove_sockets()
        assert inside(tmp_path) == []


async def test_an_own_folder_goes_with_the_last_socket_in_it(tmp_path: Path) -> None:
    """Nothing made it but the daemons themselves; systemd's own folder stays."""
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr("os.geteuid", lambda: 1)
        async with ControlSocket(echo, environment):
            async with ControlSocket(echo, environment):
                assert len(inside(tmp_path / "asynchost")) == 2
            assert len(inside(tmp_path / "asynchost")) == 1
    assert inside(tmp_path) == []


def test_where_sockets_are_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's own folder and the system's; only one where the service manager names it."""
    system = Path("/run/asynchost")
    assert own_folder({"RUNTIME_DIRECTORY": "/run/a:/run/b"}) == Path("/run/a")
    assert searched_folders({"RUNTIME_DIRECTORY": "/run/a"}) == [Path("/run/a")]
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert searched_folders({}) == [system]
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert searched_folders({"XDG_RUNTIME_DIR": "/run/user/1000"}) == [
        system,
        Path("/run/user/1000/asynchost"),
    ]
    assert own_folder({}).name == "asynchost-1000"


async def test_a_folder_of_somebody_elses_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that all may write to, anybody could have made it."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    (tmp_path / "asynchost-1000").mkdir(mode=0o777)
    (tmp_path / "asynchost-1000").chmod(0o777)
    async with ControlSocket(echo, {}):
        assert inside(tmp_path / "asynchost-1000") == []


async def test_a_question_and_its_answer_are_a_line_each(tmp_path: Path) -> None:
    """So that a person can ask with a shell's tools, too."""
    async with ControlSocket(echo, place(tmp_path)):
        (path,) = inside(tmp_path)
        reader, writer = await asyncio.open_unix_connection(str(path))
        writer.write(b'{"host": "\\u0000"}\n')
        assert json.loads(await reader.readline()) == {"asked": {"host": "\0"}}
        writer.close()


@asynccontextmanager
async def posing(path: Path, words: bytes) -> AsyncIterator[None]:
    """Somebody who listens there, and says this to whoever asks."""

    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(words)
        writer.close()

    async with await asyncio.start_unix_server(say, str(path)):
        yield


@pytest.mark.parametrize("words", [b"", b'{"accounts": [', b'{"accounts": []}'])
async def test_a_daemon_that_ends_in_the_middle_of_its_answer_is_none(
    tmp_path: Path, words: bytes
) -> None:
    """Half an answer is none, whole as it may look."""
    async with posing(tmp_path / "1.sock", words):
        assert await ask_all({}, place(tmp_path)) == Answers([], [])


@pytest.mark.parametrize("words", [b"nonsense\n", b"[1]\n", b"\xff\n", b"0" * 99 + b"\n"])
async def test_what_cannot_be_understood_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    """In a line, and the others are heard; an answer that is too long is one of those."""
    monkeypatch.setattr(control, "_LONGEST_LINE", 64)
    async with posing(tmp_path / "1.sock", words), ControlSocket(echo, place(tmp_path)):
        given, (problem,) = await ask_all({}, place(tmp_path))
    assert len(given) == 1
    assert "1.sock could not be understood" in problem


async def test_somebody_else_who_poses_as_a_daemon_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder that all may write to, anybody can make one of this user's name."""
    monkeypatch.setattr(control, "_user_behind", lambda _: 1001)
    async with ControlSocket(echo, place(tmp_path)):
        monkeypatch.setattr("os.geteuid", lambda: 1000)
        given, (problem,) = await ask_all({}, place(tmp_path))
        assert given == []
        assert "is another user's" in problem
        # Root's daemons are believed by all, and root asks all.
        monkeypatch.setattr("os.geteuid", lambda: 0)
        assert [one.user for one in (await ask_all({}, place(tmp_path))).given] == [1001]


async def test_one_that_is_stopped_holds_up_no_start(tmp_path: Path) -> None:
    """Its line of those who wait is full: to join it would take for ever."""
    with socket.socket(socket.AF_UNIX) as stopped, ExitStack() as waiting:
        stopped.bind(str(tmp_path / "1.sock"))
        stopped.listen(0)
        while True:
            one = waiting.enter_context(socket.socket(socket.AF_UNIX))
            one.setblocking(False)
            try:
                one.connect(str(tmp_path / "1.sock"))
            except BlockingIOError:
                break
        async with ControlSocket(echo, place(tmp_path)):
            assert len(inside(tmp_path)) == 2


async def test_one_who_asks_and_does_not_listen_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits to be sent to somebody who was stopped holds nothing open."""
    monkeypatch.setattr(control, "_QUESTION_SECONDS", 0.2)

    async def talk(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"long": "x" * 10_000_000}

    async with ControlSocket(talk, place(tmp_path)):
        (path,) = inside(tmp_path)
        with socket.socket(socket.AF_UNIX) as asking:
            asking.setblocking(False)
            asking.connect(str(path))
            asking.sendall(b"{}\n")
            hung_up = asyncio.get_running_loop().create_future()
            poll = select.epoll()
            poll.register(asking, select.EPOLLHUP | select.EPOLLRDHUP | select.EPOLLET)
            loop = asyncio.get_running_loop()
            loop.add_reader(poll, lambda: hung_up.done() or hung_up.set_result(None))
            try:
                await asyncio.wait_for(hung_up, 10)
            finally:
                loop.remove_reader(poll)
                poll.close()


async def test_a_question_that_is_no_object_is_answered_in_words(tmp_path: Path) -> None:
    """The daemon's own code does not show in the answer."""
    async with ControlSocket(echo, place(tmp_path)):
        (path,) = inside(tmp_path)
        for question in (b"[]\n", b"null\n", b"1\n"):
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(question)
            assert "a question is a JSON object" in json.loads(await reader.readline())["error"]
            writer.close()


async def test_members_of_the_group_are_answered_less(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket opens to them, whatever the umask is; root and the daemon's user hear all."""

    async def little(_: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"status": "fine"}

    before = os.umask(0o077)
    try:
        control_socket = ControlSocket(echo, place(tmp_path), answer_group=little)
        await control_socket.__aenter__()
    finally:
        os.umask(before)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(control_socket)
        (path,) = inside(tmp_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        for user, expected in ((0, {"asked": {}}), (1001, {"status": "fine"})):
            monkeypatch.setattr(control, "_user_behind", lambda _, user=user: user)
            ((said, _),) = (await ask_all({}, place(tmp_path))).given
            assert said == expected


async def test_an_answer_can_go_on(tmp_path: Path) -> None:
    """Line by line, until the asker leaves or there are no more; then it is closed."""
    closed = asyncio.Event()

    async def count(_: Mapping[str, Any]) -> control.Lines:
        async def numbers() -> control.Lines:
            try:
                for number in range(3):
                    yield {"number": number}
                await asyncio.Event().wait()
            finally:
                closed.set()

        return numbers()

    heard: list[Mapping[str, Any]] = []
    enough = asyncio.Event()

    def take(answer: Answer) -> None:
        heard.append(answer.said)
        if len(heard) == 3:
            enough.set()

    async with ControlSocket(count, place(tmp_path)):
        listening = asyncio.create_task(control.listen_to_all({}, place(tmp_path), take))
        await asyncio.wait_for(enough.wait(), 30)
        listening.cancel()
        await asyncio.wait_for(closed.wait(), 30)
        await asyncio.gather(listening, return_exceptions=True)
    assert [said["number"] for said in heard] == [0, 1, 2]
