"""What a run must not forget of pods that leave the list."""

from collections.abc import Sequence
from dataclasses import replace

from killswitch.steps.kubernetes_port import OVERDUE_S, Pod


class PodMemory:
    """The pods of one run whose end no list can show, by namespace."""

    def __init__(self) -> None:
        self._doubtful: dict[tuple[str, str], Pod] = {}

    def beside(self, namespace: str, listed: Sequence[Pod]) -> tuple[Pod, ...]:
        """Return the pods that are `listed` now, and those that only left the list.

        A pod that was late, and whose containers had not terminated when it was last seen, may
        have been deleted by force: that tells nothing of its process.
        """
        for pod in listed:
            if pod.static or (pod.overdue_s > OVERDUE_S and not pod.held_by):
                self._doubtful[namespace, _key(pod)] = pod
            else:
                self._doubtful.pop((namespace, _key(pod)), None)
        there = {_key(pod) for pod in listed}
        gone = (pod for pod in self._of(namespace) if _key(pod) not in there)
        return (*listed, *(pod if pod.static else replace(pod, lost=True) for pod in gone))

    def static(self, namespace: str) -> tuple[Pod, ...]:
        """Return the static pods that were ever listed."""
        return tuple(pod for pod in self._of(namespace) if pod.static)

    def _of(self, namespace: str) -> list[Pod]:
        return [pod for (space, _), pod in list(self._doubtful.items()) if space == namespace]


def _key(pod: Pod) -> str:
    # The mirror of the same static pod comes back with another uid.
    return f"static {pod.name}" if pod.static else pod.uid
