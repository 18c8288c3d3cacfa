"""The console script: runs the command line and turns how it ended into an exit status.

Every error that a person can mend becomes one line on standard error, without a traceback.
"""

import errno
import os
import signal
import sys

from asynchost.errors import AsynchostError, FencedError
from asynchost.service.exits import ExitStatus, with_options
from asynchost.service.terminal import error_line

_INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run ``asynchost`` with the process's arguments, and exit."""
    open_standard_streams()
    try:
        status = run(sys.argv[1:])
    except KeyboardInterrupt:
        # While everything was being imported.
        status = _INTERRUPTED
    sys.exit(status)


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
    except AsynchostError as error:
        fenced = isinstance(error, FencedError)
        return _refuse(with_options(error), ExitStatus.FENCED if fenced else ExitStatus.MUST_MEND)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # The demonstration's folder, or a file that the output is sent to.
        where = "" if error.filename is None else f": {error.filename!r}"
        return _refuse(f"{error.strerror}{where}; make room, or set TMPDIR to another folder")
    # None from a command that ended well, a number from click itself.
    return int(outcome or ExitStatus.OK)


def open_standard_streams() -> None:
    """Put the null device where the process was started without an input or an output.

    Python has None for such a stream, and the next file or connection to be opened would get its
    number, and with that whatever a library below prints.
    """
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            try:
                os.fstat(number)
            except OSError:
                # The lowest number that is free: those before it have been filled by now.
                os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _refuse(message: str, status: ExitStatus = ExitStatus.MUST_MEND) -> ExitStatus:
    print(error_line(message), file=sys.stderr)
    return status


if __name__ == "__main__":
    main()
