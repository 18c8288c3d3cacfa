"""The commands as data: for the man page, and for shells that complete what is typed.

May live here: what click knows of its commands. Must not: how a document looks.
"""

from collections.abc import Iterator, Sequence

import click
from click.shell_completion import get_completion_class

from asynchost.service.commands import cli
from asynchost.service.manual import Command

_PROGRAM = "asynchost"


def commands() -> list[Command]:
    """All commands, those of groups with their group's name."""
    return list(_commands(cli, ()))


def _commands(group: click.Group, names: Sequence[str]) -> Iterator[Command]:
    for name, command in group.commands.items():
        path = (*names, name)
        if isinstance(command, click.Group):
            yield from _commands(command, path)
            continue
        context = click.Context(command, info_name=" ".join(path))
        arguments = [one.make_metavar(context) for one in command.params if _is_argument(one)]
        records = [one.get_help_record(context) for one in command.params]
        yield Command(
            " ".join((*path, *arguments)),
            command.help or "",
            [record for record in records if record is not None],
        )


def _is_argument(parameter: click.Parameter) -> bool:
    return isinstance(parameter, click.Argument)


def completion(shell: str) -> str:
    """The script that has a shell complete what is typed."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for the shell {shell!r}")
    return found(cli, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE").source()
