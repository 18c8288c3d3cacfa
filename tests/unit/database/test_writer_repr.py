"""What a writer says of itself before it is entered; the rest of it needs a server."""

from asynchost import ComputeNodeWriter
from asynchost.testing import FakeHost


async def test_a_writer_shows_its_database_and_never_a_password() -> None:
    """How it is and how many hosts it writes."""
    writer = ComputeNodeWriter("mysql://me@db.example.org/nova", password="secret-word")
    assert repr(writer).startswith("<ComputeNodeWriter '")
    assert "me@db.example.org" in repr(writer)
    assert repr(writer).endswith("not entered, 0 attached>")
    assert "secret-word" not in repr(writer)
    writer.attach(FakeHost("a"))
    assert repr(writer).endswith("not entered, 1 attached>")
    await writer.aclose()
    assert "closed" in repr(writer)
