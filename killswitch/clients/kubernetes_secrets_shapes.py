"""What External Secrets' JSON looks like, as far as it is read, and what it means.

Shapes ignore the fields that they do not name; empty ones may be left out or null. A Secret has
no shape here: its values are never read.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec

from killswitch.clients.kubernetes_shapes import ListMeta, Quota
from killswitch.steps.synced_secrets_port import LOCK, Lock, Parent, Synced

GROUP: Final = "external-secrets.io"
HARD: Final = {
    "secrets": "0",
    f"count/externalsecrets.{GROUP}": "0",
    f"count/pushsecrets.{GROUP}": "0",
}
NAMES: Final = "killswitch/secrets"
"""The quota's annotation with the Secrets that were found: they outlive what named them."""
MAKERS: Final = "killswitch/makers"
"""The same with the cluster-wide objects that a child was seen of, as "resource/name"."""


class Owner(msgspec.Struct, rename="camel"):
    """One owner reference."""

    kind: str
    name: str
    api_version: str = ""


class Metadata(msgspec.Struct, rename="camel"):
    """An object's metadata."""

    name: str = ""
    uid: str = ""
    deletion_timestamp: datetime | None = None
    finalizers: list[str] | None = None
    owner_references: list[Owner] | None = None
    annotations: dict[str, str] | None = None


class SecretRef(msgspec.Struct):
    """Names one Secret, or chooses some by their labels."""

    name: str = ""
    selector: Any = None


class Manifest(msgspec.Struct):
    """Names a target that is no Secret."""

    kind: str = ""


class Target(msgspec.Struct, rename="camel"):
    """What an ExternalSecret writes."""

    name: str = ""
    creation_policy: str = "Owner"
    manifest: Manifest | None = None


class Selector(msgspec.Struct):
    """What a PushSecret reads."""

    secret: SecretRef | None = None


class Spec(msgspec.Struct):
    """The spec of an ExternalSecret, a PushSecret or a store."""

    target: Target | None = None
    selector: Selector | None = None
    provider: Any = None


class Failed(msgspec.Struct):
    """A namespace in which a cluster-wide object could not make its own."""

    namespace: str = ""


class State(msgspec.Struct, rename="camel"):
    """The status of an ExternalSecret, or of a cluster-wide object."""

    binding: SecretRef | None = None
    provisioned_namespaces: list[str] | None = None
    failed_namespaces: list[Failed] | None = None


class Thing(msgspec.Struct):
    """One entry of a list."""

    metadata: Metadata
    spec: Spec = msgspec.field(default_factory=Spec)
    status: State = msgspec.field(default_factory=State)


class Things(msgspec.Struct):
    """One page of a list; without defaults, so that another answer never reads as empty."""

    kind: str
    metadata: ListMeta
    items: list[Thing] | None


class Served(msgspec.Struct, rename="camel"):
    """One version of an API group."""

    version: str


class Group(msgspec.Struct, rename="camel"):
    """One API group; the preferred version is among the others."""

    name: str
    versions: list[Served]


class Groups(msgspec.Struct):
    """The answer of /apis."""

    kind: str
    groups: list[Group]


class Resource(msgspec.Struct):
    """One resource of a version."""

    name: str


class Resources(msgspec.Struct):
    """The answer of /apis/GROUP/VERSION."""

    kind: str
    resources: list[Resource]


class Details(msgspec.Struct):
    """What a Status is about."""

    name: str = ""
    kind: str = ""
    uid: str = ""


class Deletion(msgspec.Struct):
    """The answer to a deletion: a Status, or an object's metadata."""

    kind: str
    reason: str = ""
    details: Details = msgspec.field(default_factory=Details)
    metadata: Metadata = msgspec.field(default_factory=Metadata)


def synced_of(thing: Thing, resource: str, now: datetime | None) -> Synced:
    """Read an ExternalSecret or a PushSecret; `now` is the server's clock."""
    names, beyond = _written(thing) if resource == "externalsecrets" else _pushed(thing)
    owners = thing.metadata.owner_references or ()
    made = (o.name for o in owners if o.kind.startswith("Cluster") and GROUP in o.api_version)
    return Synced(
        name=thing.metadata.name,
        secrets=tuple(dict.fromkeys(filter(None, names))),
        beyond=beyond,
        parent=next(made, ""),
        ending_s=_ending_s(thing.metadata, now),
    )


def parent_of(thing: Thing, now: datetime | None) -> Parent:
    """Read a ClusterExternalSecret or a ClusterPushSecret."""
    failed = (one.namespace for one in thing.status.failed_namespaces or ())
    served = frozenset([*(thing.status.provisioned_namespaces or ()), *failed])
    return Parent(thing.metadata.name, served, _ending_s(thing.metadata, now))


def logins_of(thing: Thing, namespace: str, *, cluster_wide: bool) -> Iterator[tuple[str, str]]:
    """Yield each Secret of `namespace` that a store logs in with, and the store."""
    store = f"{'ClusterSecretStore' if cluster_wide else 'SecretStore'} {thing.metadata.name}"
    for name, place in _references(thing.spec.provider, ""):
        if place in {"", namespace}:
            yield name, store


def lock_of(quota: Quota) -> Lock:
    """Tell whether `quota` keeps Secrets, and what makes them, out."""
    spec = quota.spec
    if not _nothing(spec.hard) or spec.scopes or spec.scope_selector:
        return Lock.OTHER
    # Admission goes by the status, which a controller fills in some milliseconds later.
    return Lock.IN_FORCE if _nothing(quota.status.hard) else Lock.PENDING


def lock_body(names: Iterable[str], makers: Iterable[str]) -> dict[str, object]:
    """Return the quota as it is to be, with the Secrets and the makers that were found."""
    noted = {NAMES: " ".join(sorted(names)), MAKERS: " ".join(sorted(makers))}
    return {"metadata": {"name": LOCK, "annotations": noted}, "spec": {"hard": HARD}}


def names_in(annotations: Mapping[str, str] | None, key: str = NAMES) -> frozenset[str]:
    """Return what one of the quota's annotations names."""
    return frozenset((annotations or {}).get(key, "").split())


def _nothing(hard: Mapping[str, str | int] | None) -> bool:
    return all((hard or {}).get(name) in {"0", 0} for name in HARD)


def _written(thing: Thing) -> tuple[list[str], str]:
    target = thing.spec.target or Target()
    bound = thing.status.binding.name if thing.status.binding else ""
    if target.manifest is not None:
        return [bound], f"writes a {target.manifest.kind}"
    if target.creation_policy == "None":
        return [], ""
    return [target.name or thing.metadata.name, bound], ""


def _pushed(thing: Thing) -> tuple[list[str], str]:
    source = thing.spec.selector.secret if thing.spec.selector else None
    if source is None:
        return [], ""
    return [source.name], "pushes Secrets that it chooses by label" if source.selector else ""


def _references(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Yield name and namespace of every Secret that a provider's settings refer to."""
    if isinstance(value, dict):
        secret = key.endswith(("SecretRef", "secretRef")) or "key" in value
        name, place = value.get("name"), value.get("namespace") or ""
        if secret and isinstance(name, str) and name and value.get("type") != "ConfigMap":
            yield name, str(place)
        for below, part in value.items():
            yield from _references(part, below)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part, key)


def _ending_s(meta: Metadata, now: datetime | None) -> float | None:
    if meta.deletion_timestamp is None:
        return None
    return max(0.0, (now - meta.deletion_timestamp).total_seconds()) if now else 0.0
