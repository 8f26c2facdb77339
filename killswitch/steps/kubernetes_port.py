"""What the Kubernetes step needs from a cluster."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from killswitch.model import Receipt
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool

LOCK: Final = "killswitch-lock"
"""The name of the quota that keeps pods out."""

OVERDUE_S: Final = 5.0
"""How late a pod may end before its end counts as not confirmed."""

KINDS: Final = (
    "deployments",
    "statefulsets",
    "daemonsets",
    "jobs",
    "cronjobs",
    "replicasets",
    "replicationcontrollers",
)
"""What asks for pods. A ReplicaSet of a Deployment is the Deployment's, and not listed."""


class Lock(StrEnum):
    """What was found of the quota that keeps pods out; only IN_FORCE does."""

    MISSING = "missing"
    OTHER = "there, with another spec"
    PENDING = "there, not in force yet"
    IN_FORCE = "in force"


@dataclass(frozen=True, slots=True)
class Pod:
    """One pod. `overdue_s`: how long ago it should have ended, by the cluster's own clock.

    `held_by` names the finalizers that alone keep it listed: every container has terminated.
    A `lost` pod left the list late, before its containers were seen to terminate.
    A `static` pod is its node's own: what the API lists, or has lost, is only its mirror.
    """

    name: str
    node: str = ""
    ending: bool = False
    overdue_s: float = 0.0
    held_by: str = ""
    uid: str = ""
    lost: bool = False
    static: bool = False

    def __str__(self) -> str:
        return f"{self.name} on {self.node or 'no node'}"


@dataclass(frozen=True, slots=True)
class Workload:
    """What asks for pods: how many, 0 for none any more; and who may set that back.

    A DaemonSet and a CronJob that are not stopped ask for at least 1.
    """

    name: str
    replicas: int
    keepers: tuple[Keeper, ...] = ()


class Writes(Protocol):
    """The changes, for real or as dry runs; each is safe to repeat."""

    def lock(self, namespace: str) -> Receipt:
        """Create or mend the quota."""

    def delete_pods(self, namespace: str) -> Receipt:
        """Ask every pod to end now, but for the static ones."""

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        """Ask for no pod any more: a scale of 0, suspended, or a node that is nowhere."""

    def pause(self, keeper: Keeper) -> Receipt:
        """Keep a reconciler from setting anything back."""


class Cluster(Protocol):
    """What the step needs; a namespace that does not exist has no quota and lists as empty."""

    @property
    def selector(self) -> str:
        """The labels that a pod must have to be listed and deleted: "app=bot"; "" is every pod."""

    @property
    def writes(self) -> Writes:
        """The changes, for real."""

    @property
    def rehearsal(self) -> Writes:
        """The same requests as dry runs: they prove the permission and change nothing."""

    def lock_state(self, namespace: str) -> Lock:
        """Read the quota."""

    def pods(self, namespace: str) -> Sequence[Pod]:
        """List the pods, finished ones too, and those whose end this run did not see."""

    def workloads(self, namespace: str, kind: str) -> Sequence[Workload]:
        """List what asks for such pods; `kind` is one of `KINDS`."""

    def scalers(self, namespace: str, tool: Tool) -> Sequence[Reconciler]:
        """List the autoscalers of one kind, `HPA` or `KEDA`; none where it is not installed."""

    def reconciler(self, keeper: Keeper) -> Reconciler | None:
        """Read an Argo CD application, a Flux object or a ScaledObject; None if it is not there."""
