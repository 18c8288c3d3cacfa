"""URLs that may hold a password, made fit for a log, an error or a screen. Pure text.

May live here: what of a URL is secret. Must not: whether a URL is right, which the edges decide.
"""

import re

_SECRET_OPTION = re.compile(
    r"(?<=[?&])((?:[^=&#]*)(?:pass|pwd|secret|token)[^=&#]*)=[^&#]*", re.IGNORECASE
)
_SECRET_KEY = re.compile(r"pass|pwd|secret|token|credential", re.IGNORECASE)


def masked(url: str) -> str:
    """The URL with ``***`` where a password stands or seems to stand, malformed or not.

    Text that is no URL comes back unchanged.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    # Up to the last @: a password may hold another @, or a slash, unencoded.
    account, at, place = rest.rpartition("@")
    user, colon, _ = account.partition(":")
    if colon:
        account = f"{user}:***"
    elif not at:
        place = _mask_port(place)
    return _SECRET_OPTION.sub(r"\1=***", f"{scheme}{separator}{account}{at}{place}")


def masked_uri(uri: str) -> str:
    """The same for a libvirt URI, which may do without ``//``, as ``test:default`` does."""
    return masked(uri) if "://" in uri else _SECRET_OPTION.sub(r"\1=***", uri)


def names_secret(key: str) -> bool:
    """Whether the value of a key with this name is likely to be a secret."""
    return _SECRET_KEY.search(key) is not None


def _mask_port(place: str) -> str:
    """In ``user:password/database``, whose host was forgotten, the password poses as the port."""
    authority = re.split(r"[/?#]", place, maxsplit=1)[0]
    name, colon, port = authority.rpartition(":")
    if colon and not port.isdecimal() and not port.endswith("]"):
        return f"{name}:***{place[len(authority) :]}"
    return place
