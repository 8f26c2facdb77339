"""Where each kind of object is in the API, and the patch that ends its wish for pods."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from killswitch.steps.kubernetes_keepers import Tool

HALTED: Final = {"killswitch/halted": "true"}
"""The node label that a stopped DaemonSet selects, and that no node has."""
_APPS: Final = "/apis/apps/v1"
_BATCH: Final = "/apis/batch/v1"


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of object: its API, and the merge patch that stops or pauses one.

    `subresource` is what is patched in the object's place: "/scale".
    """

    api: str
    resource: str
    kind: str
    patch: Mapping[str, object] = field(default_factory=dict)
    subresource: str = ""

    @property
    def list_path(self) -> str:
        """The path of all of them in a namespace."""
        return f"{self.api}/namespaces/{{namespace}}/{self.resource}"

    @property
    def path(self) -> str:
        """The path of one of them."""
        return f"{self.list_path}/{{name}}"


def _scaled(api: str, resource: str, kind: str) -> Place:
    return Place(api, resource, kind, {"spec": {"replicas": 0}}, "/scale")


_SUSPENDED: Final = {"spec": {"suspend": True}}
_NOWHERE: Final = {"spec": {"template": {"spec": {"nodeSelector": HALTED}}}}
WORKLOADS: Final[Mapping[str, Place]] = {
    place.resource: place
    for place in (
        _scaled(_APPS, "deployments", "Deployment"),
        _scaled(_APPS, "statefulsets", "StatefulSet"),
        _scaled(_APPS, "replicasets", "ReplicaSet"),
        _scaled("/api/v1", "replicationcontrollers", "ReplicationController"),
        Place(_APPS, "daemonsets", "DaemonSet", _NOWHERE),
        Place(_BATCH, "jobs", "Job", _SUSPENDED),
        Place(_BATCH, "cronjobs", "CronJob", _SUSPENDED),
    )
}

SKIP_RECONCILE: Final = "argocd.argoproj.io/skip-reconcile"
PAUSED_REPLICAS: Final = "autoscaling.keda.sh/paused-replicas"
RECONCILERS: Final[Mapping[Tool, Place]] = {
    Tool.ARGOCD: Place(
        "/apis/argoproj.io/v1alpha1",
        "applications",
        "Application",
        {"metadata": {"annotations": {SKIP_RECONCILE: "true"}}},
    ),
    Tool.KUSTOMIZATION: Place(
        "/apis/kustomize.toolkit.fluxcd.io/v1", "kustomizations", "Kustomization", _SUSPENDED
    ),
    Tool.HELMRELEASE: Place(
        "/apis/helm.toolkit.fluxcd.io/v2", "helmreleases", "HelmRelease", _SUSPENDED
    ),
    # Never deleted: with restoreToOriginalReplicaCount that alone would scale up.
    Tool.KEDA: Place(
        "/apis/keda.sh/v1alpha1",
        "scaledobjects",
        "ScaledObject",
        {"metadata": {"annotations": {PAUSED_REPLICAS: "0"}}},
    ),
    Tool.HPA: Place("/apis/autoscaling/v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
}
