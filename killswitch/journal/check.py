"""The whole check of a journal: the chain, every touch in it, and a head kept elsewhere."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from killswitch.authority.recovery import RecoveryRecord
from killswitch.authority.ring import EnrolledKey
from killswitch.journal.store import Event
from killswitch.journal.touches import TouchBook
from killswitch.journal.verify import Finding, Verdict, verify


class Checked(NamedTuple):
    """What a check found: the verdict, the good touches, and who may act at the end.

    `recovery` is the recovery phrase that counts at the end.
    """

    verdict: Verdict
    touches: int
    keys: tuple[EnrolledKey, ...]
    recovery: RecoveryRecord | None = None


def check(
    events: Sequence[Event], keys: Sequence[EnrolledKey] = (), *, anchor: str = ""
) -> Checked:
    """Check chain and touches, each against the key enrolled at that time; count the touches.

    `keys` are known to be enrolled though this journal does not tell of it. `anchor` is a head
    that was kept elsewhere, "SIZE:HASH", the hash perhaps cut short: it must be in the chain.
    """
    book = TouchBook(keys)
    verdict = verify(events, book.check)
    if anchor and verdict.finding is Finding.INTACT:
        problem = _missing(events, anchor)
        if problem:
            verdict = replace(verdict, finding=Finding.TAMPERED, problem=problem)
    return Checked(verdict, book.count, book.keys, book.recovery)


def _missing(events: Sequence[Event], anchor: str) -> str:
    size, _, digest = anchor.partition(":")
    if not (size.isascii() and size.isdigit() and digest):
        return f"{anchor!r} is not a head: SIZE:HASH"
    number = int(size)
    if number > len(events):
        return f"{number} events were seen elsewhere, {len(events)} are left"
    if number and not events[number - 1].hash.hex().startswith(digest.lower()):
        return f"event {number} is another one than was seen elsewhere"
    return ""
