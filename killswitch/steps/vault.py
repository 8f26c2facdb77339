"""Wipe the trader's secrets from HashiCorp Vault: every KV secret under the configured paths."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Protocol

from killswitch.errors import RefusedError, VendorError
from killswitch.model import Action, Blind, Clear, Plan, Receipt

# Phase 1 is kept for the roles and tokens that could write a secret back, phase 3 for the kill
# switch's own token, which is needed until the end.
_WIPE_PHASE: Final = 2


@dataclass(frozen=True, slots=True)
class Tree:
    """What a walk found below `folder` of the KV `mount` of `version` 1 or 2.

    `mount` and `folder` end in "/", or `folder` is "" for the whole mount; `names` are the
    secrets' paths inside the mount; `unseen` says which folders could not be listed, and why.
    `accessor` is the mount's own name in Vault: another mount at the same path has another one.
    """

    mount: str
    accessor: str
    version: int
    folder: str
    names: tuple[str, ...]
    unseen: tuple[VendorError, ...] = ()


class SecretStore(Protocol):
    """What this step needs from a Vault; every call raises VendorError."""

    def walk(self, path: str) -> Tree:
        """Find every secret below `path`; empty only if the mount is there and said so."""

    def delete(self, tree: Tree) -> None:
        """Delete the secrets of `tree` with all versions and metadata."""

    def missing_rights(self, tree: Tree) -> tuple[str, ...]:
        """Return what the token may not do of a wipe of `tree`: "delete trading/metadata/x"."""

    def token_ttl_s(self) -> int:
        """Return how long the token will live; 0 for ever."""


@dataclass(frozen=True, slots=True)
class WipeSecrets:
    """Every secret under `paths`: "trading/" (a whole mount) or "secret/bots/freqtrade/".

    An empty path counts only where a secret was seen before: a typo looks the same. A mount that
    cannot be found is blind, seen before or not: one that was renamed (its secrets live on), one
    hidden by a changed policy and one taken away answer alike. So is a half erased mount: its
    data is still in storage. ValueError for a path that is no plain folder ending in "/": LIST
    of a secret answers like LIST of an empty folder, so only folders can be verified.
    """

    name: ClassVar[str] = "vault"
    evidence: ClassVar[bool] = False

    vault: SecretStore
    system: str
    paths: tuple[str, ...]

    def __post_init__(self) -> None:
        for path in self.paths:
            if not path.endswith("/") or {"", ".", ".."} & set(path[:-1].split("/")):
                raise ValueError(f'a Vault path to wipe looks like "trading/", not {path!r}')

    def plan(self) -> Plan:
        """List the paths that still hold a secret, each as one action."""
        live, blind, clear = [], [], []
        for path in self.paths:
            place = path.removesuffix("/")
            try:
                tree = self.vault.walk(path)
            except VendorError as error:
                blind.append(Blind(place, error.problem, lasting=error.lasting))
                continue
            # The mount is part of the name: what was seen in one mount says nothing of another
            # that took its place.
            target = f"{place}/ in {tree.accessor}"
            clear.append(Clear(place, f"kv v{tree.version}"))
            if tree.unseen:
                problems = tuple(error.problem for error in tree.unseen)
                lasting = all(error.lasting for error in tree.unseen)
                blind.append(Blind(target, _first(problems), lasting))
            if tree.names:
                live.append(self._action(target, path, len(tree.names)))
            elif not tree.unseen:
                clear.append(Clear(target, "empty: LIST answers 404", only_if_known=True))
        return Plan(tuple(live), tuple(blind), tuple(clear))

    def _action(self, target: str, path: str, amount: int) -> Action:
        return Action(
            verb="delete",
            target=target,
            perform=partial(self._wipe, path),
            rehearse=partial(self._rehearse, path),
            phase=_WIPE_PHASE,
            amount=amount,
        )

    def _wipe(self, path: str) -> Receipt:
        tree = self.vault.walk(path)
        self.vault.delete(tree)
        return Receipt(f"{_secrets(tree)} deleted", {"kv_version": str(tree.version)})

    def _rehearse(self, path: str) -> Receipt:
        tree = self.vault.walk(path)
        if tree.unseen:
            raise tree.unseen[0]
        missing = self.vault.missing_rights(tree)
        if missing:
            raise RefusedError(f"the token may not {_first(missing)}")
        ttl_s = str(self.vault.token_ttl_s())
        return Receipt(f"may list and delete {_secrets(tree)}", {"token_ttl_s": ttl_s})


def _first(texts: tuple[str, ...]) -> str:
    return texts[0] if len(texts) == 1 else f"{texts[0]} (and {len(texts) - 1} more)"


def _secrets(tree: Tree) -> str:
    return f"{len(tree.names)} secret" + ("s" if len(tree.names) != 1 else "")
