"""What the Kubernetes step needs from a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from killswitch.model import Receipt

LOCK: Final = "killswitch-lock"
"""The name of the quota that keeps pods out."""


class Lock(StrEnum):
    """What was found of the quota that keeps pods out; only IN_FORCE does."""

    MISSING = "missing"
    OTHER = "there, with another spec"
    PENDING = "there, not in force yet"
    IN_FORCE = "in force"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `overdue_s`: how long ago it should have ended, by the cluster's own clock."""

    name: str
    node: str = ""
    ending: bool = False
    overdue_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} on {self.node or 'no node'}"


@dataclass(frozen=True, slots=True)
class Workload:
    """A Deployment or StatefulSet: how many pods it asks for, and who may set that back."""

    name: str
    replicas: int
    owner: str = ""


class Writes(Protocol):
    """The three changes, for real or as dry runs; each is safe to repeat."""

    def lock(self, namespace: str) -> Receipt:
        """Create or mend the quota."""

    def delete_pods(self, namespace: str) -> Receipt:
        """Ask every pod to end now."""

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        """Ask for no pod any more."""


class Cluster(Protocol):
    """What the step needs; a namespace that does not exist has no quota and lists as empty."""

    @property
    def writes(self) -> Writes:
        """The changes, for real."""

    @property
    def rehearsal(self) -> Writes:
        """The same requests as dry runs: they prove the permission and change nothing."""

    def lock_state(self, namespace: str) -> Lock:
        """Read the quota."""

    def pods(self, namespace: str) -> Sequence[Pod]:
        """List the pods, finished ones too."""

    def workloads(self, namespace: str, kind: str) -> Sequence[Workload]:
        """List the Deployments or the StatefulSets."""
