"""What the journal remembers that a new order needs: targets seen, drills held, halts open."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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
KEYS_ADOPTED: Final = "keys.adopted"
LOOK_ORDERED: Final = "look.ordered"
RECOVERY_SET: Final = "recovery.set"
SECRETS_SET: Final = "secrets.set"
SECRETS_REMOVED: Final = "secrets.removed"
SECRETS_RESEALED: Final = "secrets.resealed"
_OF_THE_BUNDLE: Final = (SECRETS_SET, SECRETS_REMOVED, SECRETS_RESEALED)
HALT_LASTS: Final = timedelta(hours=1)
NO_ANSWER: Final = (
    "no answer within",
    "vault did not answer in time",
    "no connection to vault, or it was cut",
)
"""How the error of an attempt begins that was sent, and may have been done."""


class _Attempt(msgspec.Struct):
    error: str = ""

    @property
    def may_have_been_done(self) -> bool:
        # Answered well, or sent and not answered: what was refused, or never sent, is neither.
        return not self.error or self.error.startswith(NO_ANSWER)


class _Target(msgspec.Struct):
    target: str
    outcome: str
    live: bool = False
    attempts: list[_Attempt] = []

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
    """One halt in the journal; `halted` is None when it never reported back.

    `operator` is whose key ordered it.
    """

    id: str
    ordered_at: str
    halted: bool | None
    resolved: bool
    operator: str = ""


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
        """Return, per (step, system), the targets seen live since the newest resolution.

        A resolution is where a deployment begins anew: what was there before proves nothing.
        """
        return self._targets(lambda target: target.seen_live, COMPLETED, DRILL_COMPLETED)

    def ended(self, now: datetime) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return, per (step, system), the targets that a halt still under way read back as ended.

        Under way: not resolved, and ordered within `HALT_LASTS` of `now`. What was ended longer
        ago says nothing about what was made since.
        """
        ended = {Outcome.VERIFIED, Outcome.ALREADY}
        since = now - HALT_LASTS
        return self._targets(
            lambda target: target.outcome in ended,
            COMPLETED,
            recent=lambda moment: moment is not None and moment >= since,
        )

    def tried(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return, per (step, system), what a halt that is not resolved told to end.

        It was answered well, or not at all: what was refused was not told to end.
        """
        return self._targets(
            lambda target: any(attempt.may_have_been_done for attempt in target.attempts),
            COMPLETED,
        )

    def mentioned(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """Return, per (step, system), every target reported since the newest resolution.

        Whatever became of it, in halts and in drills.
        """
        return self._targets(lambda _target: True, COMPLETED, DRILL_COMPLETED)

    def last_drill(self) -> PastDrill | None:
        """Return the newest completed drill, or None."""
        drills = [
            PastDrill(completed.order.id, at, completed.passed)
            for body, completed in self._completed(DRILL_COMPLETED)
            if (at := _moment(body.time)) is not None
        ]
        return drills[-1] if drills else None

    def halts(self) -> list[PastHalt]:
        """Return every halt that was ordered, oldest first."""
        ended = {done.order.id: done.halted for _, done in self._completed(COMPLETED)}
        resolved = {str(body.data.get("halt")) for body in self._of(RESOLVED)}
        return [
            PastHalt(
                id=body.id.removesuffix(".ordered"),
                operator=_operator(body),
                ordered_at=body.time,
                halted=ended.get(body.id.removesuffix(".ordered")),
                resolved=body.id.removesuffix(".ordered") in resolved,
            )
            for body in self._of(ORDERED)
        ]

    def bundle_sha256(self) -> str | None:
        """Return the hash of the sealed secrets as last written down, or None if never."""
        found = [
            str(body.data["bundle_sha256"])
            for body in self._of(*_OF_THE_BUNDLE)
            if "bundle_sha256" in body.data
        ]
        return found[-1] if found else None

    def reports(self) -> list[Body]:
        """Return the events that report on a halt or drill, oldest first."""
        return [body for body, _ in self._completed(COMPLETED, DRILL_COMPLETED)]

    def _targets(
        self,
        chosen: Callable[[_Target], bool],
        *types: str,
        recent: Callable[[datetime | None], bool] = lambda _moment: True,
    ) -> Mapping[tuple[str, str], frozenset[str]]:
        found: dict[tuple[str, str], set[str]] = {}
        for body, completed in self._completed(*types, RESOLVED):
            if body.type == RESOLVED:
                found.clear()
                continue
            if not recent(_moment(body.time)):
                continue
            for result in completed.results:
                targets = {target.target for target in result.targets if chosen(target)}
                found.setdefault((result.step, result.system), set()).update(targets)
        return {key: frozenset(targets) for key, targets in found.items()}

    def _of(self, *types: str) -> Iterator[Body]:
        return (body for body in self._bodies if body.type in types)

    def _completed(self, *types: str) -> Iterator[tuple[Body, _Completed]]:
        ordered = {(body.type, body.id) for body in self._of(ORDERED, DRILL_ORDERED)}
        for body in self._of(*types):
            if body.type == RESOLVED:
                yield body, _Completed(_Order(""))
                continue
            try:
                completed = msgspec.convert(body.data, type=_Completed)
            except msgspec.ValidationError:
                continue  # of another version: it is still evidence, only not a memory
            order = (body.type.replace(".completed", ".ordered"), f"{completed.order.id}.ordered")
            if order in ordered and body.id == f"{completed.order.id}.completed":
                yield body, completed  # else it reports on an order that nobody signed


def _operator(body: Body) -> str:
    proof = body.data.get("proof")
    return str(proof.get("operator", "")) if isinstance(proof, dict) else ""


def _body(event: Event) -> Body | None:
    try:
        return event.body
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None  # `journal verify` names it; a halt goes on without it


def _moment(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
