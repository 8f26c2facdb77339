"""What became of one target, judged from its record: the only place that says `verified`."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from killswitch.model import Attempt, Outcome, TargetResult

LOOKED_ONCE = "ended, not yet looked at again"


class Intent(StrEnum):
    """What the engine does with a plan's actions."""

    PERFORM = "perform"
    REHEARSE = "rehearse"
    LOOK = "look"


class Sight(StrEnum):
    """How a target was seen last."""

    LIVE = "live"
    BLIND = "blind"
    CLEAR = "clear"


@dataclass(slots=True)
class Record:
    """One target's story so far."""

    target: str
    sight: Sight
    saw: str
    known: bool
    """Whether an earlier run, or this one, saw it live: only then is an absence evidence."""
    seen_live: bool = False
    """Whether this run saw it live: only then may it simply vanish."""
    withheld: str = ""
    acted: bool = False
    """Whether an action on it was answered well since it was last seen."""
    broke: str = ""
    """The error of the newest action on it, or nothing."""
    refused: bool = False
    clear_rests: int = 0
    """At how many rests in a row it was clear."""
    attempts: list[Attempt] = field(default_factory=list)


def judge(record: Record, intent: Intent, *, rests_needed: int) -> TargetResult:
    """Return the verdict on one target as it is known now."""
    match intent:
        case Intent.PERFORM:
            outcome, saw = _performed(record, rests_needed)
        case Intent.REHEARSE:
            outcome, saw = _rehearsed(record)
        case Intent.LOOK:
            outcome, saw = _looked_at(record)
        case _:
            assert_never(intent)
    return TargetResult(
        target=record.target,
        outcome=outcome,
        saw=saw,
        live=record.sight is Sight.LIVE and not record.acted,
        attempts=tuple(record.attempts),
    )


def _performed(record: Record, rests_needed: int) -> tuple[Outcome, str]:
    if record.sight is Sight.CLEAR:
        if record.clear_rests < rests_needed:
            return Outcome.SENT, LOOKED_ONCE
        # Live in this run and ended now: also when every reply to what ended it was lost.
        return (Outcome.VERIFIED if record.seen_live else Outcome.ALREADY), record.saw
    if record.acted:
        return Outcome.SENT, record.saw if record.sight is Sight.BLIND else "sent, not read back"
    if record.sight is Sight.BLIND:
        return Outcome.UNKNOWN, record.saw
    if record.withheld:
        return Outcome.SKIPPED, record.withheld
    return Outcome.FAILED, record.broke or record.saw


def _rehearsed(record: Record) -> tuple[Outcome, str]:
    if record.sight is Sight.CLEAR:
        return Outcome.ALREADY, record.saw
    if record.sight is Sight.BLIND:
        return Outcome.UNKNOWN, record.saw
    if record.broke:
        return Outcome.FAILED, record.broke
    if record.acted:
        return Outcome.REHEARSED, record.attempts[-1].summary
    return Outcome.UNKNOWN, "not rehearsed in time"


def _looked_at(record: Record) -> tuple[Outcome, str]:
    if record.sight is Sight.CLEAR:
        return Outcome.ALREADY, record.saw
    if record.sight is Sight.BLIND:
        return Outcome.UNKNOWN, record.saw
    return Outcome.SKIPPED, record.saw
