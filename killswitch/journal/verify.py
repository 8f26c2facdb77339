"""Whether a journal is what it was: every link of the chain, and every touch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import rfc8785

from killswitch.journal.store import GENESIS, Event, chained

TouchCheck = Callable[[Event], str]
"""Return what is wrong with the touch that an order's event holds, or nothing."""


class Finding(StrEnum):
    """What a check of the journal found."""

    INTACT = "intact"
    TAMPERED = "tampered"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a check: where the first fault is, and what was expected and found there."""

    finding: Finding
    size: int
    head: str
    touches: int = 0
    bad_seq: int | None = None
    problem: str = ""


def verify(events: Sequence[Event], check_touch: TouchCheck | None = None) -> Verdict:
    """Check sequence, bytes, chain and touches of `events` in order; stop at the first fault."""
    prev = GENESIS
    touches = 0
    for expected, event in enumerate(events, start=1):
        problem = _fault(event, expected, prev)
        if not problem and check_touch is not None and _holds_touch(event):
            problem = check_touch(event)
            touches += 1
        if problem:
            return Verdict(
                Finding.TAMPERED, len(events), _head(events), touches, event.seq, problem
            )
        prev = event.hash
    return Verdict(Finding.INTACT, len(events), _head(events), touches)


def _fault(event: Event, expected: int, prev: bytes) -> str:
    if event.seq != expected:
        return f"expected event {expected}, found event {event.seq}"
    if event.prev != prev:
        return f"expected previous hash {prev.hex()[:16]}, found {event.prev.hex()[:16]}"
    digest = chained(event.prev, event.raw)
    if event.hash != digest:
        return f"expected hash {digest.hex()[:16]}, found {event.hash.hex()[:16]}"
    try:
        body = json.loads(event.raw)
        msgspec.convert(body, type=dict[str, object])
        canonical: bytes = rfc8785.dumps(body)
    except (ValueError, msgspec.ValidationError, rfc8785.CanonicalizationError):
        return "its bytes are not an event"
    return "" if canonical == event.raw else "its bytes are not in canonical form"


def _holds_touch(event: Event) -> bool:
    return "proof" in event.body.data


def _head(events: Sequence[Event]) -> str:
    return events[-1].hash.hex() if events else GENESIS.hex()
