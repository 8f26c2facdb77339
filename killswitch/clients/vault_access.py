"""Roles, what was issued by them, and the own token."""

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote

import msgspec

from killswitch.clients import vault_http as wire
from killswitch.clients.vault_line import Line, Reply
from killswitch.clients.vault_pool import each
from killswitch.clients.vault_secrets import has_no_route
from killswitch.errors import RefusedError, VendorError
from killswitch.model import Clear, Plan
from killswitch.steps.vault_port import DeadTokenError, OwnToken, Role

if TYPE_CHECKING:
    import hvac

S = TypeVar("S")


class _Role(msgspec.Struct):
    token_type: str = ""


class _Keys(msgspec.Struct):
    keys: list[str]


class Access(Line):
    """Who has access to one Vault, and what this run told to end."""

    @property
    def asked(self) -> frozenset[str]:
        """The roles and prefixes that Vault, in this run, answered well when told to end them."""
        return self._memory.asked

    @property
    def last_seen(self) -> tuple[Clear, ...] | None:
        """What was seen ended when the own token was told to end; None before."""
        return self._memory.last_seen

    def each(self, look: Callable[[S], Plan], items: Sequence[S]) -> list[Plan]:
        """Look at all items side by side."""
        plans = each(look, items)
        for plan in plans:
            if isinstance(plan, VendorError):
                raise plan
        return [plan for plan in plans if isinstance(plan, Plan)]

    def steady(self, *, clean: bool) -> bool:
        """Take in whether all but the own token is clean; True when it was for long enough.

        A client that may only read need not wait: nothing will go.
        """
        known, now = self._memory, time.monotonic()
        if not clean:
            known.clean_since = None
            return False
        known.clean_since = now if known.clean_since is None else known.clean_since
        return not self._may_write or now - known.clean_since >= self._steady_s

    def seen(self, live: Iterable[str]) -> frozenset[str]:
        """Take in what is live; return all that was, in this run or in an earlier halt."""
        self._memory.seen |= frozenset(live)
        return self._memory.seen

    def role(self, path: str) -> Role | None:
        """Read a role; None if its auth method is there and has no such role."""
        status, body = self._ask(partial(_get, path))
        if status == 404 and wire.parse(body, wire.Errors).errors == []:
            return None
        if has_no_route(status, body):
            raise RefusedError(f"no auth method is there: {wire.not_ok(status, body)}")
        if status == 403:
            raise self._refusal(f"may not read {path}: {wire.not_ok(status, body)}")
        if status != 200:
            raise wire.not_ok(status, body)
        return Role(path, "batch" in wire.parse(body, Reply[_Role]).data.token_type)

    def delete_role(self, path: str) -> None:
        """Delete a role."""
        self._writing("deletes no role")
        self._write(lambda vault: vault.adapter.delete(f"/v1/{quote(path)}"))
        self._memory.asked |= {path}

    def leases(self, prefix: str) -> int | None:
        """Count what is leased under `prefix` of an auth method; None if that is not there."""
        status, body = self._ask(
            lambda vault: vault.adapter.list(f"/v1/sys/leases/lookup/{quote(prefix)}/")
        )
        if status == 403:
            raise self._refusal(f"may not list the leases: {wire.not_ok(status, body)}")
        if status == 404 and wire.parse(body, wire.Errors).errors == []:
            return 0 if self._method_is_there(prefix) else None
        if status != 200:
            raise wire.not_ok(status, body)
        return max(1, len(wire.parse(body, Reply[_Keys]).data.keys))

    def revoke_prefix(self, prefix: str) -> None:
        """Revoke every token and lease made under `prefix`."""
        self._writing("revokes no token")
        self._write(
            lambda vault: vault.adapter.put(f"/v1/sys/leases/revoke-prefix/{quote(prefix)}")
        )
        self._memory.asked |= {prefix}

    def own_token(self) -> OwnToken:
        """Look up the own token."""
        token = self._lookup_self()
        accessor, path = wire.plain(token.accessor), wire.plain(token.path)
        return OwnToken(accessor, path, token.ttl, batch=token.type == "batch")

    def revoke_own_token(self, seen: tuple[Clear, ...]) -> None:
        """End the own token; `seen` is kept as what was seen with it, unless that is refused."""
        self._writing("does not end its token")
        try:
            self._write(lambda vault: vault.adapter.put("/v1/auth/token/revoke-self"))
        except DeadTokenError:
            raise  # one that was sent before, and whose reply was lost, got through
        except RefusedError:
            self._memory.last_seen = None
            raise
        except VendorError:
            self._memory.last_seen = seen  # it may have been done
            raise
        self._memory.last_seen = seen

    def _method_is_there(self, prefix: str) -> bool:
        """Ask whether the auth method of `prefix` is mounted; needs some right under it."""
        url = f"/v1/sys/internal/ui/mounts/{quote(prefix)}"
        status, body = self._ask(lambda vault: vault.adapter.get(url))
        if status not in {200, 403}:
            raise wire.not_ok(status, body)
        return status == 200


def _get(path: str, vault: "hvac.Client") -> object:
    return vault.adapter.get(f"/v1/{quote(path)}")
