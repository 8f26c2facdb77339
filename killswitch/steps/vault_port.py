"""What the Vault step needs from a Vault, and the words in which it is told."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from killswitch.errors import RefusedError, VendorError
from killswitch.model import Clear, Plan

ERASING: Final = "Vault is still erasing; leave this window open"
V2: Final = 2

S = TypeVar("S")


class NoRightError(RefusedError):
    """The token lives, but has no right to what was asked."""


class DeadTokenError(RefusedError):
    """Vault itself, and not a proxy or a firewall before it, says that the token is none."""


@dataclass(frozen=True, slots=True)
class Tree:
    """What a walk found below `folder` of the KV `mount` of `version` 1 or 2.

    `mount` and `folder` end in "/", or `folder` is "" for the whole mount; `names` are the
    secrets' paths inside the mount; `unseen` says which folders could not be listed, and why.
    `accessor` is the mount's own name in Vault: another mount at the same path has another one.
    `beside`: a secret has the very name of the folder, and is not in it.
    """

    mount: str
    accessor: str
    version: int
    folder: str
    names: tuple[str, ...]
    unseen: tuple[VendorError, ...] = ()
    beside: bool = False


@dataclass(frozen=True, slots=True)
class HalfErased:
    """A mount that was unmounted and not erased to the end: unreadable, its data in storage."""

    mount: str
    accessor: str


@dataclass(frozen=True, slots=True)
class Erasing:
    """A mount whose erasing this process asked for, and has no answer to yet."""

    mount: str
    accessor: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A mount that an earlier halt told to be erased: gone, but no answer to it is on record."""

    mount: str
    accessor: str


@dataclass(frozen=True, slots=True)
class Erased:
    """A mount that was seen before, was erased by an answered call, and is gone; `saw` says how."""

    mount: str
    accessor: str
    saw: str


Standing = Tree | HalfErased | Erasing | Gone | Erased


@dataclass(frozen=True, slots=True)
class Role:
    """A role of an auth method. `batch`: tokens made by it cannot be revoked, only run out."""

    path: str
    batch: bool


@dataclass(frozen=True, slots=True)
class OwnToken:
    """The token that killswitch uses: `path` is where it was made, `ttl_s` 0 is for ever."""

    accessor: str
    path: str
    ttl_s: int
    batch: bool


class SecretStore(Protocol):
    """A Vault. Every call raises VendorError, NoRightError where a right is missing."""

    @property
    def asked(self) -> frozenset[str]:
        """The roles and prefixes that Vault, in this run, answered well when told to end them."""

    @property
    def last_seen(self) -> tuple[Clear, ...] | None:
        """What was seen ended when the own token was told to end; None before."""

    @property
    def namespace_doubt(self) -> str:
        """Say that the namespace may be ignored; "" if there is none, or no reason to think so."""

    def each(self, look: Callable[[S], Plan], items: Sequence[S]) -> list[Plan]:
        """Look at all items side by side."""

    def steady(self, *, clean: bool) -> bool:
        """Take in whether all but the own token is clean; True when it was for long enough."""

    def seen(self, live: Iterable[str]) -> frozenset[str]:
        """Take in what is live; return all that was, in this run or in an earlier halt."""

    def walk(self, path: str) -> Tree | HalfErased:
        """Find every secret below `path`; empty only if the mount is there and said so."""

    def replaced(self, path: str) -> tuple[str, ...]:
        """Return the mounts that were seen at `path` in this run, and were moved or taken away."""

    def delete(self, tree: Tree) -> int:
        """Delete secrets of `tree` with all versions and metadata; return how many in time."""

    def missing_rights(self, tree: Tree) -> tuple[str, ...]:
        """Return what the token may not do of a wipe of `tree`: "delete trading/metadata/x"."""

    def look_at(self, mount: str) -> Standing:
        """See what stands at exactly `mount`, or stood there."""

    def erase(self, mount: str, accessor: str) -> None:
        """Disable the mount with all its data, and wait for the answer as long as it takes."""

    def lacks(self, *needed: tuple[str, str]) -> tuple[str, ...]:
        """Return which of the rights (right, path) are missing: "delete sys/mounts/trading"."""

    def role(self, path: str) -> Role | None:
        """Read a role; None if its auth method is there and has no such role."""

    def delete_role(self, path: str) -> None:
        """Delete a role."""

    def leases(self, prefix: str) -> int | None:
        """Count what is leased under `prefix` of an auth method; None if that is not there."""

    def revoke_prefix(self, prefix: str) -> None:
        """Revoke every token and lease made under `prefix`."""

    def own_token(self) -> OwnToken:
        """Look up the own token; raises DeadTokenError when it has ended."""

    def revoke_own_token(self, seen: tuple[Clear, ...]) -> None:
        """End the own token; `seen` is kept as what was seen with it."""


def first(texts: Sequence[str]) -> str:
    """Return the first of `texts`, and how many more there are."""
    return texts[0] if len(texts) == 1 else f"{texts[0]} (and {len(texts) - 1} more)"


def secrets(count: int) -> str:
    """Return "1 secret", "2 secrets"."""
    return f"{count} secret" + ("s" if count != 1 else "")


def join(*parts: Plan) -> Plan:
    """Return one plan of all parts."""
    return Plan(
        live=tuple(each for part in parts for each in part.live),
        blind=tuple(each for part in parts for each in part.blind),
        clear=tuple(each for part in parts for each in part.clear),
        notes=tuple(each for part in parts for each in part.notes),
    )
