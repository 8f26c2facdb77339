"""One configured system as the commands see it: what a halt would do there, and how to begin."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from killswitch.late_step import LateStep
from killswitch.model import Step
from killswitch.steps.telegram import Message

Build = Callable[[bool, Message], Step]
"""Make the step: reads the secrets and logs in. The bool says whether it may write."""


Targets = Callable[[str, str], frozenset[str]]
"""The targets of a (step, system) of which something is known."""


def _nothing(_step: str, _system: str) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Past:
    """What the journal tells of earlier runs; asked when a step is built, after the touch.

    `ended`: an earlier halt read it back as ended. `tried`: an earlier halt told it to end, and
    was not refused. `mentioned`: earlier halts and drills reported on it.
    """

    ended: Targets = _nothing
    tried: Targets = _nothing
    mentioned: Targets = _nothing


NO_PAST: Final = Past()


@dataclass(frozen=True, slots=True)
class Unit:
    """One configured system, ready to be warmed up and, after the touch, built.

    `does` and `scope` are for the order and the screen: "stop", "namespace trading". `sources`
    are the secrets it will need. `warm` needs no credential and returns a fact, or raises
    VendorError. `problem` says why it cannot be built.
    """

    kind: str
    system: str
    does: str
    scope: str
    sources: tuple[str, ...]
    evidence: bool
    warm: Callable[[], str]
    build: Build
    problem: str = ""

    def step(
        self,
        message: Callable[[], Message],
        *,
        may_write: bool,
        freeze_only: bool = False,
        system: str = "",
    ) -> "LateStep":
        """Return the step; it is built in its own thread, at its first look.

        `message` is made there, too. `freeze_only` withholds what cannot be undone. `system`
        gives the step another name: the second message to the same chat.
        """
        return LateStep(
            freeze_only=freeze_only and not self.evidence,
            name=self.kind,
            system=system or self.system,
            evidence=self.evidence,
            build=lambda: self.build(may_write, message()),
        )
