"""HashiCorp Vault: cut who could write secrets back, wipe them, and (opt-in) end the own token."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Final

from killswitch.model import Plan
from killswitch.steps import vault_access, vault_wipe
from killswitch.steps.vault_port import SecretStore, join

_ROLE_DEPTH: Final = 3  # auth/METHOD/role/NAME


@dataclass(frozen=True, slots=True)
class WipeSecrets:
    """Every secret under `paths`, and `mounts` whole; before it `roles` and `revoke_prefixes`.

    `paths`: "trading/" (all of a mount, which stays) or "secret/bots/freqtrade/". `mounts`:
    "trading/", disabled with everything in it. `roles`: "auth/kubernetes/role/eso".
    `revoke_prefixes`: "auth/kubernetes/login". ValueError for what does not look like it.

    An empty path counts only where a secret was seen before: a typo looks the same. A mount that
    cannot be found is blind, seen before or not: one that was renamed (its secrets live on), one
    hidden by a changed policy and one taken away answer alike; it has ended only if Vault
    answered its erasing, in this run or in an earlier halt. A half-erased mount is live: its data
    is still in storage.
    """

    name: ClassVar[str] = "vault"
    evidence: ClassVar[bool] = False

    vault: SecretStore
    system: str
    paths: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    revoke_prefixes: tuple[str, ...] = ()
    revoke_own_token: bool = False

    def __post_init__(self) -> None:
        for path in (*self.paths, *self.mounts):
            if not path.endswith("/") or not _plain(path[:-1]):
                raise ValueError(f'a Vault path to wipe looks like "trading/", not {path!r}')
        for role in self.roles:
            if not _plain(role) or not role.startswith("auth/") or role.count("/") < _ROLE_DEPTH:
                raise ValueError(f'a role looks like "auth/kubernetes/role/eso", not {role!r}')
        for prefix in self.revoke_prefixes:
            if not _plain(prefix) or not prefix.startswith("auth/"):
                raise ValueError(f'a prefix looks like "auth/kubernetes/login", not {prefix!r}')
        inside = [path for path in self.paths if path.startswith(self.mounts)]
        if inside:
            raise ValueError(f"{inside[0]} is in a mount that is erased whole: list it once")
        if not (self.paths or self.mounts or self.roles or self.revoke_prefixes):
            raise ValueError("nothing to do: no paths, mounts, roles or revoke_prefixes")

    def plan(self) -> Plan:
        """List what still holds a secret, or could write one back."""
        seen = self.vault.last_seen
        if seen is not None:
            ended = vault_access.after_own_token(self.vault, seen)
            if ended is not None:
                return ended
        parts = self.vault.each(self._part, self._items())
        rest = join(*parts, vault_access.doubts(self.vault))
        if self.revoke_own_token:
            return vault_access.own_token(self.vault, rest)
        return join(rest, vault_access.kept_token(self.system))

    def _items(self) -> Sequence[tuple[str, str]]:
        return [
            *(("role", role) for role in self.roles),
            *(("prefix", prefix) for prefix in self.revoke_prefixes),
            *(("mount", mount) for mount in self.mounts),
            *(("path", path) for path in self.paths),
        ]

    def _part(self, item: tuple[str, str]) -> Plan:
        kind, path = item
        match kind:
            case "role":
                return vault_access.of_role(self.vault, path)
            case "prefix":
                return vault_access.of_prefix(self.vault, path)
            case "mount":
                return vault_wipe.in_mount(self.vault, path)
            case _:
                return vault_wipe.under_path(self.vault, path)


def mounts_named(targets: Iterable[str]) -> dict[str, str]:
    """Return the mounts, with their accessors, that targets of earlier runs name."""
    found = (vault_wipe.MOUNT.fullmatch(target) for target in targets)
    return {match[1]: match[2] for match in found if match}


def _plain(path: str) -> bool:
    return not {"", ".", ".."} & set(path.split("/"))
