"""The settings as documents: the table of ``docs/configuration.md`` and the man pages.

Pure. May live here: how a document is laid out. Must not: what a setting is, which is declared in
``declared.py``. To print one: ``python -m asynchost.service.manual table``,
``asynchost.1``, ``asynchost.toml.5``, ``bash-completion`` and so on.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from asynchost.service.declared import SETTINGS, USUAL_FOLDER, Scope, Setting, default_text

_KINDS = {Scope.PROCESS: "all hosts", Scope.ALL_OR_ONE: "all hosts, or one", Scope.ONE: "one host"}


class Command(NamedTuple):
    """One command, for its manual."""

    usage: str
    help: str
    options: Sequence[tuple[str, str]]
    """As written, with the help."""


def settings_table() -> str:
    """A Markdown table of everything that can be set."""
    lines = [
        "| key, option, variable | value | for | default | on reload | |",
        "|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(setting))} |" for setting in SETTINGS.values()]
    return "\n".join(lines) + "\n"


def _cells(setting: Setting) -> list[str]:
    option = "" if setting.name == "name" else f"<br>`--{setting.name}`<br>`{setting.variable}`"
    return [
        f"`{setting.name}`{option}",
        f"`{setting.example}`",
        _KINDS[setting.scope],
        _cell(default_text(setting)),
        "needs a restart" if setting.restarts else "taken over",
        _cell(setting.help),
    ]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("[", "\\[").replace("*", "\\*")


def command_page(commands: Sequence[Command]) -> str:
    """The man page asynchost(1)."""
    lines = [
        '.TH ASYNCHOST 1 "" asynchost "User Commands"',
        ".SH NAME",
        "asynchost \\- keep the table compute_nodes true from libvirt's events",
        ".SH SYNOPSIS",
        ".B asynchost",
        ".I COMMAND",
        "[OPTION...]",
        ".SH DESCRIPTION",
        "asynchost watches libvirt hosts and keeps their rows in the MySQL table",
        ".B compute_nodes",
        "true. It is driven by libvirt's events.",
        "Everything that an option says can also be said in a file, see",
        ".BR asynchost.toml (5),",
        "and by an environment variable: the option",
        ".B \\-\\-max\\-delay",
        "is the variable",
        ".BR ASYNCHOST_MAX_DELAY .",
        "Variables outrank files, and options outrank both.",
        ".SH COMMANDS",
    ]
    for command in commands:
        lines += [f'.SS "{_roff(command.usage)}"', _roff(command.help)]
        for option, text in command.options:
            lines += [".TP", f".B {_roff(option)}", _roff(text)]
    lines += [
        ".SH EXIT STATUS",
        *_statuses(),
        ".SH SIGNALS",
        ".TP",
        ".B SIGTERM, SIGINT",
        "Stop in order. A second one ends the process at once.",
        ".TP",
        ".B SIGHUP",
        "Read the configuration again. On a terminal and without a file: stop in order.",
        ".SH FILES",
        ".TP",
        f".I {USUAL_FOLDER}/asynchost.toml",
        "The configuration.",
        ".TP",
        f".I {USUAL_FOLDER}/conf.d/*.toml",
        "Further parts of it.",
        ".SH SEE ALSO",
        ".BR asynchost.toml (5)",
    ]
    return "\n".join(lines) + "\n"


def file_page() -> str:
    """The man page asynchost.toml(5)."""
    lines = [
        '.TH ASYNCHOST.TOML 5 "" asynchost "File Formats"',
        ".SH NAME",
        "asynchost.toml \\- configuration of asynchost",
        ".SH SYNOPSIS",
        f".I {USUAL_FOLDER}/asynchost.toml",
        ".br",
        f".I {USUAL_FOLDER}/conf.d/*.toml",
        ".SH DESCRIPTION",
        "The files are TOML. They are read in this order, those of conf.d by their names; a later",
        "value takes the place of an earlier one, and hosts add up. What stands below the first",
        ".B [[host]]",
        "belongs to that host.",
        ".PP",
        ".B asynchost config check",
        "tells every mistake,",
        ".B asynchost config show",
        "what is in force and where it comes from,",
        ".B asynchost config example",
        "prints a file to begin with.",
        ".SH FOR ALL HOSTS",
    ]
    for setting in SETTINGS.values():
        if setting.scope is not Scope.ONE:
            lines += _setting_lines(setting)
    lines += [
        ".SH FOR ONE HOST",
        "Each host begins with a line",
        ".BR [[host]] .",
        "Its name and its URI are obligatory. It can also have its own:",
        _roff(
            ", ".join(one.name for one in SETTINGS.values() if one.scope is Scope.ALL_OR_ONE) + "."
        ),
    ]
    for setting in SETTINGS.values():
        if setting.scope is Scope.ONE:
            lines += _setting_lines(setting)
    lines += [".SH SEE ALSO", ".BR asynchost (1)"]
    return "\n".join(lines) + "\n"


def _setting_lines(setting: Setting) -> list[str]:
    restart = " A change needs a restart." if setting.restarts else ""
    return [
        ".TP",
        f".B {_roff(f'{setting.name} = {setting.example}')}",
        _roff(f"{setting.help} Default: {default_text(setting)}.{restart}"),
    ]


def _statuses() -> list[str]:
    return [
        ".TP",
        ".B 0",
        "Done, or stopped by a signal.",
        ".TP",
        ".B 1",
        "A fault in asynchost, or a stop that did not end in time; of diff: a difference.",
        ".TP",
        ".B 2",
        "Somebody must mend something first; the line on standard error says what, and how.",
        ".TP",
        ".B 3",
        "Every row was claimed by another agent.",
        ".TP",
        ".B 128 + n",
        "Ended by a second signal n.",
    ]


def _roff(text: str) -> str:
    """Text in which nothing is a command of roff's."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain


def main(arguments: Sequence[str]) -> None:
    """Print the document that is asked for."""
    # The commands need click, which the settings do not.
    from asynchost.service.command_list import commands, completion  # noqa: PLC0415

    documents: dict[str, Callable[[], str]] = {
        "table": settings_table,
        "asynchost.1": lambda: command_page(commands()),
        "asynchost.toml.5": file_page,
        **{f"{shell}-completion": partial(completion, shell) for shell in ("bash", "zsh", "fish")},
    }
    sys.stdout.write(documents[arguments[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
