"""The engine: carries out one order on all steps side by side. Pure, and it never raises.

`carry_out` is a generator. It yields a `Wait` (calls to start now, and when to wake it) and is sent
an `Event` (a call came back, time passed, the operator pressed Ctrl-C). Its value is the report.
`runner` drives it with threads and the wall clock, the tests with a virtual clock.
"""

import itertools
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from killswitch.converge import Limits
from killswitch.driving import Event, Interrupt, Pressed, Tick, Wait
from killswitch.model import HaltReport, Mode, Order, Outcome, Proof, Step, StepResult
from killswitch.task import Call, Done, State, Task
from killswitch.verdict import Intent


def _nobody(_report: HaltReport) -> Sequence[Step]:
    return ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Everything one order needs, already built; the engine only carries it out.

    `record` is the step that writes the order down before the first side effect, and
    `record_elsewhere` the one that does so when it fails. `tell` and `conclude` make the last
    steps from the report so far. `known` holds, per (step, system), the targets that earlier
    runs saw live. `degraded` is what was missing from the evidence before this order.
    """

    order: Order
    proof: Proof | None
    intent: Intent
    steps: tuple[Step, ...]
    started_at: datetime
    record: Step | None = None
    record_elsewhere: Step | None = None
    tell: Callable[[HaltReport], Sequence[Step]] = _nobody
    conclude: Callable[[HaltReport], Sequence[Step]] = _nobody
    conclude_elsewhere: Callable[[HaltReport], Sequence[Step]] = _nobody
    known: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    degraded: tuple[str, ...] = ()


Flow = Generator[Wait, Event, HaltReport]


def carry_out(assignment: Assignment, limits: Limits, now: float) -> Flow:
    """Carry out one order, from the touch at `now` to the report, by the deadline.

    Raises:
        ValueError: only a live order may perform; anything else may look or rehearse.
    """
    if assignment.intent is Intent.PERFORM and assignment.order.mode is not Mode.LIVE:
        raise ValueError(f"a {assignment.order.mode} order may not perform")
    return _Halt(assignment, limits, now).run()


class _Halt:
    def __init__(self, assignment: Assignment, limits: Limits, now: float) -> None:
        self._job = assignment
        self._limits = limits
        self._origin = self._now = now
        self._ids = itertools.count(1)
        self._tasks: list[Task] = []
        self._outbox: list[Call] = []
        self._pressed = 0
        self._end = now + limits.deadline_s
        self._work_end = self._end - min(limits.wrap_up_s, limits.deadline_s / 4)

    def run(self) -> Flow:
        """Record, halt, look again, tell, conclude."""
        yield from self._record_order()
        wave = [self._begin(step, self._intent_for(step)) for step in self._job.steps]
        if self._job.intent is Intent.PERFORM:
            yield from self._look_again(wave)
            self._doubt_what_is_stale(wave)
        else:
            yield from self._until(self._work_end, lambda: _at_rest(wave))
        telling = [task for task in wave if task.ledger.evidence]
        for task in wave:
            if task not in telling:
                task.close(self._now)
        brief = 4 * self._limits.intent_s
        if self._pressed < Pressed.TWICE:
            until = self._end - 2 * brief
            telling += yield from self._finish(self._job.tell, until=until)
            # A first alert that was slow held nobody up; now it may take what time is left.
            yield from self._until(until, lambda: _at_rest(telling))
        for task in telling:
            task.close(self._now)
        until = min(self._now + brief, self._end - self._limits.intent_s)
        said = yield from self._finish(self._job.conclude, until=until)
        if not said or not _good(said):
            until = min(self._now + brief, self._end)
            yield from self._finish(self._job.conclude_elsewhere, until=until)
        return self._report()

    def _intent_for(self, step: Step) -> Intent:
        # Looking at a message that was not sent says nothing; rehearsing it changes nothing.
        looking = self._job.intent is Intent.LOOK and step.evidence
        return Intent.REHEARSE if looking else self._job.intent

    def _record_order(self) -> Generator[Wait, Event, None]:
        """Write the order down, here or elsewhere; when the budget is spent, go on without."""
        limit = self._now + self._limits.intent_s
        tasks: list[Task] = []
        for step in (self._job.record, self._job.record_elsewhere):
            if step is None or any(_good([task]) for task in tasks):
                continue
            tasks.append(self._begin(step, Intent.PERFORM))
            # What a slow journal leaves of the budget is for writing it down elsewhere.
            part = limit if step is self._job.record_elsewhere else (self._now + limit) / 2
            yield from self._until(part, lambda: tasks[-1].state is not State.WORKING)
        if tasks:
            yield from self._until(limit, lambda: any(_good([task]) for task in tasks))

    def _look_again(self, wave: list[Task]) -> Generator[Wait, Event, None]:
        """Read everything once more, each step after a pause of its own.

        What one system brings back into another is seen only by a look after the last of them
        has ended. A step that hangs does not keep the others waiting for more than three pauses;
        if it ends after all, the others look once more after it.
        """
        contained = [task for task in wave if not task.ledger.evidence]
        while self._pressed < Pressed.TWICE:
            due = [task for task in contained if self._due(task, contained) <= self._now]
            for task in due:
                self._outbox += task.resume(self._now)
            if _at_rest(contained) and not self._next_due(contained):
                return
            if self._now >= self._work_end:
                return
            until = min([*self._next_due(contained), self._work_end])
            yield from self._until(until, _changed(contained))

    def _doubt_what_is_stale(self, wave: list[Task]) -> None:
        """Take back the word of a step that was not looked at after the last one had ended."""
        contained = [task for task in wave if not task.ledger.evidence]
        if _good(contained):
            ended = _last_ended(contained)
            for task in contained:
                if task.ledger.looked_since < ended:
                    task.ledger.doubt()

    def _due(self, task: Task, contained: list[Task]) -> float:
        """Return when `task` is to look again; never, if there is no need to."""
        if task.state is not State.RESTING or task.rests > self._limits.second_looks:
            return math.inf
        pause = self._limits.stay_down_s
        ended = _last_ended(contained)
        if task.rests == 1:
            return min(max(task.rested_at, ended) + pause, task.rested_at + 3 * pause)
        if not task.ledger.clean:
            return math.inf
        if not task.ledger.confirmed:
            return task.rested_at + pause
        stale = task.ledger.looked_since < ended and _at_rest(contained)
        return ended + pause if stale else math.inf

    def _next_due(self, contained: list[Task]) -> list[float]:
        return [due for task in contained if (due := self._due(task, contained)) < math.inf]

    def _finish(
        self, make: Callable[[HaltReport], Sequence[Step]], *, until: float
    ) -> Generator[Wait, Event, list[Task]]:
        """Run the last steps, which are made from the report so far; none if that fails."""
        try:
            steps = make(self._report())
        except Exception:  # noqa: BLE001 (whatever it is, what was done must still be reported)
            steps = ()
        tasks = [self._begin(step, Intent.PERFORM) for step in steps]
        yield from self._until(until, lambda: _at_rest(tasks))
        return tasks

    def _begin(self, step: Step, intent: Intent) -> Task:
        known = self._job.known.get((step.name, step.system), frozenset())
        task = Task(step, intent, self._limits, known=known, ids=self._ids, origin=self._origin)
        self._tasks.append(task)
        self._outbox += task.start(self._now)
        return task

    def _until(self, limit: float, over: Callable[[], bool]) -> Generator[Wait, Event, None]:
        """Let events come in until `over`, or until `limit`, or until the operator leaves."""
        leaving = self._pressed >= Pressed.TWICE
        while not over() and self._now < limit:
            if self._pressed >= Pressed.TWICE and not leaving:
                return
            wake = min([limit, *(task.wake for task in self._tasks)], default=math.inf)
            calls, self._outbox = tuple(self._outbox), []
            self._take(
                (yield Wait(calls=calls, until=max(wake, self._now), progress=self._progress))
            )

    def _take(self, event: Event) -> None:
        match event:
            case Done(ended=now):
                self._now = max(self._now, now)
                for task in self._tasks:
                    if task.owns(event.id):
                        self._outbox += task.done(event)
                        break
            case Tick(now):
                self._now = max(self._now, now)
            case Interrupt(now, pressed):
                self._now = max(self._now, now)
                self._pressed = max(self._pressed, pressed)
                for task in self._tasks:
                    self._outbox += task.hurry(self._now)
        for task in self._tasks:
            self._outbox += task.tick(self._now)

    def _results(self) -> tuple[StepResult, ...]:
        return tuple(task.result() for task in self._tasks)

    def _progress(self) -> tuple[StepResult, ...]:
        """Return the results so far; what is still being worked on has not failed yet."""
        return tuple(
            replace(result, outcome=Outcome.SENT, error="at work")
            if task.state is State.WORKING and not result.outcome.good
            else result
            for task, result in ((task, task.result()) for task in self._tasks)
        )

    def _report(self) -> HaltReport:
        results = self._results()
        containment = [result for result in results if not result.evidence]
        halted = (
            self._job.intent is Intent.PERFORM
            and bool(containment)
            and all(result.outcome.ended for result in containment)
        )
        clean = [result.verified_s for result in containment if result.verified_s is not None]
        return HaltReport(
            order=self._job.order,
            proof=self._job.proof,
            results=results,
            halted=halted,
            degraded=(*self._job.degraded, *_degraded(results)),
            started_at=self._job.started_at,
            verified_s=max(clean) if halted and clean else None,
            elapsed_s=self._now - self._origin,
        )


def _at_rest(tasks: Sequence[Task]) -> bool:
    return all(task.state is not State.WORKING for task in tasks)


def _changed(tasks: Sequence[Task]) -> Callable[[], bool]:
    """Return what tells whether a task has come to rest, or left it, since now."""
    before = [task.state for task in tasks]
    return lambda: [task.state for task in tasks] != before


def _last_ended(tasks: Sequence[Task]) -> float:
    """Return when the last of the steps that are clean now was first seen clean."""
    moments = (task.ledger.clean_since for task in tasks)
    return max((moment for moment in moments if moment is not None), default=-math.inf)


def _good(tasks: Sequence[Task]) -> bool:
    return all(task.result().outcome.ended for task in tasks)


def _degraded(results: Sequence[StepResult]) -> tuple[str, ...]:
    return tuple(
        f"{result.step} {result.system}: {result.error or result.targets[0].saw}"
        for result in results
        if result.evidence and not result.outcome.good
    )
