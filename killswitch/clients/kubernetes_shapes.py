"""What the Kubernetes API's JSON looks like, as far as it is read, and what it means.

Shapes ignore the fields that they do not name; zeros and empty lists may be left out or null.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from killswitch.steps.kubernetes_port import Lock, Pod, Workload

# Who may ask for pods again, as far as an object itself says so.
_OWNER_MARKS: Final = {
    "argocd.argoproj.io/tracking-id": "Argo CD",
    "kustomize.toolkit.fluxcd.io/name": "Flux",
    "app.kubernetes.io/managed-by": "",
}


class Owner(msgspec.Struct):
    """One owner reference."""

    kind: str
    name: str


class Meta(msgspec.Struct, rename="camel"):
    """An object's metadata."""

    name: str
    uid: str = ""
    resource_version: str = ""
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: list[Owner] | None = None


class Spec(msgspec.Struct, rename="camel"):
    """The spec of a pod, a workload or a scale."""

    node_name: str = ""
    # Absent means the default of 1 here, but 0 on the scale subresource.
    replicas: int | None = None


class Item(msgspec.Struct):
    """One entry of a list."""

    metadata: Meta
    spec: Spec


class ListMeta(msgspec.Struct, rename={"next_page": "continue"}):
    """A list's metadata."""

    next_page: str = ""


class Page(msgspec.Struct):
    """One page of a list; without defaults, so that another answer never reads as empty."""

    kind: str
    metadata: ListMeta
    items: list[Item] | None


class QuotaSpec(msgspec.Struct, rename="camel"):
    """What a quota is to allow."""

    hard: dict[str, str | int] | None = None
    scopes: list[str] | None = None
    scope_selector: Any = None


class QuotaStatus(msgspec.Struct):
    """What the cluster has taken into force."""

    hard: dict[str, str | int] | None = None


class Quota(msgspec.Struct):
    """A ResourceQuota."""

    metadata: Meta
    spec: QuotaSpec
    status: QuotaStatus = msgspec.field(default_factory=QuotaStatus)


class Named(msgspec.Struct):
    """Any object."""

    metadata: Meta


class Scale(msgspec.Struct):
    """The scale subresource."""

    metadata: Meta
    spec: Spec = msgspec.field(default_factory=Spec)


class Version(msgspec.Struct, rename="camel"):
    """The answer of /version."""

    git_version: str


def pod_of(item: Item, now: datetime | None) -> Pod:
    """Read a pod; `now` is the server's clock."""
    return Pod(
        name=item.metadata.name,
        node=item.spec.node_name,
        ending=item.metadata.deletion_timestamp is not None,
        overdue_s=_overdue_s(item.metadata, now),
    )


def workload_of(item: Item) -> Workload:
    """Read a Deployment or a StatefulSet."""
    replicas = 1 if item.spec.replicas is None else item.spec.replicas
    return Workload(item.metadata.name, replicas, _owner(item.metadata))


def lock_of(quota: Quota) -> Lock:
    """Tell whether `quota` keeps every pod out."""
    spec = quota.spec
    if not _no_pod(spec.hard) or spec.scopes or spec.scope_selector:
        return Lock.OTHER
    # Admission goes by the status, which a controller fills in some milliseconds later.
    return Lock.IN_FORCE if _no_pod(quota.status.hard) else Lock.PENDING


def _no_pod(hard: Mapping[str, str | int] | None) -> bool:
    return (hard or {}).get("pods") in {"0", 0}


def _owner(meta: Meta) -> str:
    for owner in meta.owner_references or ():
        return f"{owner.kind} {owner.name}"
    marks = (meta.labels or {}) | (meta.annotations or {})
    for mark, tool in _OWNER_MARKS.items():
        if value := marks.get(mark):
            return f"{tool} ({value})" if tool else value
    return ""


def _overdue_s(meta: Meta, now: datetime | None) -> float:
    if meta.deletion_timestamp is None or now is None:
        return 0.0
    return max(0.0, (now - meta.deletion_timestamp).total_seconds())
