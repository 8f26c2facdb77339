"""Which pods labels choose: those that have them, and those of what makes pods with them."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from killswitch.clients.kubernetes_kinds import WORKLOADS
from killswitch.clients.kubernetes_owners import Meta
from killswitch.clients.kubernetes_shapes import Item, PodItem, is_chosen
from killswitch.errors import VendorError

_KINDS = {place.kind: resource for resource, place in WORKLOADS.items()}
_DEEPEST = 4
Listed = Callable[[str], Mapping[str, Item]]
"""Lists one kind of workload, by uid."""


class Choice:
    """The pods that `labels` choose in one run; without labels, all of them.

    A pod may run without the labels of its workload's template: made before that was changed
    (OnDelete, a partition, a stuck rollout), or relabelled since.
    """

    def __init__(self, labels: Mapping[str, str]) -> None:
        self.labels = labels
        self._counted: set[str] = set()
        self._strays: dict[str, tuple[str, ...]] = {}

    def of(self, namespace: str, pods: Sequence[PodItem], listed: Listed) -> list[PodItem]:
        """Return those of `pods` that are chosen; a pod that once was, stays so.

        Raises VendorError when none is, and it could not be seen what one of them belongs to.
        """
        listed = cache(listed)
        chosen, errors = [], []
        for pod in pods:
            try:
                if (
                    self._has_labels(pod)
                    or pod.metadata.uid in self._counted
                    or self._is_of_chosen(pod.metadata, listed)
                ):
                    chosen.append(pod)
            except VendorError as error:
                errors.append(error)
        if errors and not chosen:
            raise errors[0]
        self._counted.update(pod.metadata.uid for pod in chosen)
        self._strays[namespace] = tuple(
            pod.metadata.name for pod in chosen if not self._has_labels(pod)
        )
        return chosen

    def strays(self, namespace: str) -> tuple[str, ...]:
        """Return the names of the newest look's pods that no request by labels reaches."""
        return self._strays.get(namespace, ())

    def _has_labels(self, pod: PodItem) -> bool:
        return self.labels.items() <= (pod.metadata.labels or {}).items()

    def _is_of_chosen(self, meta: Meta, listed: Listed, depth: int = 0) -> bool:
        for owner in meta.owner_references or ():
            kind = _KINDS.get(owner.kind)
            item = listed(kind).get(owner.uid) if kind and depth < _DEEPEST else None
            if item and (
                is_chosen(item, self.labels) or self._is_of_chosen(item.metadata, listed, depth + 1)
            ):
                return True
        return False
