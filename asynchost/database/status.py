"""How a writer is doing, for whoever shows it."""

from dataclasses import dataclass

from asynchost.plain import PlainRecord


@dataclass(frozen=True, slots=True)
class WriterStatus(PlainRecord):
    """A writer's hosts and what has befallen their rows, at one moment."""

    hosts: int
    """How many are attached."""
    owned: int
    """Of how many the row is ours."""
    dirty: int
    """How many rows differ, or may differ, from what their hosts are."""
    standing_by: int
    """Of how many the row is another agent's, and waited for."""
    given_up: int
    """How many are no longer written: fenced, or refused."""
    foreign_edits: int
    """How often a row was found changed or deleted by others, each standing change once."""
    refused: int = 0
    """Of how many nothing is written for now: the database takes the row from nobody. Their guards
    say so."""
    partial: int = 0
    """Of how many rows some columns are left out, because the database refuses their values or
    another program insists on its own. Their guards say so."""
