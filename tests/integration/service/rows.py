"""Looking into a private database with plain PyMySQL: nothing of ours is between."""

from typing import Any

import pymysql

from asynchost.database.private_server import PrivateMariaDB


class Database:
    """One database of a private server. Every call is a connection of its own and blocks, for
    about a millisecond."""

    def __init__(self, server: PrivateMariaDB, name: str) -> None:
        self.server = server
        self.name = name

    def url(self, user: str | None = None) -> str:
        """Its URL, for the server's own account or another one."""
        return self.server.url(self.name, user=user)

    def execute(self, *statements: str, within: str | None = None) -> list[dict[str, Any]]:
        """Carry out statements, and return the last one's rows."""
        connection = pymysql.connect(
            unix_socket=str(self.server.socket),
            user=self.server.user,
            database=within or self.name,
            cursorclass=pymysql.cursors.DictCursor,
            autocommit=True,
        )
        with connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def rows(self) -> list[dict[str, Any]]:
        """All rows of ``compute_nodes``."""
        return self.execute("SELECT * FROM compute_nodes ORDER BY id")

    def row(self) -> dict[str, Any] | None:
        """The only row; None while there is none."""
        rows = self.rows()
        assert len(rows) < 2, rows
        return rows[0] if rows else None
