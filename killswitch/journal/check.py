"""The whole check of a journal: the chain, and every touch in it."""

from collections.abc import Sequence

from killswitch.journal.store import Event
from killswitch.journal.touches import TouchBook
from killswitch.journal.verify import Verdict, verify


def check(events: Sequence[Event]) -> tuple[Verdict, int]:
    """Check chain and touches, each against the key enrolled at that time; count those."""
    book = TouchBook()
    return verify(events, book.check), book.count
