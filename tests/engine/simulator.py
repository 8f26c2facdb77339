"""Drives the engine on a virtual clock: any order of completions, any fault, things that return.

One thread, one seeded random source: the same seed gives the same run. The faults sit between
the engine and a truthful world, so every verdict can be held against what really was.
"""

import heapq
import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial

from killswitch.converge import Limits
from killswitch.driving import Event, Interrupt, Pressed, Tick
from killswitch.errors import GarbledError, RefusedError, UnreachableError
from killswitch.halt import Assignment, carry_out
from killswitch.model import (
    Action,
    Blind,
    Clear,
    HaltReport,
    Mode,
    Order,
    Plan,
    Receipt,
    Step,
)
from killswitch.task import Call, Done
from killswitch.verdict import Intent

ORIGIN = 1_000.0
MOST_EVENTS = 20_000


def make_order(mode: Mode = Mode.LIVE) -> Order:
    return Order(
        id="20261121-0314-k7q2",
        mode=mode,
        issued_at="2026-11-21T03:14:07Z",
        reason="simulated",
        trigger_value="",
        incident="",
        scope=("world",),
        config_sha256="0" * 64,
        journal_size=0,
        journal_head="0" * 64,
        bundle_sha256="",
        nonce="0" * 32,
    )


@dataclass
class Thing:
    """One live thing of the world; `deaf` actions on it are answered well and do nothing."""

    target: str
    phase: int = 1
    live: bool = True
    deaf: int = 0
    ended_at: float | None = None


@dataclass
class WorldStep:
    """A step over a truthful world; the simulator decides which of its answers arrive."""

    system: str
    things: list[Thing]
    now: Callable[[], float]
    name: str = "world"
    evidence: bool = False
    vanishing: bool = False
    """Whether what has ended vanishes from a look instead of being named as clear."""
    doubtful: bool = False
    """Whether an absence counts only for what was seen live."""
    blind_looks: int = 0
    looked_at: list[float] = field(default_factory=list)
    performed_at: list[float] = field(default_factory=list)
    clean_looks: list[float] = field(default_factory=list)

    def plan(self) -> Plan:
        self.looked_at.append(self.now())
        if self.blind_looks:
            self.blind_looks -= 1
            return Plan(blind=tuple(Blind(t.target, "not readable") for t in self.things))
        live = [thing for thing in self.things if thing.live]
        if not live:
            self.clean_looks.append(self.now())
        ended = [thing for thing in self.things if not thing.live]
        clear = [Clear("all of it", "looked through")]
        if not self.vanishing:
            clear += [Clear(t.target, "gone", only_if_known=self.doubtful) for t in ended]
        return Plan(live=tuple(map(self._action, live)), clear=tuple(clear))

    def _action(self, thing: Thing) -> Action:
        return Action(
            verb="end",
            target=thing.target,
            perform=partial(self._end, thing),
            rehearse=lambda: Receipt("could be ended"),
            phase=thing.phase,
        )

    def _end(self, thing: Thing) -> Receipt:
        self.performed_at.append(self.now())
        if thing.deaf:
            thing.deaf -= 1
        elif thing.live:
            thing.live = False
            thing.ended_at = self.now()
        return Receipt("ended", {"target": thing.target})


@dataclass
class Faults:
    """How likely each kind of trouble is for one call, and how slow calls are."""

    lost_before: float = 0.0
    lost_after: float = 0.0
    refused: float = 0.0
    garbled: float = 0.0
    bug: float = 0.0
    hang: float = 0.0
    late: float = 0.0
    slowest_s: float = 0.5

    @classmethod
    def draw(cls, rng: random.Random) -> "Faults":
        """Return faults for one system: often none, sometimes one kind, rarely all."""
        style = rng.random()
        slow = rng.choice([0.01, 0.3, 2.0])
        if style < 0.35:
            return cls(slowest_s=slow)
        kinds = ["lost_before", "lost_after", "refused", "garbled", "bug", "hang", "late"]
        chosen = kinds if style > 0.9 else rng.sample(kinds, rng.randint(1, 2))
        rate = rng.choice([0.1, 0.3, 1.0]) / len(chosen)
        return cls(**dict.fromkeys(chosen, rate), slowest_s=slow)


@dataclass(frozen=True)
class Taken:
    """What the engine took in of one call, and when; None is a failure or a look given up."""

    at: float
    label: str
    value: object = None


class Simulator:
    """A virtual clock and a heap of what happens when."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.time = ORIGIN
        self.faults: dict[str, Faults] = {}
        self.answered: dict[str, list[float]] = {}
        """Per call's label, when the world was seen by each look that was answered in time."""
        self.taken: list[Taken] = []
        self.first_started: dict[str, float] = {}
        self._receipts: list[tuple[str, float]] = []
        self.events = 0
        self._limits = Limits()
        self._heap: list[tuple[float, int, Callable[[], Event | None]]] = []
        self._sequence = itertools.count()

    def now(self) -> float:
        return self.time

    def at(self, when: float, what: Callable[[], Event | None]) -> None:
        heapq.heappush(self._heap, (when, next(self._sequence), what))

    def run(self, assignment: Assignment, limits: Limits) -> HaltReport:
        self._limits = limits
        flow = carry_out(assignment, limits, self.time)
        try:
            wait = next(flow)
            while True:
                self.events += 1
                assert self.events < MOST_EVENTS, "the engine spins"
                for call in wait.calls:
                    self._start(call)
                wait = flow.send(self._next_event(wait.until))
        except StopIteration as end:
            report: HaltReport = end.value
            return report

    def _next_event(self, until: float) -> Event:
        while self._heap and self._heap[0][0] <= until:
            when, _, what = heapq.heappop(self._heap)
            self.time = max(self.time, when)
            event = what()
            if event is not None:
                return event
        self.time = max(self.time, until)
        return Tick(self.time)

    def _start(self, call: Call) -> None:
        faults = self.faults.get(call.label.split(":", maxsplit=1)[0], Faults(slowest_s=0.01))
        rng = self.rng
        takes = rng.random() * faults.slowest_s
        draw = rng.random()

        def happened(limit: float) -> bool:
            nonlocal draw
            draw -= limit
            return draw < 0

        error: Exception | None = None
        does_it = True
        if happened(faults.lost_before):
            error, does_it = UnreachableError("connection refused"), False
        elif happened(faults.lost_after):
            error = UnreachableError("connection cut")
        elif happened(faults.refused):
            error, does_it = RefusedError("not allowed"), False
        elif happened(faults.garbled):
            error = GarbledError("not the answer of this API")
        elif happened(faults.bug):
            error, does_it = KeyError("a bug"), False
        elif happened(faults.hang):
            does_it = rng.random() < 0.5
            takes = 1e9
        elif happened(faults.late):
            takes = 8 + rng.random() * 30
        self._schedule(call, takes, error, seen=min(takes, 40) * rng.random() if does_it else None)

    def _schedule(
        self, call: Call, takes: float, error: Exception | None, *, seen: float | None
    ) -> None:
        """Let a call see the world after `seen` seconds, if at all, and come back after `takes`."""
        started = self.time
        self.first_started.setdefault(call.label, started)
        outcome, seen_at = list[object]([None]), list[float]()
        mistake: list[Exception | None] = [error]

        def effect() -> None:
            seen_at.append(self.time)
            try:
                outcome[0] = call.run()
            except Exception as problem:  # noqa: BLE001 (a step may raise what it likes)
                mistake[0] = mistake[0] or problem

        def come_back() -> Event:
            failed = mistake[0]
            value = None if failed else outcome[0]
            self._take_note(call.label, value, seen_at, takes)
            return Done(call.id, value, failed, started, self.time)

        if seen is not None:
            self.at(started + seen, effect)
        if call.label.endswith(": look") and takes > self._limits.look_s:
            given_up = Taken(started + self._limits.look_s, call.label)
            self.at(given_up.at, partial(self.taken.append, given_up))
        if takes < 1e8:
            self.at(started + takes, come_back)

    def _take_note(self, label: str, value: object, seen_at: list[float], takes: float) -> None:
        look, limits = label.endswith(": look"), self._limits
        in_time = takes <= (limits.look_s if look else limits.act_s)
        if isinstance(value, Receipt) and in_time:
            self._receipts.append((label, seen_at[0]))
        if isinstance(value, Plan) and in_time:
            self.answered.setdefault(label, []).append(seen_at[0])
        if in_time or not look:
            self.taken.append(Taken(self.time, label, value))

    def receipts(self, system: str) -> list[float]:
        """Return when each action on a system took effect that was answered well and in time."""
        return [moment for label, moment in self._receipts if label.startswith(f"world {system}:")]

    def press_at(self, when: float, pressed: Pressed) -> None:
        self.at(when, lambda: Interrupt(self.time, pressed))


def make_assignment(
    steps: tuple[Step, ...],
    *,
    intent: Intent = Intent.PERFORM,
    mode: Mode = Mode.LIVE,
    record: Step | None = None,
    record_elsewhere: Step | None = None,
    tell: Step | None = None,
    conclude: Step | None = None,
    conclude_elsewhere: Step | None = None,
    known: Mapping[tuple[str, str], frozenset[str]] | None = None,
) -> Assignment:
    return Assignment(
        order=make_order(mode),
        proof=None,
        intent=intent,
        steps=steps,
        started_at=datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC),
        record=record,
        record_elsewhere=record_elsewhere,
        tell=lambda _report: (tell,) if tell else (),
        conclude=lambda _report: (conclude,) if conclude else (),
        conclude_elsewhere=lambda _report: (conclude_elsewhere,) if conclude_elsewhere else (),
        known=known or {},
    )
