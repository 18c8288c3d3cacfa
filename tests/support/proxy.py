"""A network between a client and a server that a test can break at will.

May live here: what networks do to bytes. Must not: knowledge of what the bytes mean.

The proxy runs in a thread and an asyncio loop of its own, so that a blocked or busy loop under
test does not hold the bytes up as well. Its methods are called from any other thread, block
for an instant and have taken effect when they return.
"""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self

WHOLE_BYTES = 65536
"""How much is forwarded at once by default."""
_RESET_AT_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time at all
_DEADLINE_SECONDS = 60.0


class Waylaid:
    """A piece of bytes that something will happen to, once one comes that holds ``mark``."""

    def __init__(self, mark: bytes, release: Callable[[], None] = lambda: None) -> None:
        self.mark = mark
        self.taken = False
        """Whether such a piece has come."""
        self.release = release
        """Let a piece that is held back go on, also where its client is gone by now."""


class Flow:
    """One client's connection through the proxy, and its counterpart to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.forwarded = 0
        self.silent = False
        self.answer_lost = False

    def close(self, *, reset: bool) -> None:
        for writer in (self.client, self.server):
            if reset:
                with contextlib.suppress(OSError):
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, _RESET_AT_CLOSE
                    )
                writer.transport.abort()
            else:
                writer.close()


class Proxy:
    """Forwards connections to ``target``, a TCP port of this machine or a unix socket's path.

    It listens on the path ``listen``, or else on a free TCP port, :attr:`port`.
    """

    def __init__(self, target: int | Path, listen: Path | None = None) -> None:
        self._target = target
        self._listen = listen
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._flows: set[Flow] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._gate = asyncio.Event()
        self._gate.set()
        self._held: tuple[Waylaid, asyncio.Event] | None = None
        self._unanswered: Waylaid | None = None
        self._server: asyncio.Server | None = None
        self.delay_seconds = 0.0
        """How long every piece of bytes is kept before it is forwarded. To be set at any time."""
        self.piece_bytes = WHOLE_BYTES
        """The most bytes that are forwarded at once. To be set at any time."""
        self.reset_after_bytes: int | None = None
        """Reset every connection that has brought so many bytes, both ways together; the rest of
        the piece that crosses the line is lost. None for never. To be set at any time."""
        self.accepted = 0
        """How many connections have come so far."""
        self.port = 0
        """The TCP port that it listens on; 0 where it listens on a path."""

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def open_flows(self) -> int:
        """How many connections are open through the proxy, silent ones included."""
        return len(self._flows)

    # What networks do

    def reset(self) -> None:
        """Cut every connection with a reset (RST over TCP): the peer's machine fell over."""
        self._do(lambda: self._close_all(reset=True))

    def cut(self) -> None:
        """Close every connection in good order: the peer's program ended."""
        self._do(lambda: self._close_all(reset=False))

    def silence(self) -> None:
        """Forward nothing more for the connections there are, in silence: half-open for ever.

        New connections pass, as after a router forgot what it knew.
        """

        def go_silent() -> None:
            for flow in self._flows:
                flow.silent = True

        self._do(go_silent)

    def hold(self) -> None:
        """Keep all bytes back, also of new connections, until :meth:`release`."""
        self._do(self._gate.clear)

    def release(self) -> None:
        """Let held bytes go, in their order."""
        self._do(self._gate.set)

    def hold_back(self, mark: bytes) -> Waylaid:
        """Keep the next piece from a client that holds ``mark``, and what follows it, until it is
        released: a packet that takes a detour. The server does not learn of the client's end
        before that. Other connections pass."""
        gate = asyncio.Event()
        waylaid = Waylaid(mark, lambda: self._do(gate.set))

        def wait() -> None:
            self._held = (waylaid, gate)

        self._do(wait)
        return waylaid

    def lose_answer(self, mark: bytes) -> Waylaid:
        """Forward the next piece from a client that holds ``mark``; lose the server's answer to
        it, and reset the connection in its place."""
        waylaid = Waylaid(mark)

        def wait() -> None:
            self._unanswered = waylaid

        self._do(wait)
        return waylaid

    def let_pass(self) -> None:
        """Wait for no mark any more."""

        def forget() -> None:
            self._held = self._unanswered = None

        self._do(forget)

    # In the proxy's thread

    def _do(self, step: Callable[[], None]) -> None:
        async def do() -> None:
            step()

        self._run(do())

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_DEADLINE_SECONDS)

    async def _start(self) -> None:
        if self._listen is not None:
            self._server = await asyncio.start_unix_server(self._accept, self._listen)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self._close_all(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close_all(self, *, reset: bool) -> None:
        for flow in list(self._flows):
            flow.close(reset=reset)

    async def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            if isinstance(self._target, Path):
                from_server, server = await asyncio.open_unix_connection(self._target)
            else:
                from_server, server = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            client.transport.abort()  # as if the proxy was not there
            return
        flow = Flow(client, server)
        self._flows.add(flow)
        pumps = {
            asyncio.create_task(self._pump(flow, reader, server, from_client=True)),
            asyncio.create_task(self._pump(flow, from_server, client, from_client=False)),
        }
        self._tasks |= pumps
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            flow.close(reset=False)
            for pump in pumps:
                pump.cancel()
            self._tasks -= pumps
            self._flows.discard(flow)

    async def _pump(
        self,
        flow: Flow,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        from_client: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(self.piece_bytes):
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                await self._gate.wait()
                if from_client:
                    await self._waylay(flow, piece)
                elif flow.answer_lost:
                    flow.close(reset=True)
                    return
                if flow.silent:
                    continue  # read and lost: the sender sees nothing of it
                if self.reset_after_bytes is not None:
                    remaining = self.reset_after_bytes - flow.forwarded
                    if len(piece) >= remaining:
                        writer.write(piece[:remaining])
                        flow.close(reset=True)
                        return
                flow.forwarded += len(piece)
                writer.write(piece)
                await writer.drain()
            if flow.silent:
                await asyncio.Event().wait()  # the one side's end does not reach the other

    async def _waylay(self, flow: Flow, piece: bytes) -> None:
        """Return when a client's piece may go on: perhaps much later."""
        if self._unanswered is not None and self._unanswered.mark in piece:
            flow.answer_lost = self._unanswered.taken = True
            self._unanswered = None
        if self._held is None or self._held[0].mark not in piece:
            return
        (waylaid, gate), self._held = self._held, None
        waylaid.taken = True
        await gate.wait()
