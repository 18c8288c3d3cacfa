"""``python -m benchmarks.contenders NAME [ARGUMENT...]``: one contender, told what to do.

Orders come by standard input as lines of JSON, and each is answered by one.
"""

import asyncio
import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

from benchmarks.contenders.bare import Bare, BareInfo, BareInfoThread, BareRead, Classic
from benchmarks.contenders.base import Contender
from benchmarks.contenders.inside import Inside
from benchmarks.contenders.listing import Listing
from benchmarks.contenders.monitor import Idle, Monitor, Subscriber
from benchmarks.contenders.rows import Info, Row, Update
from tests.support.libvirtd import silence_libvirt

CONTENDERS: dict[str, Callable[..., Contender | Listing | Update | Info]] = {
    "monitor": Monitor,
    "subscriber": Subscriber,
    "bare": Bare,
    "bound": Bare,
    "bare-libvirtaio": lambda: Bare("libvirtaio"),
    "bare-default": lambda: Bare("default"),
    "bare-info": BareInfo,
    "bare-info-thread": BareInfoThread,
    "read": BareRead,
    "classic": Classic,
    "inside": Inside,
    "listing": Listing,
    "idle": Idle,
    "row": Row,
    "info": Info,
    "update": Update,
}


async def _orders() -> asyncio.StreamReader:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def main(name: str, *arguments: str) -> None:
    """Do what standard input says, line by line."""
    orders = await _orders()
    contender = CONTENDERS[name](*arguments)
    while line := await orders.readline():
        order: dict[str, Any] = json.loads(line)
        try:
            answer = await getattr(contender, order.pop("do"))(**order)
        except Exception as error:  # noqa: BLE001 - told to the parent
            traceback.print_exc()
            print(json.dumps({"error": str(error)}), flush=True)
            # Threads that read, and libvirt's, must not keep it: the parent waits for the end.
            os._exit(1)
        print(json.dumps(answer or {}), flush=True)


if __name__ == "__main__":
    silence_libvirt()
    asyncio.run(main(*sys.argv[1:]))
