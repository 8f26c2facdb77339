"""Who keeps an object as it is, as far as the object itself says so; and the autoscalers."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

import msgspec

from killswitch.clients.kubernetes_kinds import PAUSED_REPLICAS, SKIP_RECONCILE, WORKLOADS
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool

ARGOCD_NAMESPACE: Final = "argocd"
"""Where an Argo CD application is unless its tracking id names another namespace."""
_STOPPED: Final = frozenset(place.kind for place in WORKLOADS.values())
"""Owners that are stopped themselves: a CronJob does not bring its Job back."""


class Owner(msgspec.Struct):
    """One owner reference."""

    kind: str
    name: str
    uid: str = ""


class Meta(msgspec.Struct, rename="camel"):
    """An object's metadata."""

    name: str
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: datetime | None = None
    finalizers: list[str] | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Target(msgspec.Struct):
    """What an autoscaler scales; KEDA leaves the kind out of a Deployment."""

    name: str
    kind: str = "Deployment"


class ReconcilerSpec(msgspec.Struct, rename="camel"):
    """The spec of an autoscaler, or of a Flux object."""

    suspend: bool | None = None
    scale_target_ref: Target | None = None


class ReconcilerItem(msgspec.Struct):
    """An autoscaler, an Argo CD application or a Flux object."""

    metadata: Meta
    spec: ReconcilerSpec = msgspec.field(default_factory=ReconcilerSpec)


def keepers_of(meta: Meta) -> tuple[Keeper, ...]:
    """Return who may set back what a halt has set on the object of `meta`."""
    labels, notes = meta.labels or {}, meta.annotations or {}
    found = [
        Keeper(Tool.OWNER, f"{it.kind} {it.name}")
        for it in meta.owner_references or ()
        if it.kind not in _STOPPED
    ]
    if tracking := notes.get("argocd.argoproj.io/tracking-id"):
        found.append(_application(tracking))
    found += _flux(labels)
    if release := notes.get("meta.helm.sh/release-name"):
        found.append(Keeper(Tool.HELM, release, notes.get("meta.helm.sh/release-namespace", "")))
    if addon := notes.get("objectset.rio.cattle.io/owner-name"):
        found.append(
            Keeper(Tool.K3S, addon, notes.get("objectset.rio.cattle.io/owner-namespace", ""))
        )
    # By this label alone Argo CD knows its own, unless it is told to annotate.
    instance = labels.get("app.kubernetes.io/instance")
    if instance and not any(it.tool in {Tool.ARGOCD, Tool.HELM} for it in found):
        found.append(Keeper(Tool.INSTANCE, instance))
    manager = labels.get("app.kubernetes.io/managed-by")
    if manager and not found:
        found.append(Keeper(Tool.OTHER, manager))
    return tuple(found)


def reconciler_of(keeper: Keeper, item: ReconcilerItem) -> Reconciler:
    """Read what an object says of itself; its own keepers may take a pause back."""
    notes = item.metadata.annotations or {}
    match keeper.tool:
        case Tool.ARGOCD:
            paused = notes.get(SKIP_RECONCILE) == "true"
        case Tool.KEDA:
            paused = notes.get(PAUSED_REPLICAS) == "0"
        case _:
            paused = bool(item.spec.suspend)
    target = item.spec.scale_target_ref
    scales = f"{target.kind} {target.name}" if target else ""
    above = tuple(it for it in keepers_of(item.metadata) if it != keeper)
    return Reconciler(keeper, paused, scales, above)


def is_of_keda(item: ReconcilerItem) -> bool:
    """Return whether it is an autoscaler that KEDA made for a ScaledObject."""
    return any(owner.kind == "ScaledObject" for owner in item.metadata.owner_references or ())


def _application(tracking: str) -> Keeper:
    """Read "app:group/Kind:namespace/name", where the app may be "namespace_app"."""
    app = tracking.partition(":")[0]
    namespace, found, name = app.partition("_")
    return (
        Keeper(Tool.ARGOCD, name, namespace)
        if found
        else Keeper(Tool.ARGOCD, app, ARGOCD_NAMESPACE)
    )


def _flux(labels: Mapping[str, str]) -> Iterator[Keeper]:
    for tool, group in (
        (Tool.KUSTOMIZATION, "kustomize.toolkit.fluxcd.io"),
        (Tool.HELMRELEASE, "helm.toolkit.fluxcd.io"),
    ):
        if name := labels.get(f"{group}/name"):
            yield Keeper(tool, name, labels.get(f"{group}/namespace", "flux-system"))
