"""Database URLs: every form is read, every mistake named, no password shown."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynchost.database.tls import Mode, Tls
from asynchost.database.url import DatabaseUrl, Endpoint, holds_password
from asynchost.errors import InvalidSettingError
from asynchost.masking import masked


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mysql://u@h/db", DatabaseUrl("u", (Endpoint("h", 3306),), "db")),
        ("mariadb://u@h:3307/db", DatabaseUrl("u", (Endpoint("h", 3307),), "db")),
        ("mysql://u:p@h/db", DatabaseUrl("u", (Endpoint("h", 3306),), "db", password="p")),
        ("mysql://u:@h/db", DatabaseUrl("u", (Endpoint("h", 3306),), "db", password="")),
        (
            "mysql://u%40x:p%2Fw@h/d%25b",
            DatabaseUrl("u@x", (Endpoint("h", 3306),), "d%b", password="p/w"),
        ),
        ("mysql://u@[::1]:33/db", DatabaseUrl("u", (Endpoint("::1", 33),), "db")),
        (
            "mysql://u@localhost/db?unix_socket=/run/a%20b.sock",
            DatabaseUrl("u", (Endpoint("localhost", 3306),), "db", "/run/a b.sock"),
        ),
        (
            "mysql://u@a,[::1]:33,B:7/db",
            DatabaseUrl("u", (Endpoint("a"), Endpoint("::1", 33), Endpoint("b", 7)), "db"),
        ),
        (
            "mysql://u@h/db?ssl_mode=required",
            DatabaseUrl("u", (Endpoint("h"),), "db", tls=Tls(Mode.REQUIRED)),
        ),
        (
            "mysql://u@h/db?ssl_ca=/a%20b.pem&ssl_cert=/c.pem&ssl_key=/k.pem",
            DatabaseUrl(
                "u", (Endpoint("h"),), "db", tls=Tls(ca="/a b.pem", cert="/c.pem", key="/k.pem")
            ),
        ),
        (
            "mysql://u@h/db?server_public_key=/k%20y.pem",
            DatabaseUrl("u", (Endpoint("h"),), "db", server_public_key="/k y.pem"),
        ),
        (
            "mysql://u@h/db?fetch_server_public_key=1",
            DatabaseUrl("u", (Endpoint("h"),), "db", fetches_public_key=True),
        ),
        ("mysql://u@h/db?fetch_server_public_key=0", DatabaseUrl("u", (Endpoint("h"),), "db")),
        ("mysql://u@h/db?ssl_mode=DISABLED", DatabaseUrl("u", (Endpoint("h"),), "db")),
        (
            "mysql://u@/db?unix_socket=/s",
            DatabaseUrl("u", (Endpoint("localhost", 3306),), "db", "/s"),
        ),
    ],
)
def test_a_url_is_read(text: str, expected: DatabaseUrl) -> None:
    """Scheme, account, place, database, socket; percent-encoding undone."""
    assert DatabaseUrl.parse(text) == expected
    assert DatabaseUrl.parse(str(expected), password=expected.password) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("postgresql://u@h/db", "the scheme must be mysql"),
        ("u@h/db", "the scheme must be mysql"),
        ("mysql://h/db", "it names no user"),
        ("mysql://u@/db", "it names no host"),
        ("mysql://u@h", "it names no database"),
        ("mysql://u@h/", "it names no database"),
        ("mysql://u@h/a/b", "it names no database"),
        ("mysql://u@h:0/db", "a port is a number from 1 to 65535"),
        ("mysql://u@h:65536/db", "a port is a number from 1 to 65535"),
        ("mysql://u@h:abc/db", "a port is a number from 1 to 65535"),
        ("mysql://u@[::1/db", "it is malformed"),
        ("mysql://u@h1,,h2/db", "it names no host"),
        ("mysql://u@a..b/db", "'a..b' is no host's name"),
        ("mysql://u@h1,h2:x/db", "a port is a number from 1 to 65535"),
        ("mysql://u@h1,h1:3306/db", "it names h1:3306 more than once"),
        ("mysql://u@h/db#x", "a # must be written %23"),
        ("mysql://u@h/db?charset=x", "the option 'charset' is unknown"),
        ("mysql://u@h/db?unix_socket=relative", "unix_socket must be an absolute path"),
    ],
)
def test_a_mistake_is_named_with_the_way_out(text: str, reason: str) -> None:
    """One line: the value, what is wrong, what to give instead."""
    with pytest.raises(InvalidSettingError) as caught:
        DatabaseUrl.parse(text)
    message = str(caught.value)
    assert text in message
    assert reason in message
    assert "give mysql://user@host:port/database" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("ssl_mode=PREFERRED", "one of DISABLED, REQUIRED, VERIFY_CA, VERIFY_IDENTITY"),
        ("ssl_mode=DISABLED&ssl_ca=/ca", "ssl_mode is DISABLED, yet it gives ssl_ca"),
        ("ssl_mode=REQUIRED&ssl_ca=/ca", "REQUIRED checks no certificate"),
        ("ssl_key=/key", "ssl_key is of no use without ssl_cert"),
        ("ssl_ca=ca.pem", "ssl_ca must be an absolute path"),
        ("ssl_ca=/a&ssl_ca=/b", "the option 'ssl_ca' is given twice"),
        ("server_public_key=key.pem", "server_public_key must be an absolute path"),
        ("fetch_server_public_key=yes", "fetch_server_public_key must be 0 or 1"),
        ("server_public_key=/k&fetch_server_public_key=1", "is of no use beside"),
        ("unix_socket=/s&ssl_mode=REQUIRED", "a unix socket needs no TLS: leave out ssl_mode"),
    ],
)
def test_tls_that_cannot_be_meant_is_refused(query: str, reason: str) -> None:
    """Rather than to be read as less than was asked for."""
    with pytest.raises(InvalidSettingError, match=reason):
        DatabaseUrl.parse(f"mysql://u@h/db?{query}")


def test_a_password_beside_the_url_is_used_where_it_holds_none() -> None:
    """The URL's own password wins."""
    assert DatabaseUrl.parse("mysql://u@h/db", password="x").password == "x"
    assert DatabaseUrl.parse("mysql://u:own@h/db", password="x").password == "own"


def test_neither_text_shows_the_password() -> None:
    """Not str, not repr."""
    url = DatabaseUrl.parse("mysql://u:hidden@h/db")
    assert "hidden" not in f"{url} {url!r}"
    assert str(url) == "mysql://u@h/db"


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u:hidden@h/db",
        "mysql://u:hid/hidden@h/db",
        "mysql://u:hid@hidden@h/db",
        "mysql://u:hid#hidden@h:x/db",
        "mysql://u:hid://hidden@h/db",
        "mysql://u:hidden/db",
        "u:hidden@h/db",
        "bogus://u:hidden@h/db",
        "mysql://u@h/db?password=hidden",
        "mysql://u@h/db?x=1&passwd=hidden",
    ],
)
def test_a_password_is_seen_and_masked_also_where_the_url_is_malformed(text: str) -> None:
    """Such a URL is kept off every screen, the error's included."""
    assert holds_password(text)
    assert "hidden" not in masked(text)
    with contextlib.suppress(InvalidSettingError):
        assert "hidden" not in str(DatabaseUrl.parse(text))


def test_a_refused_password_is_nowhere_in_the_error() -> None:
    """Nor in any error that is attached to it."""
    with pytest.raises(InvalidSettingError) as caught:
        DatabaseUrl.parse("mysql://user:hidden/db")
    error = caught.value
    assert "hidden" not in f"{error} {error!r} {error.value} {error.__context__}"


@pytest.mark.parametrize(
    "text",
    [
        "mysql://u@h/db",
        "mysql://u@h:3306/db",
        "mysql://u@[::1]/db",
        "mysql://u@h/db?unix_socket=/s",
    ],
)
def test_a_url_without_a_password_is_left_as_it_is(text: str) -> None:
    """A port or an address in brackets is not taken for one."""
    assert not holds_password(text)
    assert masked(text) == text


@pytest.mark.parametrize("text", ["mysql://u\udcff@h/db", "mysql://u@h/db?ssl_ca=/\udcff"])
def test_bytes_that_are_no_text_are_refused(text: str) -> None:
    """Python hands them on as surrogates; they are shown escaped."""
    with pytest.raises(InvalidSettingError, match="it holds bytes that are no UTF-8") as refused:
        DatabaseUrl.parse(text)
    assert "\\udcff" in str(refused.value)


def test_a_password_may_be_any_bytes() -> None:
    """The server decides what it was set to."""
    assert DatabaseUrl.parse("mysql://u:\udcff@h/db").password == "\udcff"


# Bytes of a command line that are no UTF-8 are surrogates in Python.
@given(st.text() | st.text(st.sampled_from("mysql://u:@h,b?=&%\udcff")).map("mysql://".__add__))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Nothing but InvalidSettingError comes out of the parser, and what it read can be shown."""
    with contextlib.suppress(InvalidSettingError):
        str(DatabaseUrl.parse(text)).encode()
