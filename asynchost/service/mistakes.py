"""Values with where they were given, and all that is wrong with them, told together.

Pure. May live here: how a value and a mistake are shown. Must not: what is right.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from asynchost.errors import ConfigurationError
from asynchost.masking import masked, masked_uri

E = TypeVar("E", bound=Exception)

_LONGEST_SHOWN: Final = 120
"""Characters of a value in an error."""


class Given(NamedTuple):
    """One value that somebody gave."""

    fields: Mapping[str, Any]
    """What it sets."""
    text: object
    """As it was given: a text, or a value of a configuration file."""
    where: str
    """``--option``, ``VARIABLE``, or ``FILE:LINE: key``."""


class MistakesError(ConfigurationError):
    """Several things that a person must mend."""

    def __init__(self, mistakes: Sequence[ConfigurationError]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = tuple(mistakes)

    @classmethod
    def raise_for(cls, mistakes: Sequence[ConfigurationError]) -> None:
        """Raise the mistake where there is one, all of them together where there are several."""
        if len(mistakes) == 1:
            raise mistakes[0]
        if mistakes:
            raise cls(mistakes)


def all_of(error: E) -> "Sequence[E | ConfigurationError]":
    """The single mistakes that an error consists of."""
    return error.mistakes if isinstance(error, MistakesError) else (error,)


class Shown:
    """A value of a file in an error: short, and without a password."""

    def __init__(self, value: object) -> None:
        text = repr(_without_secrets(value))
        if len(text) > _LONGEST_SHOWN:
            half = _LONGEST_SHOWN // 2
            text = f"{text[:half]}…{text[-half:]}"
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _without_secrets(value: object, depth: int = 3) -> object:
    if isinstance(value, str):
        # Both ways: a value in the wrong place may be a URL of either kind.
        return masked(value) if "://" in value else masked_uri(value)
    if isinstance(value, list | dict) and depth == 0:
        return "…"
    if isinstance(value, list):
        return [_without_secrets(one, depth - 1) for one in value[:_LONGEST_SHOWN]]
    if isinstance(value, dict):
        return {str(key): "…" for key in value}
    return value
