"""Stop the traders of one cluster: keep pods out, delete them, ask for none, until none is left.

Never because `replicas == 0`: the pods run on for seconds after that. What counts is that the
list of pods is empty, in a namespace that is known to exist.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import ClassVar, Final, Protocol, TypeVar

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt

LOCK: Final = "killswitch-lock"
KINDS: Final = ("deployments", "statefulsets")
OVERDUE_S: Final = 5.0
LATCH, DELETE, SCALE, SWEEP = 1, 2, 3, 4
Item = Action | Blind | Clear | Note
Deed = Callable[[], Receipt]
T = TypeVar("T")


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


@dataclass(frozen=True, slots=True)
class StopTrading:
    """Halts every pod in `namespaces` of one cluster."""

    cluster: Cluster
    system: str
    namespaces: tuple[str, ...]
    name: ClassVar[str] = "kubernetes"
    evidence: ClassVar[bool] = False

    def plan(self) -> Plan:
        """Look at the quota, the pods and the workloads of every namespace."""
        found: list[Item] = []
        errors: list[VendorError] = []
        for namespace in self.namespaces:
            for part, answer in self._looks(namespace):
                if isinstance(answer, VendorError):
                    errors.append(answer)
                    found.append(Blind(f"{namespace}/{part}", answer.problem, answer.lasting))
                else:
                    found += answer
        if errors and len(errors) == len(found):
            raise min(errors, key=lambda error: error.lasting)
        return Plan(
            live=tuple(item for item in found if isinstance(item, Action)),
            blind=tuple(item for item in found if isinstance(item, Blind)),
            clear=tuple(item for item in found if isinstance(item, Clear)),
            notes=tuple(item for item in found if isinstance(item, Note)),
        )

    def _looks(self, namespace: str) -> Iterator[tuple[str, list[Item] | VendorError]]:
        quota = _try(partial(self.cluster.lock_state, namespace))
        pods = _try(partial(self.cluster.pods, namespace))
        lock = None if isinstance(quota, VendorError) else quota
        yield "quota", quota if isinstance(quota, VendorError) else self._quota(namespace, quota)
        yield "pods", pods if isinstance(pods, VendorError) else self._pods(namespace, pods, lock)
        held = not pods and lock is Lock.IN_FORCE
        for kind in KINDS:
            yield kind, _try(partial(self._workloads, namespace, kind, lock, held=held))

    def _quota(self, namespace: str, lock: Lock) -> list[Item]:
        target = f"{namespace}/quota"
        if lock is Lock.IN_FORCE:
            unlock = f"kubectl --namespace {namespace} delete resourcequota {LOCK}"
            text = f"no pod can start in {namespace} until the quota {LOCK} is deleted"
            return [
                Clear(target, f"{LOCK} allows no pod, and is in force"),
                Note("latch", text, hint=unlock),
            ]
        # What is stored but not yet in force is waited for; it must not hold up the deletes.
        phase = SWEEP if lock is Lock.PENDING else LATCH
        deeds = self._both(lambda to: to.lock(namespace))
        return [Action("contain", target, *deeds, phase=phase, reversible=True)]

    def _pods(self, namespace: str, pods: Sequence[Pod], lock: Lock | None) -> list[Item]:
        target = f"{namespace}/pods"
        if not pods and lock is Lock.IN_FORCE:
            return [Clear(target, "no pod, kept out by a quota")]
        if not pods:
            return [Clear(target, "no pod", only_if_known=not _exists(lock))]

        def delete(to: Writes) -> Receipt:
            receipt = to.delete_pods(namespace)
            return Receipt(f"{receipt.summary}: {_names(pods)}", receipt.evidence)

        ending = all(pod.ending for pod in pods)
        verb, phase = ("delete again", SWEEP) if ending else ("delete", DELETE)
        late = [_late(namespace, pod) for pod in pods if pod.overdue_s > OVERDUE_S]
        return [Action(verb, target, *self._both(delete), phase=phase, amount=len(pods)), *late]

    def _workloads(self, namespace: str, kind: str, lock: Lock | None, *, held: bool) -> list[Item]:
        # Without a quota the pods come back while they are deleted: scale at the same time.
        phase = SCALE if lock is Lock.IN_FORCE else DELETE
        found: list[Item] = []
        workloads = self.cluster.workloads(namespace, kind)
        for workload in workloads:
            target = f"{namespace}/{kind}/{workload.name}"
            wish = f"asks for {workload.replicas or 'no'} pods"
            if workload.owner or (held and workload.replicas):
                found.append(_may_return(target, workload))
            if held and workload.replicas:
                # Something scales it back for ever; what counts is that no pod comes of it.
                found.append(Clear(target, f"{wish}, kept out by a quota"))
            elif workload.replicas:
                deeds = self._both(
                    _scale(namespace, kind, workload.name, delete_first=phase == DELETE)
                )
                amount = workload.replicas
                found.append(Action("stop", target, *deeds, phase, amount, reversible=True))
            else:
                found.append(Clear(target, wish))
        if held or not any(workload.replicas for workload in workloads):
            seen = bool(workloads) or _exists(lock)
            found.append(Clear(f"{namespace}/{kind}", "none starts a pod", only_if_known=not seen))
        return found

    def _both(self, change: Callable[[Writes], Receipt]) -> tuple[Deed, Deed]:
        return lambda: change(self.cluster.writes), lambda: change(self.cluster.rehearsal)


def _try(read: Callable[[], T]) -> T | VendorError:
    try:
        return read()
    except VendorError as error:
        return error


def _exists(lock: Lock | None) -> bool:
    """Return True when a quota was seen: a namespace that is missing lists as empty, too."""
    return lock not in {None, Lock.MISSING}


def _names(pods: Sequence[Pod], most: int = 8) -> str:
    more = f" and {len(pods) - most} more" if len(pods) > most else ""
    return ", ".join(str(pod) for pod in pods[:most]) + more


def _late(namespace: str, pod: Pod) -> Note:
    text = f"pod {namespace}/{pod} did not end in time: its process may run on"
    return Note("stuck", text, hint="look at the node, or power it off; the keys are what counts")


def _may_return(target: str, workload: Workload) -> Note:
    text = f"{target} is scaled by {workload.owner or 'something'}, which may ask for pods again"
    return Note("reconciler", text, hint="suspend it there before the quota is deleted")


def _scale(
    namespace: str, kind: str, name: str, *, delete_first: bool
) -> Callable[[Writes], Receipt]:
    def change(to: Writes) -> Receipt:
        if delete_first:
            # Who deletes a pod first sets its grace: its controller would leave it 30 s.
            with suppress(VendorError):
                to.delete_pods(namespace)
        return to.scale_to_zero(namespace, kind, name)

    return change
