"""The objects of the sandbox's cluster that no controller of its own acts on: kept as they came."""

from collections.abc import Iterable
from copy import deepcopy
from typing import Any, Final

Json = dict[str, Any]
OPEN: Final = {
    "horizontalpodautoscalers": ("autoscaling", "v2", "HorizontalPodAutoscaler"),
    "scaledobjects": ("keda.sh", "v1alpha1", "ScaledObject"),
    "applications": ("argoproj.io", "v1alpha1", "Application"),
    "kustomizations": ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization"),
    "helmreleases": ("helm.toolkit.fluxcd.io", "v2", "HelmRelease"),
}
"""Resource to group, version and kind."""
_BUILT_IN: Final = "autoscaling"
_BOT: Final = {"kind": "Deployment", "name": "freqtrade"}
_SEEDS: Final[dict[str, tuple[str, str, str, Json]]] = {
    "keda-scales-back": ("scaledobjects", "trading", "freqtrade", {"scaleTargetRef": _BOT}),
    "argocd-scales-back": ("applications", "argocd", "bots", {"project": "default"}),
    "flux-scales-back": ("kustomizations", "flux-system", "bots", {"interval": "1m"}),
}
_MARKS: Final[dict[str, tuple[dict[str, str], dict[str, str]]]] = {
    "argocd-scales-back": (
        {},
        {"argocd.argoproj.io/tracking-id": "bots:apps/Deployment:trading/freqtrade"},
    ),
    "flux-scales-back": (
        {
            "kustomize.toolkit.fluxcd.io/name": "bots",
            "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
        },
        {},
    ),
}


class Objects:
    """Every open object, by resource, namespace and name."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, str, str], Json] = {}
        self.installed = {_BUILT_IN}

    def put(self, resource: str, namespace: str, name: str, spec: Json, **meta: Any) -> Json:
        """Put an object there, and install its kind; return it to be edited."""
        group, version, kind = OPEN[resource]
        self.installed.add(group)
        self.there[resource, namespace, name] = {
            "apiVersion": f"{group}/{version}",
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1"} | meta,
            "spec": deepcopy(spec),
        }
        return self.there[resource, namespace, name]

    def listed(self, resource: str, namespace: str) -> list[Json]:
        """Return the objects of one kind in a namespace."""
        return [
            body
            for (kind, space, _), body in self.there.items()
            if (kind, space) == (resource, namespace)
        ]

    def seed(self, traps: Iterable[str]) -> None:
        """Put what the traps are about there, once."""
        for trap in traps:
            if trap in _SEEDS and _SEEDS[trap][:3] not in self.there:
                self.put(*_SEEDS[trap])

    def fight(self, traps: Iterable[str]) -> bool:
        """Return whether a reconciler of a trap is there that is not paused."""
        return any(trap in _SEEDS and not _paused(self.there[_SEEDS[trap][:3]]) for trap in traps)


def marks(traps: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the labels and annotations by which the reconcilers of the traps know their own."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for trap in traps:
        of_labels, of_annotations = _MARKS.get(trap, ({}, {}))
        labels |= of_labels
        annotations |= of_annotations
    return labels, annotations


def _paused(body: Json) -> bool:
    notes = body["metadata"].get("annotations", {})
    return bool(
        body["spec"].get("suspend")
        or notes.get("argocd.argoproj.io/skip-reconcile") == "true"
        or notes.get("autoscaling.keda.sh/paused-replicas") == "0"
    )
