"""Stop the traders of one cluster: keep pods out, delete them, ask for none, until none is left.

Never because `replicas == 0`: the pods run on for seconds after that. What counts is that the
list of pods is empty, in a namespace that is known to exist.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, TypeVar

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan
from killswitch.steps import kubernetes_deeds as deeds
from killswitch.steps import kubernetes_notes as say
from killswitch.steps.kubernetes_port import LOCK, Cluster, Lock, Pod

KINDS: Final = ("deployments", "statefulsets")
LATCH, DELETE, SCALE, SWEEP = 1, 2, 3, 4
Item = Action | Blind | Clear | Note
T = TypeVar("T")


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
            return [Clear(target, f"{LOCK} allows no pod, and is in force"), say.latch(namespace)]
        # What is stored but not yet in force is waited for; it must not hold up the deletes.
        phase = SWEEP if lock is Lock.PENDING else LATCH
        both = deeds.lock(self.cluster, namespace)
        return [Action("contain", target, *both, phase=phase, reversible=True)]

    def _pods(self, namespace: str, pods: Sequence[Pod], lock: Lock | None) -> list[Item]:
        target = f"{namespace}/pods"
        if not pods and lock is Lock.IN_FORCE:
            return [Clear(target, "no pod, kept out by a quota")]
        if not pods:
            return [Clear(target, "no pod", only_if_known=not _exists(lock))]
        ending = all(pod.ending for pod in pods)
        verb, phase = ("delete again", SWEEP) if ending else ("delete", DELETE)
        late = [say.stuck(namespace, pod) for pod in pods if pod.overdue_s > say.OVERDUE_S]
        both = deeds.delete(self.cluster, namespace, pods)
        return [Action(verb, target, *both, phase=phase, amount=len(pods)), *late]

    def _workloads(self, namespace: str, kind: str, lock: Lock | None, *, held: bool) -> list[Item]:
        # Without a quota the pods come back while they are deleted: scale at the same time.
        phase = SCALE if lock is Lock.IN_FORCE else DELETE
        found: list[Item] = []
        workloads = self.cluster.workloads(namespace, kind)
        for workload in workloads:
            target = f"{namespace}/{kind}/{workload.name}"
            wish = f"asks for {workload.replicas or 'no'} pods"
            if workload.owner or (held and workload.replicas):
                found.append(say.may_return(target, workload))
            if held and workload.replicas:
                # Something scales it back for ever; what counts is that no pod comes of it.
                found.append(Clear(target, f"{wish}, kept out by a quota"))
            elif workload.replicas:
                scale = deeds.delete_and_scale if phase == DELETE else deeds.scale
                both = scale(self.cluster, namespace, kind, workload.name)
                amount = workload.replicas
                found.append(Action("stop", target, *both, phase, amount, reversible=True))
            else:
                found.append(Clear(target, wish))
        if held or not any(workload.replicas for workload in workloads):
            seen = bool(workloads) or _exists(lock)
            found.append(Clear(f"{namespace}/{kind}", "none starts a pod", only_if_known=not seen))
        return found


def _try(read: Callable[[], T]) -> T | VendorError:
    try:
        return read()
    except VendorError as error:
        return error


def _exists(lock: Lock | None) -> bool:
    """Return True when a quota was seen: a namespace that is missing lists as empty, too."""
    return lock not in {None, Lock.MISSING}
