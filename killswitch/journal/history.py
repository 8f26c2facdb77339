"""What the journal remembers that a new order needs: targets seen, drills held, halts open."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from killswitch.journal.store import Body, Event
from killswitch.model import Outcome

ORDERED: Final = "halt.ordered"
COMPLETED: Final = "halt.completed"
RESOLVED: Final = "halt.resolved"
DRILL_ORDERED: Final = "drill.ordered"
DRILL_COMPLETED: Final = "drill.completed"
KEY_ENROLLED: Final = "key.enrolled"
KEY_REMOVED: Final = "key.removed"


class _Target(msgspec.Struct):
    target: str
    outcome: str
    live: bool = False
    attempts: list[object] = []

    @property
    def seen_live(self) -> bool:
        # Only what was live is acted on: also when every reply was lost, or the time ran out.
        return self.live or bool(self.attempts) or self.outcome == Outcome.VERIFIED


class _Result(msgspec.Struct):
    step: str
    system: str
    targets: list[_Target] = []


class _Order(msgspec.Struct):
    id: str
    mode: str = ""
    reason: str = ""


class _Completed(msgspec.Struct):
    order: _Order
    results: list[_Result] = []
    halted: bool = False
    passed: bool = False


@dataclass(frozen=True, slots=True)
class PastHalt:
    """One halt in the journal; `halted` is None when it never reported back."""

    id: str
    ordered_at: str
    halted: bool | None
    resolved: bool


@dataclass(frozen=True, slots=True)
class PastDrill:
    """One completed drill."""

    id: str
    at: datetime
    passed: bool


class History:
    """A journal's events, read for what they say about the past."""

    def __init__(self, events: Iterable[Event]) -> None:
        self._bodies = [body for event in events if (body := _body(event)) is not None]

    def seen(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return, per (step, system), the targets that an earlier run saw live."""
        return self._targets(lambda target: target.seen_live, COMPLETED, DRILL_COMPLETED)

    def ended(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return, per (step, system), the targets that an earlier halt read back as ended."""
        ended = {Outcome.VERIFIED, Outcome.ALREADY}
        return self._targets(lambda target: target.outcome in ended, COMPLETED)

    def last_drill(self) -> PastDrill | None:
        """Return the newest drill that passed; when none did, the newest; or None."""
        drills = [
            PastDrill(completed.order.id, at, completed.passed)
            for body, completed in self._completed(DRILL_COMPLETED)
            if (at := _moment(body.time)) is not None
        ]
        passed = [drill for drill in drills if drill.passed]
        newest = passed or drills
        return newest[-1] if newest else None

    def halts(self) -> list[PastHalt]:
        """Return every halt that was ordered, oldest first."""
        ended = {done.order.id: done.halted for _, done in self._completed(COMPLETED)}
        resolved = {str(body.data.get("halt")) for body in self._of(RESOLVED)}
        return [
            PastHalt(
                id=body.id.removesuffix(".ordered"),
                ordered_at=body.time,
                halted=ended.get(body.id.removesuffix(".ordered")),
                resolved=body.id.removesuffix(".ordered") in resolved,
            )
            for body in self._of(ORDERED)
        ]

    def reports(self) -> list[Body]:
        """Return the events that report on a halt or drill, oldest first."""
        return [body for body, _ in self._completed(COMPLETED, DRILL_COMPLETED)]

    def _targets(
        self, chosen: Callable[[_Target], bool], *types: str
    ) -> Mapping[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for _, completed in self._completed(*types):
            for result in completed.results:
                targets = {target.target for target in result.targets if chosen(target)}
                found.setdefault((result.step, result.system), set()).update(targets)
        return {key: frozenset(targets) for key, targets in found.items()}

    def _of(self, *types: str) -> Iterator[Body]:
        return (body for body in self._bodies if body.type in types)

    def _completed(self, *types: str) -> Iterator[tuple[Body, _Completed]]:
        for body in self._of(*types):
            try:
                yield body, msgspec.convert(body.data, type=_Completed)
            except msgspec.ValidationError:
                continue  # of another version: it is still evidence, only not a memory


def _body(event: Event) -> Body | None:
    try:
        return event.body
    except (msgspec.DecodeError, RecursionError):
        return None  # `journal verify` names it; a halt goes on without it


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
