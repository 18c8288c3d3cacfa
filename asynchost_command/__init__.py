"""The console script ``asynchost``: holds signals, and only then loads the program.

Loading the package takes a good part of a second. A signal that comes before there is somebody
to answer it would end the process, so this is a package of its own, which imports nothing heavy.
"""

import signal
from typing import Final

STOPPING: Final = frozenset(
    (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGPWR,
        signal.SIGXCPU,
    )
)
"""Signals that ask for the end."""
HELD: Final = (
    STOPPING
    | frozenset(
        (
            signal.SIGUSR1,
            signal.SIGUSR2,
            signal.SIGALRM,
            signal.SIGVTALRM,
            signal.SIGPROF,
            signal.SIGIO,
            signal.SIGSTKFLT,
        )
    )
    | frozenset(range(signal.SIGRTMIN, signal.SIGRTMAX + 1))
)
"""Signals that would end the process by default, except for those that tell of a fault in it."""


def hold_signals() -> None:
    """Keep the signals in :data:`HELD` pending until a thread waits for them.

    Threads that are started afterwards inherit it, so call this before there are any.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD)


def main() -> None:
    """Run ``asynchost`` with the process's arguments, and exit."""
    hold_signals()
    # Only now, because it takes long.
    from asynchost.service.__main__ import main as run  # noqa: PLC0415

    run()
