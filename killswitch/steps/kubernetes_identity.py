"""What a step of one cluster also says: whether it is sure which cluster that is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from killswitch.model import Note, Plan, Step


class Identity(Protocol):
    """What knows the cluster's identity."""

    def notes(self) -> Sequence[Note]:
        """Return what is to be said of it, as far as it is known; never waits for an answer."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The `step` of a cluster, with notes on that cluster's identity."""

    step: Step
    cluster: Identity

    @property
    def name(self) -> str:
        """The step's own."""
        return self.step.name

    @property
    def system(self) -> str:
        """The step's own."""
        return self.step.system

    @property
    def evidence(self) -> bool:
        """The step's own."""
        return self.step.evidence

    def plan(self) -> Plan:
        """Look, and say what is known of the cluster."""
        plan = self.step.plan()
        return replace(plan, notes=(*plan.notes, *self.cluster.notes()))
