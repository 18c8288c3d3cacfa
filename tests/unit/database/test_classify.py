"""Error codes: each in its class; a server's unlisted code is the statement's."""

import ssl

import pymysql
import pytest

from asynchost.database.classify import Kind, code_of, kind_of, reason_of

# Written down a second time on purpose, as the servers' manuals have them: what a code asks for
# is decided here, not copied from the module.
CLASSES = {
    Kind.CONNECTION: """1040 1042 1043 1047 1053 1077 1079 1129 1152 1158 1159 1160 1161 1184 1203
        1226 1290 1792 1836 1927 2003 2006 2013 2014 2027 2055 3032 4031 9001 9002 9003 9004 9005
        2999""",
    Kind.SAME_CONNECTION: "1020 1180 1205 1213 1317 1969 3024 3101 3572 3989 8002 8022 8028 9007",
    Kind.STATEMENT: "1300 1467 3105 31337",
    Kind.RESOURCES: "3 28 1021 1030 1037 1041 1114",
    Kind.BAD_ROW: "167 1048 1153 1216 1264 1265 1267 1292 1366 1406 1452 1644 3819 3854 3988 4025",
    Kind.RESOLVE: "1062",
    Kind.CONFIGURATION: """1044 1045 1049 1054 1064 1142 1143 1146 1227 1251 1364 1524 1665 1698
        1130 1820 1862 2026 2059 2061 3118 3159 3955 4150 4151""",
}


@pytest.mark.parametrize(
    ("code", "kind"),
    [(int(code), kind) for kind, codes in CLASSES.items() for code in codes.split()],
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
