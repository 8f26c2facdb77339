"""The API's objects as far as a halt reads them, and what they mean to it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

import msgspec

from killswitch.clients.kubernetes_kinds import HALTED
from killswitch.clients.kubernetes_owners import Meta, keepers_of
from killswitch.steps.kubernetes_port import Lock, Pod, Workload

_MIRROR: Final = "kubernetes.io/config.mirror"
_ENDED: Final = frozenset({"Complete", "Failed"})
T = TypeVar("T")


class State(msgspec.Struct):
    """What a container does: one of three, of which one is an end."""

    terminated: dict[str, Any] | None = None


class ContainerStatus(msgspec.Struct):
    """One container as its node last told."""

    state: State | None = None


class PodSpec(msgspec.Struct, rename="camel"):
    """The spec of a pod."""

    node_name: str = ""
    containers: list[Any] | None = None


class PodStatus(msgspec.Struct, rename="camel"):
    """What the node last told of a pod."""

    container_statuses: list[ContainerStatus] | None = None
    init_container_statuses: list[ContainerStatus] | None = None
    ephemeral_container_statuses: list[ContainerStatus] | None = None


class PodItem(msgspec.Struct):
    """One entry of a list of pods."""

    metadata: Meta
    spec: PodSpec
    status: PodStatus = msgspec.field(default_factory=PodStatus)


class Labelled(msgspec.Struct):
    """The metadata of a template."""

    labels: dict[str, str] | None = None


class TemplateSpec(msgspec.Struct, rename="camel"):
    """The spec of a pod template."""

    node_selector: dict[str, str] | None = None


class Template(msgspec.Struct):
    """A pod template."""

    metadata: Labelled = msgspec.field(default_factory=Labelled)
    spec: TemplateSpec = msgspec.field(default_factory=TemplateSpec)


class Spec(msgspec.Struct, rename="camel"):
    """The spec of a workload or a scale."""

    # Absent means the default of 1 here, but 0 on the scale subresource.
    replicas: int | None = None
    parallelism: int | None = None
    suspend: bool | None = None
    template: Template | None = None
    job_template: "JobTemplate | None" = None


class JobTemplate(msgspec.Struct):
    """What a CronJob makes."""

    spec: Spec


class Condition(msgspec.Struct):
    """One condition of a Job."""

    type: str
    status: str


class Status(msgspec.Struct, rename="camel"):
    """The status of a workload."""

    conditions: list[Condition] | None = None
    desired_number_scheduled: int | None = None


class Item(msgspec.Struct):
    """One entry of a list of workloads."""

    metadata: Meta
    spec: Spec
    status: Status = msgspec.field(default_factory=Status)


class ListMeta(msgspec.Struct, rename={"next_page": "continue"}):
    """A list's metadata."""

    next_page: str = ""


class Page(msgspec.Struct, Generic[T]):
    """One page of a list; without defaults, so that another answer never reads as empty."""

    kind: str
    metadata: ListMeta
    items: list[T] | None


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


def pod_of(item: PodItem, now: datetime | None) -> Pod:
    """Read a pod; `now` is the server's clock."""
    meta = item.metadata
    ending = meta.deletion_timestamp is not None
    return Pod(
        name=meta.name,
        node=item.spec.node_name,
        ending=ending,
        overdue_s=_overdue_s(meta, now),
        held_by=", ".join(meta.finalizers or ()) if ending and _terminated(item) else "",
        uid=meta.uid,
        static=_is_mirror(meta),
    )


def workload_of(kind: str, item: Item) -> Workload:
    """Read what asks for pods."""
    return Workload(item.metadata.name, _wanted(kind, item), keepers_of(item.metadata))


def is_chosen(item: Item, selector: Mapping[str, str]) -> bool:
    """Return whether the pods of a workload have the labels of `selector`."""
    job = item.spec.job_template
    template = (job.spec if job else item.spec).template or Template()
    labels = template.metadata.labels or {}
    return selector.items() <= labels.items()


def is_of_deployment(item: Item) -> bool:
    """Return whether a Deployment owns it, which alone says how many pods it asks for."""
    return any(owner.kind == "Deployment" for owner in item.metadata.owner_references or ())


def is_finished(item: Item) -> bool:
    """Return whether it is a Job that makes no pod any more."""
    conditions = item.status.conditions or ()
    return any(it.type in _ENDED and it.status == "True" for it in conditions)


def lock_of(quota: Quota) -> Lock:
    """Tell whether `quota` keeps every pod out."""
    spec = quota.spec
    if not _no_pod(spec.hard) or spec.scopes or spec.scope_selector:
        return Lock.OTHER
    # Admission goes by the status, which a controller fills in some milliseconds later.
    return Lock.IN_FORCE if _no_pod(quota.status.hard) else Lock.PENDING


def _is_mirror(meta: Meta) -> bool:
    """Return whether it only shows what a node runs from a file of its own."""
    owners = meta.owner_references or ()
    return _MIRROR in (meta.annotations or {}) or any(owner.kind == "Node" for owner in owners)


def _wanted(kind: str, item: Item) -> int:
    spec, status = item.spec, item.status
    match kind:
        case "daemonsets":
            chosen = (spec.template or Template()).spec.node_selector or {}
            halted = chosen.items() >= HALTED.items()
            return 0 if halted else max(1, status.desired_number_scheduled or 0)
        case "cronjobs":
            return 0 if spec.suspend else 1
        case "jobs":
            return 0 if spec.suspend else _or_one(spec.parallelism)
        case _:
            return _or_one(spec.replicas)


def _or_one(number: int | None) -> int:
    return 1 if number is None else number


def _no_pod(hard: Mapping[str, str | int] | None) -> bool:
    return (hard or {}).get("pods") in {"0", 0}


def _terminated(pod: PodItem) -> bool:
    """Return whether its node told that every container ended, or no node ever had it."""
    status = pod.status
    main = status.container_statuses or ()
    rest = (status.init_container_statuses or (), status.ephemeral_container_statuses or ())
    if not pod.spec.node_name:
        return True
    return len(main) == len(pod.spec.containers or ()) > 0 and _all_ended((main, *rest))


def _all_ended(groups: Iterable[Iterable[ContainerStatus]]) -> bool:
    return all(it.state and it.state.terminated is not None for group in groups for it in group)


def _overdue_s(meta: Meta, now: datetime | None) -> float:
    if meta.deletion_timestamp is None or now is None:
        return 0.0
    return max(0.0, (now - meta.deletion_timestamp).total_seconds())
