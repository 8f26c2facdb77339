"""One step under way: turns what `converge` asks into calls, and answers into the ledger."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import assert_never

from killswitch.converge import Do, Limits, Look, Pause, Rest, converge
from killswitch.errors import VendorError
from killswitch.ledger import Ledger
from killswitch.model import Action, Plan, Receipt, Step, StepResult
from killswitch.secret import redact
from killswitch.verdict import Intent


@dataclass(frozen=True, slots=True)
class Call:
    """One blocking call for the driver to make; `label` names it for people."""

    id: int
    label: str
    run: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Done:
    """What came back from a call: a value or an error, with the driver's times."""

    id: int
    value: object
    error: Exception | None
    started: float
    ended: float


class State(StrEnum):
    """Where a task stands."""

    WORKING = "working"
    RESTING = "resting"
    ENDED = "ended"


class Task:
    """Drives one step's `converge`; pure: it is told the time and starts nothing itself."""

    def __init__(
        self,
        step: Step,
        intent: Intent,
        limits: Limits,
        *,
        known: frozenset[str],
        ids: Iterator[int],
        origin: float,
    ) -> None:
        self.ledger = Ledger(
            step.name, step.system, evidence=step.evidence, known=known, origin=origin
        )
        self.state = State.WORKING
        self.wake = math.inf
        """When the task wants to be woken although nothing came back."""
        self.rests = 0
        self.rested_at = origin
        self._step = step
        self._intent = intent
        self._ids = ids
        self._flow = converge(intent, self.ledger, limits)
        self._calls: dict[int, Action | None] = {}
        """Every call that was started and has not come back; None is a look."""
        self._waiting: set[int] = set()
        """Those of them that the flow waits for; the others are late."""
        self._asked_at = origin

    def start(self, now: float) -> list[Call]:
        """Begin; return the first calls to make."""
        return self._advance(now, first=True)

    def resume(self, now: float) -> list[Call]:
        """Go on after a rest."""
        self.state = State.WORKING
        return self._advance(now)

    def owns(self, call_id: int) -> bool:
        """Return True when `call_id` was started by this task."""
        return call_id in self._calls

    def done(self, event: Done) -> list[Call]:
        """Take in what came back from a call; a late answer is booked, never lost."""
        action = self._calls.pop(event.id)
        waited_for = event.id in self._waiting
        if action is not None:
            self._book_action(action, event)
        elif waited_for:
            self._book_look(event)
        self._waiting.discard(event.id)
        if waited_for and not self._waiting and self.state is State.WORKING:
            return self._advance(event.ended)
        return []

    def tick(self, now: float) -> list[Call]:
        """Go on when a pause or a budget is over."""
        if self.state is not State.WORKING or now < self.wake:
            return []
        return self._stop_waiting(now)

    def hurry(self, now: float) -> list[Call]:
        """Make no more attempts: cut a pause short, look once more, then rest."""
        self.ledger.hurry = True
        pausing = self.state is State.WORKING and not self._waiting
        return self._stop_waiting(now) if pausing else []

    def close(self, now: float) -> None:
        """End for good; what is under way may still be booked.

        That an action was begun must be in the report: a later run may have to know it.
        """
        self._flow.close()
        waited_s = now - self._asked_at
        for call_id in sorted(self._waiting):
            if (action := self._calls[call_id]) is not None:
                problem = f"no answer within {waited_s:.1f} s"
                self.ledger.act_failed(
                    action, problem, lasting=False, started=self._asked_at, ended=now
                )
        self._waiting.clear()
        self.state = State.ENDED
        self.wake = math.inf

    def result(self) -> StepResult:
        """Return the verdict on what is known now."""
        return self.ledger.result(self._intent)

    def _stop_waiting(self, now: float) -> list[Call]:
        waited_s = now - self._asked_at
        for call_id in sorted(self._waiting):
            action = self._calls[call_id]
            problem = f"no answer within {waited_s:.1f} s"
            if action is None:
                self.ledger.look_failed(problem, lasting=False, started=self._asked_at, ended=now)
            else:
                self.ledger.act_failed(
                    action, problem, lasting=False, started=self._asked_at, ended=now
                )
        self._waiting.clear()
        return self._advance(now)

    def _advance(self, now: float, *, first: bool = False) -> list[Call]:
        self._asked_at = now
        self.wake = math.inf
        try:
            ask = next(self._flow) if first else self._flow.send(now)
        except StopIteration:
            self.state = State.ENDED
            return []
        match ask:
            case Look(budget_s):
                self.wake = now + budget_s
                return [self._call(None, "look", self._step.plan)]
            case Do(actions, budget_s):
                self.wake = now + budget_s
                return [self._call(action, action.verb, self._deed(action)) for action in actions]
            case Pause(seconds):
                self.wake = now + seconds
            case Rest():
                self.state = State.RESTING
                self.rests += 1
                self.rested_at = now
            case _:
                assert_never(ask)
        return []

    def _deed(self, action: Action) -> Callable[[], Receipt]:
        return action.rehearse if self._intent is Intent.REHEARSE else action.perform

    def _call(self, action: Action | None, label: str, run: Callable[[], object]) -> Call:
        call_id = next(self._ids)
        self._calls[call_id] = action
        self._waiting.add(call_id)
        return Call(call_id, f"{self._step.name} {self._step.system}: {label}", partial(run))

    def _book_look(self, event: Done) -> None:
        if isinstance(event.value, Plan):
            self.ledger.looked(event.value, started=event.started, ended=event.ended)
            return
        problem, lasting = _explain(event)
        self.ledger.look_failed(problem, lasting=lasting, started=event.started, ended=event.ended)

    def _book_action(self, action: Action, event: Done) -> None:
        if isinstance(event.value, Receipt):
            self.ledger.acted(action, event.value, started=event.started, ended=event.ended)
            return
        problem, lasting = _explain(event)
        self.ledger.act_failed(
            action, problem, lasting=lasting, started=event.started, ended=event.ended
        )


def _explain(event: Done) -> tuple[str, bool]:
    if isinstance(event.error, VendorError):
        return redact(event.error.problem), event.error.lasting
    if event.error is not None:
        # Not a failure that a client foresaw: keep its kind, drop a text that nobody vetted.
        return f"unexpected {type(event.error).__name__} in killswitch itself", False
    return f"unexpected answer of type {type(event.value).__name__}", False
