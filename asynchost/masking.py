"""URLs that may hold a password, made fit for a log, an error or a screen. Pure text.

May live here: what of a URL is secret. Must not: whether a URL is right, which the edges decide.
"""

import re
from urllib.parse import unquote

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


def without_secrets(text: str, uri: str) -> str:
    """``text`` with ``***`` in place of each password and token that ``uri`` holds.

    For texts of libvirt's, which may repeat the URI, or a part of it, decoded or not.
    """
    text = text.replace(uri, masked_uri(uri))
    for secret in _secrets(uri):
        for form in {secret, unquote(secret)}:
            text = text.replace(form, "***")
    return text


def _secrets(uri: str) -> list[str]:
    """What :func:`masked_uri` leaves out, the longest first; empty values are none."""
    _, separator, rest = uri.partition("://")
    account, at, _ = rest.rpartition("@")
    _, colon, password = account.partition(":")
    found = [password] if separator and at and colon else []
    found += [match[0].partition("=")[2] for match in _SECRET_OPTION.finditer(uri)]
    return sorted(filter(None, found), key=len, reverse=True)


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
