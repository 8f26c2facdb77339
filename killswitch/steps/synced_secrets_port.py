"""What the synced-secrets step needs from a cluster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from killswitch.model import Receipt

LOCK: Final = "killswitch-secrets-lock"
"""The name of the quota that keeps Secrets, and what makes them, out."""

PUSHES: Final = "pushsecrets"
SYNCS: Final = "externalsecrets"
PARENTS: Final = ("clusterpushsecrets", "clusterexternalsecrets")
MAKER_OF: Final = dict(zip((PUSHES, SYNCS), PARENTS, strict=True))


class Lock(StrEnum):
    """What was found of the quota; only IN_FORCE keeps anything out."""

    MISSING = "missing"
    OTHER = "there, with another spec"
    PENDING = "there, not in force yet"
    IN_FORCE = "in force"


@dataclass(frozen=True, slots=True)
class Latch:
    """The quota of one namespace, and what it says was found there.

    `names` are Secrets, `makers` cluster-wide objects as "resource/name".
    """

    lock: Lock
    names: frozenset[str] = frozenset()
    makers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Synced:
    """An ExternalSecret or a PushSecret.

    `secrets` are those it writes or reads; `beyond` says in words what it touches besides. `parent`
    is the cluster-wide object that makes it. `ending_s`: how long ago its deletion was asked for,
    by the cluster's own clock, or None.
    """

    name: str
    secrets: tuple[str, ...] = ()
    beyond: str = ""
    parent: str = ""
    ending_s: float | None = None

    @property
    def ending(self) -> bool:
        """Whether its deletion was asked for."""
        return self.ending_s is not None


@dataclass(frozen=True, slots=True)
class Parent:
    """A ClusterExternalSecret or a ClusterPushSecret, and the namespaces that it serves."""

    name: str
    namespaces: frozenset[str] = frozenset()
    ending_s: float | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A Secret that is there; `finalizers` would keep it there after its deletion."""

    finalizers: tuple[str, ...] = ()


class SecretWrites(Protocol):
    """The changes, for real or as dry runs; each is safe to repeat."""

    def lock(self, namespace: str) -> Receipt:
        """Create or mend the quota, with the names of all Secrets that were found so far."""

    def delete(self, resource: str, name: str, namespace: str = "") -> Receipt:
        """Delete one object of External Secrets; cluster-wide without a namespace."""

    def delete_secret(self, namespace: str, name: str) -> Receipt:
        """Delete one Secret."""


class SecretsCluster(Protocol):
    """What the step needs; every call raises VendorError.

    It remembers for its own lifetime what it once saw: a Secret that only an ExternalSecret named
    would be lost with that ExternalSecret.
    """

    @property
    def writes(self) -> SecretWrites:
        """The changes, for real."""

    @property
    def rehearsal(self) -> SecretWrites:
        """The same requests as dry runs: they prove the permission and change nothing."""

    def latch(self, namespace: str) -> Latch:
        """Read the quota."""

    def synced(self, namespace: str, resource: str) -> Sequence[Synced] | None:
        """List the ExternalSecrets or PushSecrets; None when they are not installed."""

    def parents(self, resource: str) -> Sequence[Parent] | None:
        """List the cluster-wide objects; None when they are not installed."""

    def secret(self, namespace: str, name: str) -> Found | None:
        """Tell whether a Secret is there, without reading it; None when it is not."""

    def logins(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that a store logs in with, and which store, as far as may be seen."""

    def discovered(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that were found through other objects so far, and through which."""

    def left(self, namespace: str) -> Mapping[str, str]:
        """Return those that `discovered` leaves out, and the store that logs in with each.

        Only what PushSecrets read, and what this run did not see to be there.
        """

    def seen(self, namespace: str) -> frozenset[str]:
        """Return the Secrets that were seen to be there so far."""

    def lock_refused(self, namespace: str) -> bool:
        """Return whether `writes.lock` was refused so far: the names cannot be noted."""

    def makers(self, resource: str) -> frozenset[str]:
        """Return the cluster-wide objects that a child was seen of so far, or that are noted."""

    def earlier_makers(self, resource: str) -> frozenset[str]:
        """Return those that earlier runs reported: they may serve other namespaces by now."""
