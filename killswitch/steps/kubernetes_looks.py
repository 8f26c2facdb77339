"""One look at many namespaces: every list is asked for side by side, the pods' first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from killswitch.errors import VendorError
from killswitch.steps.kubernetes_port import KINDS, OVERDUE_S, Cluster, Lock, Pod, Workload
from killswitch.steps.side_by_side import keep, side_by_side


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look saw of a namespace; an error stands where a part could not be read.

    `lock` is None without a latch; `selected` is True when labels choose the pods.
    """

    namespace: str
    pods: Sequence[Pod] | VendorError
    lock: Lock | VendorError | None
    kinds: Mapping[str, Sequence[Workload] | VendorError]
    selected: bool

    @property
    def left(self) -> list[Pod]:
        """The pods whose processes run, or may yet end in time."""
        return [pod for pod in self._ours if not (pod.held_by or _is_late(pod))]

    @property
    def stuck(self) -> list[Pod]:
        """The pods that should have ended long ago, and whose processes may still run."""
        return [pod for pod in self._ours if _is_late(pod) and not pod.held_by]

    @property
    def finalized(self) -> list[Pod]:
        """The pods whose containers have terminated, and which only a finalizer keeps listed."""
        return [pod for pod in self._ours if pod.held_by]

    @property
    def static(self) -> list[Pod]:
        """The pods that no API can end: their nodes run them from files of their own."""
        return [pod for pod in self._listed if pod.static]

    @property
    def empty(self) -> bool:
        """True when it was seen that no pod, but for static ones, has a process any more."""
        return not (isinstance(self.pods, VendorError) or self.left or self.stuck)

    @property
    def held(self) -> bool:
        """True when no pod is there and none can come: then nobody's wish for pods matters."""
        return self.empty and self.lock is Lock.IN_FORCE

    @property
    def exists(self) -> bool:
        """True when something was seen in it: a namespace that is missing lists as empty, too."""
        return (isinstance(self.lock, Lock) and self.lock is not Lock.MISSING) or self._asked

    @property
    def real(self) -> bool:
        """True when an empty list of pods is no mistake in the name or in the labels.

        Something that asks for pods, or did, was seen; our own quota can be anywhere.
        """
        return self._asked

    @property
    def asking(self) -> list[tuple[str, str]]:
        """The kind and name of everything that asks for pods."""
        return [
            (kind, workload.name)
            for kind, workloads in self.kinds.items()
            for workload in (() if isinstance(workloads, VendorError) else workloads)
            if workload.replicas
        ]

    @property
    def answers(self) -> list[object]:
        """Every part, as it was answered."""
        parts: list[object] = [self.pods, *self.kinds.values()]
        return parts if self.lock is None else [*parts, self.lock]

    @property
    def _asked(self) -> bool:
        kinds = self.kinds.values()
        return any(kind for kind in kinds if not isinstance(kind, VendorError))

    @property
    def _ours(self) -> list[Pod]:
        return [pod for pod in self._listed if not pod.static]

    @property
    def _listed(self) -> Sequence[Pod]:
        return () if isinstance(self.pods, VendorError) else self.pods


def _is_late(pod: Pod) -> bool:
    return pod.lost or pod.overdue_s > OVERDUE_S


def look(cluster: Cluster, namespaces: Sequence[str], *, latch: bool) -> list[Seen]:
    """Look at the pods, the quota and whatever asks for pods in each of `namespaces`."""
    pods: dict[str, Sequence[Pod] | VendorError] = {}
    locks: dict[str, Lock | VendorError] = {}
    kinds: dict[tuple[str, str], Sequence[Workload] | VendorError] = {}
    calls = []
    for namespace in namespaces:
        calls.append(keep(pods, namespace, partial(cluster.pods, namespace)))
        if latch:
            calls.append(keep(locks, namespace, partial(cluster.lock_state, namespace)))
    for kind in KINDS:
        for namespace in namespaces:
            read = partial(cluster.workloads, namespace, kind)
            calls.append(keep(kinds, (namespace, kind), read))
    side_by_side(calls)
    return [
        Seen(
            namespace,
            pods[namespace],
            locks.get(namespace),
            {kind: kinds[namespace, kind] for kind in KINDS},
            selected=bool(cluster.selector),
        )
        for namespace in namespaces
    ]
