"""The settings as documents: the table of ``docs/configuration.md`` and the man pages.

Pure. May live here: how a document is laid out. Must not: what a setting is, which is declared in
``declared.py``. To print one: ``python -m asynchost.service.manual table``.
"""

import sys
from collections.abc import Sequence

from asynchost.service.declared import SETTINGS, Scope, Setting, default_text

_KINDS = {Scope.PROCESS: "all hosts", Scope.ALL_OR_ONE: "all hosts, or one", Scope.ONE: "one host"}


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


def main(arguments: Sequence[str]) -> None:
    """Print the document that is asked for."""
    documents = {"table": settings_table}
    sys.stdout.write(documents[arguments[0]]())


if __name__ == "__main__":
    main(sys.argv[1:])
