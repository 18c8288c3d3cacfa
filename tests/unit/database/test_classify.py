"""Error codes: each in its class, and whatever is not known means to reconnect."""

import ssl

import pymysql
import pytest

from asynchost.database.classify import Kind, code_of, kind_of, reason_of


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (2013, Kind.CONNECTION),
        (1040, Kind.CONNECTION),
        (1290, Kind.CONNECTION),
        (9005, Kind.CONNECTION),
        (1205, Kind.SAME_CONNECTION),
        (1213, Kind.SAME_CONNECTION),
        (1114, Kind.RESOURCES),
        (1264, Kind.BAD_ROW),
        (1406, Kind.BAD_ROW),
        (1267, Kind.BAD_ROW),
        (3988, Kind.BAD_ROW),
        (1062, Kind.RESOLVE),
        (1045, Kind.CONFIGURATION),
        (1146, Kind.CONFIGURATION),
        (31337, Kind.CONNECTION),
    ],
)
def test_a_code_has_its_kind(code: int, kind: Kind) -> None:
    """By the integer alone, whatever class the driver gave it."""
    for error in (pymysql.err.OperationalError, pymysql.err.InternalError):
        assert kind_of(error(code, "text")) is kind


@pytest.mark.parametrize(
    "error",
    [
        pymysql.err.InterfaceError("(0, 'Not connected')"),
        pymysql.err.InterfaceError(0, ""),
        pymysql.err.OperationalError(),
        TimeoutError(),
        ConnectionResetError(104, "reset"),
    ],
)
def test_an_error_without_a_code_means_to_reconnect(error: Exception) -> None:
    """Strings, errnos and nothing at all are no codes."""
    assert code_of(error) is None
    assert kind_of(error) is Kind.CONNECTION


def test_a_refused_certificate_is_not_a_server_that_is_down() -> None:
    """aiomysql says 2003 for both; the cause tells."""
    error = pymysql.err.OperationalError(2003, "Can't connect")
    error.__cause__ = ssl.SSLCertVerificationError("unable to get local issuer certificate")
    assert kind_of(error) is Kind.CONFIGURATION


def test_the_reason_is_one_line_with_what_the_system_said() -> None:
    """The driver's text hides it in the cause."""
    error = pymysql.err.OperationalError(2003, "Can't connect\nto MySQL server")
    error.__cause__ = FileNotFoundError(2, "No such file or directory")
    assert reason_of(error) == "Can't connect to MySQL server (No such file or directory)"
