"""Stop the traders of one cluster: keep pods out, delete them, ask for none, until none is left.

Never because `replicas == 0`: the pods run on for seconds after that. What counts is that the
list of pods is empty, in a namespace that is known to exist.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan
from killswitch.steps import kubernetes_parts as parts
from killswitch.steps import kubernetes_reconcilers as reconcilers
from killswitch.steps.kubernetes_looks import Seen, look
from killswitch.steps.kubernetes_parts import DELETE, SWEEP, Item
from killswitch.steps.kubernetes_port import Cluster


@dataclass(frozen=True, slots=True)
class StopTrading:
    """Halts the pods in `namespaces` of one cluster, those that the client selects.

    `latch`: a quota keeps every pod out of these namespaces. `pause` names the reconcilers that
    may be paused: "argocd", "flux", "keda".
    """

    cluster: Cluster
    system: str
    namespaces: tuple[str, ...]
    latch: bool = True
    pause: tuple[str, ...] = ()
    name: ClassVar[str] = "kubernetes"
    evidence: ClassVar[bool] = False

    def plan(self) -> Plan:
        """Look at the pods, the quota and the workloads of every namespace."""
        looks = look(self.cluster, tuple(dict.fromkeys(self.namespaces)), latch=self.latch)
        answers = [answer for seen in looks for answer in seen.answers]
        errors = [answer for answer in answers if isinstance(answer, VendorError)]
        if errors and len(errors) == len(answers):
            raise min(errors, key=lambda error: error.lasting)
        found = [item for seen in looks for item in self._namespace(seen)]
        # Without a latch no delete lasts before they are paused.
        phase = SWEEP if self.latch else DELETE
        found += reconcilers.paused(self.cluster, looks, self.pause, phase)
        live = [item for item in found if isinstance(item, Action)]
        # The deletes first: of many actions only so many are performed at once.
        live.sort(key=lambda action: not action.verb.startswith("delete"))
        return Plan(
            live=tuple(live),
            blind=tuple(item for item in found if isinstance(item, Blind)),
            clear=tuple(item for item in found if isinstance(item, Clear)),
            notes=tuple(item for item in found if isinstance(item, Note)),
        )

    def _namespace(self, seen: Seen) -> Iterator[Item]:
        yield from parts.quota(self.cluster, seen)
        yield from parts.pods(self.cluster, seen)
        for kind, answer in seen.kinds.items():
            if isinstance(answer, VendorError):
                yield parts.unseen(seen, kind, answer)
            else:
                yield from parts.workloads(self.cluster, seen, kind, answer)
        yield from reconcilers.named(seen, self.pause)
