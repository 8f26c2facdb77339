"""What a run must not forget of pods that leave the list."""

from collections.abc import Sequence

from killswitch.steps.kubernetes_port import Pod


class PodMemory:
    """The pods of one run whose end no list can show, by namespace."""

    def __init__(self) -> None:
        self._doubtful: dict[tuple[str, str], Pod] = {}

    def beside(self, namespace: str, listed: Sequence[Pod]) -> tuple[Pod, ...]:
        """Return the pods that are `listed` now, and those that only left the list."""
        for pod in listed:
            if pod.static:
                self._doubtful[namespace, pod.name] = pod
        there = {pod.name for pod in listed if pod.static}
        return (*listed, *(pod for pod in self.static(namespace) if pod.name not in there))

    def static(self, namespace: str) -> tuple[Pod, ...]:
        """Return the static pods that were ever listed."""
        return tuple(pod for (space, _), pod in list(self._doubtful.items()) if space == namespace)
