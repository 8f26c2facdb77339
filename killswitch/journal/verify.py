"""Whether a journal is what it was: every link of the chain, and every touch."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import rfc8785

from killswitch.journal.store import GENESIS, Body, Event, chained

TouchCheck = Callable[[Event], str]
"""Takes in each event in order; returns what is wrong with the touch in it, or nothing."""


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
    bad_seq: int | None = None
    problem: str = ""


def no_touches(_event: Event) -> str:
    """Check the chain alone."""
    return ""


def verify(events: Sequence[Event], check_touch: TouchCheck = no_touches) -> Verdict:
    """Check sequence, bytes, chain and touches of `events` in order; stop at the first fault."""
    prev = GENESIS
    for expected, event in enumerate(events, start=1):
        problem = _fault(event, expected, prev)
        problem = problem or check_touch(event)
        if problem:
            return Verdict(Finding.TAMPERED, len(events), _head(events), event.seq, problem)
        prev = event.hash
    return Verdict(Finding.INTACT, len(events), _head(events))


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
        msgspec.convert(body, type=Body)
        canonical: bytes = rfc8785.dumps(body)
    except (ValueError, RecursionError, msgspec.ValidationError):
        return "its bytes are not an event"
    return "" if canonical == event.raw else "its bytes are not in canonical form"


def _head(events: Sequence[Event]) -> str:
    return events[-1].hash.hex() if events else GENESIS.hex()
