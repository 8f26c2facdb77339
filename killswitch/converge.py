"""How one step converges: look, act on the lowest phase, look again, until nothing is left.

`converge` does no I/O. It yields what it wants (an `Ask`), is sent the time when it was answered,
and reads what came back in its `Ledger`. All policy of rounds, phases and patience is here.
"""

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from killswitch.ledger import Ledger
from killswitch.model import Action
from killswitch.verdict import Intent


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of a halt, in seconds or counts.

    `deadline_s` is the wall-clock end of everything; `wrap_up_s` of it is kept back for telling
    and recording. `phase_s` is a phase's time without progress while later phases wait,
    `patience_s` a step's. `stay_down_s` is the pause before everything is looked at again.
    """

    deadline_s: float = 60.0
    wrap_up_s: float = 10.0
    intent_s: float = 0.25
    look_s: float = 12.0
    act_s: float = 12.0
    phase_s: float = 6.0
    patience_s: float = 15.0
    stay_down_s: float = 5.0
    first_pause_s: float = 0.05
    longest_pause_s: float = 1.0
    second_looks: int = 6
    rounds: int = 500
    width: int = 32


@dataclass(frozen=True, slots=True)
class Look:
    """Call the step's `plan`; give up waiting after `budget_s`."""

    budget_s: float


@dataclass(frozen=True, slots=True)
class Do:
    """Perform or rehearse `actions`, all at once; give up waiting after `budget_s`."""

    actions: tuple[Action, ...]
    budget_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing more can be done for now: resume when everything is to be looked at again."""


Ask = Look | Do | Pause | Rest
Flow = Generator[Ask, float, None]


def converge(intent: Intent, ledger: Ledger, limits: Limits) -> Flow:
    """Bring one step to where `intent` wants it; sent the time after each ask."""
    match intent:
        case Intent.PERFORM:
            for _ in range(1 + limits.second_looks):
                yield from _settle(ledger, limits)
                ledger.rested()
                yield Rest()
        case Intent.REHEARSE:
            yield from _rehearse(ledger, limits)
        case Intent.LOOK:
            yield from _see(ledger, limits)


def _settle(ledger: Ledger, limits: Limits) -> Flow:
    """Perform until nothing is live and nothing is blind, or nothing more helps."""
    ledger.forgive()
    now = yield Look(limits.look_s)
    progress = _Progress(now, ledger)
    pauses = _pauses(limits)
    for _ in range(limits.rounds):
        if ledger.clean or ledger.hurry:
            return
        if progress.seen(now, ledger):
            pauses = _pauses(limits)
        elif progress.idle_s(now) > limits.patience_s:
            return
        batch = _next_batch(ledger, limits, idle_s=progress.idle_s(now))
        if batch:
            yield Do(batch, limits.act_s)
        elif ledger.hopeless():
            return
        if not progress.fresh(batch):
            yield Pause(next(pauses))
        now = yield Look(limits.look_s)


def _rehearse(ledger: Ledger, limits: Limits) -> Flow:
    """See everything, then rehearse every action of every phase, the withheld ones too."""
    yield from _see(ledger, limits)
    if ledger.plan is None:
        return
    actions = ledger.plan.live
    for start in range(0, len(actions), limits.width):
        if ledger.hurry:
            return
        yield Do(actions[start : start + limits.width], limits.act_s)


def _see(ledger: Ledger, limits: Limits) -> Flow:
    """Look until nothing is blind, or looking again cannot help."""
    start = now = yield Look(limits.look_s)
    for pause in _pauses(limits):
        blind = ledger.plan is None or bool(ledger.plan.blind)
        if not blind or ledger.hopeless() or ledger.hurry or now - start > limits.phase_s:
            return
        yield Pause(pause)
        now = yield Look(limits.look_s)


def _next_batch(ledger: Ledger, limits: Limits, *, idle_s: float) -> tuple[Action, ...]:
    """Return the actions of the lowest phase that is worth performing now.

    A phase without progress for `phase_s` does not hold up the later ones any longer.
    """
    to_do = ledger.to_do()
    phases = sorted({action.phase for action in to_do})
    if not phases:
        return ()
    stuck = idle_s > limits.phase_s and len(phases) > 1
    if stuck:
        for action in to_do:
            if action.phase == phases[0]:
                ledger.give_up(action)
    phase = phases[1] if stuck else phases[0]
    return tuple(action for action in to_do if action.phase == phase)[: limits.width]


class _Progress:
    """Whether anything changed, and for how long nothing has."""

    def __init__(self, now: float, ledger: Ledger) -> None:
        self._since = now
        self._shape = ledger.shape()
        self._tried: set[tuple[str, str]] = set()

    def seen(self, now: float, ledger: Ledger) -> bool:
        """Return True when what is live or blind differs from the look before."""
        shape = ledger.shape()
        changed = shape != self._shape
        self._shape = shape
        if changed:
            self._since = now
        return changed

    def idle_s(self, now: float) -> float:
        """Return the seconds without progress."""
        return now - self._since

    def fresh(self, batch: tuple[Action, ...]) -> bool:
        """Return True when the batch holds an action that was not tried before."""
        keys = {action.key for action in batch}
        new = bool(keys - self._tried)
        self._tried |= keys
        return new


def _pauses(limits: Limits) -> Iterator[float]:
    pause = limits.first_pause_s
    while True:
        yield pause
        pause = min(pause * 2, limits.longest_pause_s)
