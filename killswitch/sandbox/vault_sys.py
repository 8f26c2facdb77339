"""The parts of Vault's sys/ that a halt touches, as its sandbox keeps and answers them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from killswitch.sandbox.vault_about import (
    VERSION,
    describe,
    health,
    mount_entry,
    seal_status,
    system_mounts,
)
from killswitch.sandbox.vault_answers import DONE, NOTHING, Answer, Json, envelope, unsupported
from killswitch.sandbox.vault_policy import Token, Tokens, parse_policy
from killswitch.sandbox.vault_store import Mount

UPGRADE_S: Final = 0.3
"""How long a fresh KV v2 mount refuses to be used."""


@dataclass(slots=True)
class Quota:
    """A rate limit on the paths that begin with `path`, in requests a second."""

    path: str
    rate: float
    left: float
    filled_at: float

    def take(self, now: float) -> bool:
        """Return whether one more request is allowed."""
        self.left = min(max(self.rate, 1.0), self.left + (now - self.filled_at) * self.rate)
        self.filled_at = now
        allowed = self.left >= 1.0
        self.left -= 1.0 if allowed else 0.0
        return allowed


class System:
    """Mounts, policies, auth methods, quotas and the seal of one Vault."""

    def __init__(
        self, mounts: dict[str, Mount], tokens: Tokens, clock: Callable[[], float]
    ) -> None:
        self.mounts = mounts
        self.tokens = tokens
        self.clock = clock
        self.auths: dict[str, Json] = {"token/": {"type": "token"}}
        self.quotas: dict[str, Quota] = {}
        self.sealed = False
        self.unmounted: Mount | None = None
        """The mount that the request in hand has told to go: what is left is to erase it."""

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount that `path` is inside."""
        mounts = self.mounts.values()
        return next((mount for mount in mounts if path.startswith(mount.where)), None)

    def over_quota(self, path: str) -> bool:
        """Count one request, and return whether it is one too many."""
        quotas = [quota for quota in self.quotas.values() if path.startswith(quota.path)]
        return False in {quota.take(self.clock()) for quota in quotas}

    def state(self, path: str, *, sealed: bool, standby: bool = False) -> Answer:
        """Answer sys/health and sys/seal-status, which need no token."""
        if path == "sys/seal-status":
            return 200, seal_status(VERSION, sealed=sealed)
        body = health(VERSION, sealed=sealed, now=self.clock())
        if standby and not sealed:
            return 429, {**body, "standby": True}
        return (503 if sealed else 200), body

    def preflight(self, token: Token, path: str) -> Answer:
        """Answer sys/internal/ui/mounts/: what a mount is, to who has any right inside it."""
        if path.startswith("auth/"):
            found = self._auth_about(token, f"{path.rstrip('/')}/")
            if found is not None:
                return 200, envelope(found, mount_type="")
        mount = self.mount_of(f"{path.rstrip('/')}/")
        if mount is None or not self.tokens.sees(token, mount.where):
            text = (
                "preflight capability check returned 403, please ensure client's policies grant "
                f'access to path "{path.rstrip("/")}/"'
            )
            return 403, {"errors": [text]}
        about = {**describe(mount, tuned=True), "path": mount.where}
        return 200, envelope(about, mount_type="")

    def _auth_about(self, token: Token, path: str) -> Json | None:
        inside = (name for name in self.auths if path.startswith(f"auth/{name}"))
        name = next(inside, None)
        if name is None or not self.tokens.sees(token, f"auth/{name}"):
            return None
        kind = str(self.auths[name].get("type", ""))
        shown = mount_entry(kind, "", f"auth_{kind}_sandbox", running=f"v{VERSION}+builtin.vault")
        config = {"default_lease_ttl": 2764800, "max_lease_ttl": 2764800}
        shown["config"] |= {**config, "token_type": "default-service"}
        return {**shown, "deprecation_status": "supported", "options": {}, "path": name}

    def answer(  # noqa: PLR0911 (one return for each endpoint)
        self, method: str, path: str, body: Json, token: Token
    ) -> Answer:
        """Answer a call under sys/ that the token may make."""
        head, _, rest = path.partition("/")
        writes = method in {"POST", "PUT"}
        match head:
            case "mounts":
                return self._mounts(method, rest, body)
            case "capabilities-self" if writes:
                rights = {
                    p: self.tokens.rights(token, p.lstrip("/")) for p in body.get("paths", [])
                }
                return _twice({p: sorted(found) or ["deny"] for p, found in rights.items()})
            case "policies" if rest.startswith("acl/"):
                return self._policy(method, rest.removeprefix("acl/"), body)
            case "auth":
                return self._auth(method, rest, body)
            case "leases":
                return self._leases(method, rest)
            case "quotas" if rest.startswith("rate-limit/"):
                if method == "DELETE":
                    self.quotas.pop(rest, None)
                elif writes:
                    rate = float(body.get("rate", 1))
                    self.quotas[rest] = Quota(body.get("path", ""), rate, rate, self.clock())
                return DONE
            case "seal" if writes:
                self.sealed = True
                return DONE
            case _:
                return 404, {"errors": ["1 error occurred:\n\t* unsupported path\n\n"]}

    def _leases(self, method: str, rest: str) -> Answer:
        what, _, prefix = rest.partition("/")
        if method in {"POST", "PUT"} and what in {"revoke-prefix", "revoke-force"}:
            self.tokens.revoke_prefix(prefix)
            return DONE
        if method != "LIST" or what != "lookup":
            return unsupported()
        keys = self.tokens.leases(prefix, self.clock())
        return (200, envelope({"keys": keys}, mount_type="system")) if keys else NOTHING

    def _mounts(  # noqa: PLR0911 (one return for each case)
        self, method: str, rest: str, body: Json
    ) -> Answer:
        path = f"{rest.removesuffix('/tune').rstrip('/')}/"
        mount = self.mounts.get(path)
        match method:
            case "GET" if not rest:
                shown = {mount.path: describe(mount) for mount in self.mounts.values()}
                return _twice({**system_mounts(VERSION), **shown})
            case "GET" if mount is not None and rest.endswith("/tune"):
                about = describe(mount, tuned=True)
                options, config = {"options": about["options"]}, about["config"]
                return _twice({**config, **options, "description": about["description"]})
            case "GET" if mount is not None:
                return _twice(describe(mount))
            case "GET":
                return 400, {"errors": [f"No secret engine mount at {path}"]}
            case "DELETE":
                if mount is not None:
                    mount.unmounted = mount.tainted = True
                    self.unmounted = mount
                return DONE
            case "POST" | "PUT" if mount is not None:
                return 400, {"errors": [f"path is already in use at {path}"]}
            case "POST" | "PUT" if body.get("type") == "kv":
                version = int((body.get("options") or {}).get("version", "1"))
                ready_at = self.clock() + (UPGRADE_S if version == 2 else 0.0)
                self.mounts[path] = Mount(path, version, ready_at=ready_at)
                return DONE
            case _:
                return unsupported()

    def _policy(self, method: str, name: str, body: Json) -> Answer:
        policies = self.tokens.policies
        match method:
            case "GET" if name in policies:
                return 200, envelope({"name": name, "policy": policies[name]}, mount_type="system")
            case "GET":
                return NOTHING
            case "DELETE":
                policies.pop(name, None)
                return DONE
            case "POST" | "PUT":
                try:
                    parse_policy(str(body.get("policy", "")))
                except ValueError as error:
                    return 400, {"errors": [str(error)]}
                policies[name] = str(body["policy"])
                return DONE
            case _:
                return unsupported()

    def _auth(self, method: str, rest: str, body: Json) -> Answer:
        path = f"{rest.rstrip('/')}/"
        match method:
            case "GET" if not rest:
                return _twice(dict(self.auths))
            case "DELETE":
                if self.auths.pop(path, None):
                    self.tokens.revoke_prefix(f"auth/{path}")
                return DONE
            case "POST" | "PUT" if path in self.auths:
                return 400, {"errors": [f"path is already in use at {path}"]}
            case "POST" | "PUT":
                self.auths[path] = {"type": body.get("type", "")}
                return DONE
            case _:
                return unsupported()


def _twice(data: Json) -> Answer:
    """Return a sys answer: its data stands at top level and under "data"."""
    return 200, {**data, **envelope(data, mount_type="system")}
