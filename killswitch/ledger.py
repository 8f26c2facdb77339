"""What one step has seen and tried, and the verdict that follows: the only place that says so."""

import math

from killswitch.model import (
    VANISHED,
    Action,
    Attempt,
    Blind,
    Clear,
    Note,
    Outcome,
    Plan,
    Receipt,
    StepResult,
    TargetResult,
    worst,
)
from killswitch.verdict import Intent, Record, Sight, judge

NEVER_SEEN = "nothing is there, and nothing was ever seen there"
NO_TARGETS = "the look found nothing that this step answers for"


class Ledger:
    """The book of one step: fed by every look and every answer, also the late ones.

    Args:
        name: the step's kind.
        system: which one of its kind.
        evidence: whether the step only tells or records.
        known: targets that earlier runs saw live; an absence counts only for these.
        origin: when the order was carried out, in the driver's seconds.
    """

    def __init__(
        self, name: str, system: str, *, evidence: bool, known: frozenset[str], origin: float
    ) -> None:
        self.name = name
        self.system = system
        self.evidence = evidence
        self.hurry = False
        """Set when the operator wants no more attempts: look once more, then stop."""
        self.plan: Plan | None = None
        self.look_error = ""
        self.look_error_lasting = False
        self.clean_since: float | None = None
        """When the newest unbroken row of clean looks began, in the driver's seconds."""
        self.looked_since = -math.inf
        """When the newest look that was answered began."""
        self._known = known
        self._origin = origin
        self._records: dict[str, Record] = {}
        self._notes: dict[Note, None] = {}
        self._given_up: set[tuple[str, str]] = set()
        self._looks = 0
        self._started: float | None = None
        self._ended = origin

    # What converge asks.

    @property
    def clean(self) -> bool:
        """True when the newest look saw everything, and everything had ended."""
        return (
            self.plan is not None
            and bool(self._records)
            and all(record.sight is Sight.CLEAR for record in self._records.values())
        )

    @property
    def confirmed(self) -> bool:
        """True when every target was seen ended at as many rests in a row as it takes."""
        records = self._records.values()
        return self.clean and all(record.clear_rests >= self._rests_needed for record in records)

    @property
    def _rests_needed(self) -> int:
        # What decides whether trading is halted is looked at again after a pause; a message's
        # own number needs no second look.
        return 1 if self.evidence else 2

    def shape(self) -> object:
        """Return what is live and blind as a value: a change in it is progress."""
        if self.plan is None:
            return None
        live = tuple((action.key, action.amount) for action in self.plan.live)
        return (live, tuple(blind.target for blind in self.plan.blind))

    def hopeless(self) -> bool:
        """Return True when nothing that is left could change by looking again in a moment."""
        if self.plan is None:
            return self.look_error_lasting
        blind = [record for record in self._records.values() if record.sight is Sight.BLIND]
        return all(record.refused for record in blind)

    def to_do(self) -> list[Action]:
        """Return the live actions that are neither withheld nor given up."""
        if self.plan is None:
            return []
        return [
            action
            for action in self.plan.live
            if not action.withheld and action.key not in self._given_up
        ]

    def give_up(self, action: Action) -> None:
        """Leave `action` alone until the next settling."""
        self._given_up.add(action.key)

    def forgive(self) -> None:
        """Try everything again: a new settling begins."""
        self._given_up.clear()

    # What the drivers feed.

    def looked(self, plan: Plan, *, started: float, ended: float) -> None:
        """Take in one look that answered."""
        self._time(started, ended)
        self._looks += 1
        self.looked_since = started
        self.plan = plan
        self.look_error = ""
        for note in plan.notes:
            self._notes.setdefault(note)
        mentioned = {action.target for action in plan.live}
        mentioned |= {clear.target for clear in plan.clear}
        for clear in plan.clear:
            self._see_clear(clear)
        for blind in plan.blind:
            self._see_blind(blind, mentioned)
        for action in plan.live:
            self._see_live(action)
        self._see_vanished(mentioned, plan.blind)
        if not self.clean:
            self.clean_since = None
        elif self.clean_since is None:
            self.clean_since = ended

    def look_failed(self, problem: str, *, lasting: bool, started: float, ended: float) -> None:
        """Take in one look that saw nothing at all: every target is blind now."""
        self._time(started, ended)
        self._looks += 1
        self.clean_since = None
        self.plan = None
        self.look_error = problem
        self.look_error_lasting = lasting
        for record in self._records.values():
            self._turn_blind(record, problem, lasting=lasting)

    def acted(self, action: Action, receipt: Receipt, *, started: float, ended: float) -> None:
        """Take in one answer to an action."""
        self._time(started, ended)
        record = self._records[action.target]
        record.acted = True
        record.broke = ""
        record.refused = False
        record.attempts.append(
            Attempt(
                verb=action.verb,
                started_s=started - self._origin,
                ended_s=ended - self._origin,
                summary=receipt.summary,
                evidence=dict(receipt.evidence),
            )
        )

    def act_failed(
        self, action: Action, problem: str, *, lasting: bool, started: float, ended: float
    ) -> None:
        """Take in one action that was refused, or that got no answer."""
        self._time(started, ended)
        record = self._records[action.target]
        record.broke = problem
        record.refused = lasting
        if lasting:
            self.give_up(action)
        record.attempts.append(
            Attempt(
                verb=action.verb,
                started_s=started - self._origin,
                ended_s=ended - self._origin,
                error=problem,
            )
        )

    def doubt(self) -> None:
        """Take back what was confirmed: it was seen too early."""
        for record in self._records.values():
            record.clear_rests = min(record.clear_rests, 1)

    def rested(self) -> None:
        """Take note that the step came to rest: a second clean rest confirms the first."""
        for record in self._records.values():
            clear = record.sight is Sight.CLEAR
            record.clear_rests = record.clear_rests + 1 if clear else 0

    # The verdict.

    def result(self, intent: Intent) -> StepResult:
        """Return what is known now; right at any moment, also in the middle of a look."""
        targets = [
            judge(record, intent, rests_needed=self._rests_needed)
            for record in self._records.values()
        ]
        error = self.look_error
        if not targets:
            error = error or ("not looked at in time" if self._looks == 0 else NO_TARGETS)
            targets = [
                TargetResult(target=self.system, outcome=Outcome.FAILED, saw=error, live=False)
            ]
        started = self._origin if self._started is None else self._started
        return StepResult(
            step=self.name,
            system=self.system,
            evidence=self.evidence,
            outcome=worst([target.outcome for target in targets]),
            targets=tuple(targets),
            error=error,
            notes=tuple(self._notes),
            looks=self._looks,
            started_s=started - self._origin,
            ended_s=self._ended - self._origin,
            verified_s=None if self.clean_since is None else self.clean_since - self._origin,
        )

    # How a look changes the records.

    def _record(self, target: str) -> Record:
        if target not in self._records:
            self._records[target] = Record(
                target=target, sight=Sight.BLIND, saw="", known=target in self._known
            )
        return self._records[target]

    def _see_live(self, action: Action) -> None:
        record = self._record(action.target)
        if record.sight is not Sight.LIVE:
            record.broke = ""
        record.sight = Sight.LIVE
        record.saw = action.withheld or f"still live: {action.verb}"
        record.withheld = action.withheld
        record.known = record.seen_live = True
        record.acted = False
        record.clear_rests = 0

    def _see_clear(self, clear: Clear) -> None:
        record = self._record(clear.target)
        if clear.only_if_known and not record.known:
            self._turn_blind(record, f"{clear.saw}; {NEVER_SEEN}", lasting=True)
            return
        record.sight = Sight.CLEAR
        record.saw = clear.saw
        record.withheld = ""

    def _see_blind(self, blind: Blind, mentioned: set[str]) -> None:
        own = self._record(blind.target)
        self._turn_blind(own, blind.reason, lasting=blind.lasting)
        for record in self._records.values():
            if record.target not in mentioned and hides(blind.target, record.target):
                self._turn_blind(record, blind.reason, lasting=blind.lasting)

    def _see_vanished(self, mentioned: set[str], blind: tuple[Blind, ...]) -> None:
        hidden = {part.target for part in blind}
        for record in self._records.values():
            if record.target in mentioned or any(hides(path, record.target) for path in hidden):
                continue
            # Only what this run saw live may vanish; a part that was never seen stays blind.
            if record.seen_live:
                record.sight = Sight.CLEAR
                record.saw = VANISHED
                record.withheld = ""

    def _turn_blind(self, record: Record, reason: str, *, lasting: bool) -> None:
        record.sight = Sight.BLIND
        record.saw = reason
        record.refused = lasting
        record.clear_rests = 0

    def _time(self, started: float, ended: float) -> None:
        self._started = started if self._started is None else min(self._started, started)
        self._ended = max(self._ended, ended)


def hides(path: str, target: str) -> bool:
    """Return True when a blind `path` hides `target`: the same, or above it."""
    return path in {"", target} or target.startswith(f"{path}/")
