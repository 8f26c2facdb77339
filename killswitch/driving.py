"""What the engine and its driver say to each other: a `Wait` goes out, an `Event` comes in."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from killswitch.model import StepResult
from killswitch.task import Call, Done


class Pressed(IntEnum):
    """How often the operator pressed Ctrl-C after the touch."""

    ONCE = 1
    TWICE = 2


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed, and nothing came back."""

    now: float


@dataclass(frozen=True, slots=True)
class Interrupt:
    """The operator pressed Ctrl-C: once, no more attempts; twice, leave."""

    now: float
    pressed: Pressed


Event = Done | Tick | Interrupt


@dataclass(frozen=True, slots=True)
class Wait:
    """What the driver does next: start `calls`, wait for an event, but not past `until`.

    `progress` returns the results so far, for the screen.
    """

    calls: tuple[Call, ...]
    until: float
    progress: Callable[[], tuple[StepResult, ...]]
