"""The console script: runs the command line and turns how it ended into an exit status.

Every error that a person can mend becomes one line on standard error, without a traceback.
"""

import errno
import os
import signal
import sys
import threading
from typing import Final

from asynchost.errors import AsynchostError, FencedError
from asynchost.service.exits import ExitStatus, with_options
from asynchost.service.logs import configure_logs, fatal_line, fault_lines, format_in
from asynchost.service.mistakes import all_of
from asynchost.service.stopping import end_on_signals, let_signals_end
from asynchost.service.streams import (
    OutputError,
    finish_errors,
    finish_output,
    open_standard_streams,
    replace_standard_streams,
)
from asynchost_command import hold_signals

_INTERRUPTED = 128 + signal.SIGINT

GOING_ON: Final = ("run", "demo")
"""The commands that work, and log, until they are told to stop."""


def main() -> None:
    """Run ``asynchost`` with the process's arguments, and exit."""
    hold_signals()
    open_standard_streams()
    arguments = sys.argv[1:]
    goes_on = arguments[:1] in ([name] for name in GOING_ON)
    replace_standard_streams(goes_on=goes_on)
    if goes_on:
        # A command line that is refused is told as everything else is.
        configure_logs("info", format_in(arguments))
    end_on_signals(orderly=goes_on, hang_up_ends=not _reloads(arguments))
    status = _finish(_run_to_the_end(arguments))
    let_signals_end()
    if _threads_are_held():
        # The interpreter's end would take such a thread down in the middle of libvirt's code.
        os._exit(status)
    sys.exit(status)


def _reloads(arguments: list[str]) -> bool:
    """Whether SIGHUP is for the daemon that is about to begin, which reads its files after it."""
    if arguments[:1] != ["run"]:
        return False
    try:
        from asynchost.service.options import config_in, hang_up_reloads  # noqa: PLC0415
    except ModuleNotFoundError:  # click is missing, and the process ends with that
        return False
    return hang_up_reloads(config_in(arguments))


def _run_to_the_end(arguments: list[str]) -> int:
    try:
        return run(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:  # noqa: BLE001 - the process ends with it, and says so
        print(fault_lines(), file=sys.stderr)
        return ExitStatus.FAULT


def _finish(status: int) -> int:
    """Write what is left to write; the status to end with."""
    try:
        finish_output()
    except OutputError as error:
        status = status or _refuse(str(error))
    finish_errors()
    return status


def _threads_are_held() -> bool:
    """Whether a thread is left behind in a call that does not return."""
    ours = {"output 1", "output 2", "signals"}
    return any(
        thread.daemon and thread.name not in ours
        for thread in threading.enumerate()
        if thread is not threading.main_thread()
    )


def run(arguments: list[str]) -> int:
    """Run one command, and return its exit status."""
    try:
        # click is an extra that the library does without.
        import click  # noqa: PLC0415
    except ModuleNotFoundError:
        return _refuse("the command line needs click: pip install 'asynchost[daemon]'")

    from asynchost.service.commands import cli  # noqa: PLC0415

    try:
        # Without arguments click would answer with an error whose text is the whole help.
        outcome = cli.main(arguments or ["--help"], prog_name="asynchost", standalone_mode=False)
    except click.Abort:
        # click's word for a KeyboardInterrupt: before the signals were taken over, or in a
        # command that does not take them over, because it has nothing to finish.
        return _INTERRUPTED
    except click.ClickException as error:
        return _refuse(f"{error.format_message()} (see asynchost --help)")
    except (AsynchostError, OutputError) as error:
        status = ExitStatus.FENCED if isinstance(error, FencedError) else ExitStatus.MUST_MEND
        for one in all_of(error):
            _refuse(with_options(one) if isinstance(one, AsynchostError) else str(one), status)
        return status
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # The demonstration's folder.
        where = "" if error.filename is None else f": {error.filename!r}"
        return _refuse(f"{error.strerror}{where}; make room, or set TMPDIR to another folder")
    # None from a command that ended well, a number from click itself.
    return int(outcome or ExitStatus.OK)


def _refuse(message: str, status: ExitStatus = ExitStatus.MUST_MEND) -> ExitStatus:
    print(fatal_line(message, status), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
