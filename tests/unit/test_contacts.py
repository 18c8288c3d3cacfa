"""What libvirt was heard of last, and when."""

from asynchost.contacts import Contacts


def test_an_age_grows_by_the_clock_and_each_kind_is_a_contact() -> None:
    """Unknown is None, and never 0."""
    now = 10.0
    contacts = Contacts(lambda: now)
    assert contacts.age("contact") is None
    contacts.heard("event")
    now = 12.5
    assert (contacts.age("event"), contacts.age("contact")) == (2.5, 2.5)
    contacts.heard(reads=3)
    assert (contacts.age("event"), contacts.age("contact")) == (2.5, 0)
    assert (contacts.age("audit"), contacts.reads) == (None, 3)
