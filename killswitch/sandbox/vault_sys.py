"""The parts of Vault's sys/ that a halt touches, as its sandbox keeps and answers them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

from killswitch.sandbox.vault_policy import Token, Tokens, parse_policy
from killswitch.sandbox.vault_store import (
    DONE,
    NOTHING,
    Answer,
    Json,
    Mount,
    envelope,
    unsupported,
)

KV_PLUGIN: Final = "v0.25.0+builtin"
VERSION: Final = "1.21.0"
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

    def mount_of(self, path: str) -> Mount | None:
        """Return the mount that `path` is inside."""
        mounts = self.mounts.values()
        return next((mount for mount in mounts if path.startswith(mount.where)), None)

    def over_quota(self, path: str) -> bool:
        """Count one request, and return whether it is one too many."""
        quotas = [quota for quota in self.quotas.values() if path.startswith(quota.path)]
        return False in {quota.take(self.clock()) for quota in quotas}

    def state(self, path: str, *, sealed: bool) -> Answer:
        """Answer sys/health and sys/seal-status, which need no token."""
        if path == "sys/seal-status":
            return 200, seal_status(VERSION, sealed=sealed)
        return (503 if sealed else 200), health(VERSION, sealed=sealed, now=self.clock())

    def preflight(self, token: Token | None, path: str) -> Answer:
        """Answer sys/internal/ui/mounts/: what a mount is, to who has any right inside it."""
        mount = self.mount_of(f"{path.rstrip('/')}/")
        if token is None or mount is None or not self.tokens.sees(token, mount.where):
            text = (
                "preflight capability check returned 403, please ensure client's policies grant "
                f'access to path "{path.rstrip("/")}/"'
            )
            return 403, {"errors": [text]}
        about = {**describe(mount, tuned=True), "path": mount.where}
        return 200, envelope(about, mount_type="")

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
            case "leases" if writes and rest.startswith(("revoke-prefix/", "revoke-force/")):
                self.tokens.revoke_prefix(rest.partition("/")[2])
                return DONE
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
                self.mounts.pop(path, None)
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


def describe(mount: Mount, *, tuned: bool = False) -> Json:
    """Return a KV mount as sys/mounts shows it, or with its effective lease times."""
    shown = mount_entry("kv", mount.description, mount.accessor, running=KV_PLUGIN)
    lease_s = 2764800 if tuned else 0
    shown["config"] |= {"default_lease_ttl": lease_s, "max_lease_ttl": lease_s}
    options = {"version": str(mount.claims or mount.version)}
    return {**shown, "deprecation_status": "supported", "options": options, "uuid": mount.uuid}


def system_mounts(version: str) -> Json:
    """Return the mounts that every Vault has."""
    running = f"v{version}+builtin.vault"
    about = "system endpoints used for control, policy and debugging"
    system = mount_entry("system", about, "system_1", running=running, headers=["Accept"])
    identity = mount_entry(
        "identity", "identity store", "identity_1", running=running, headers=["Authorization"]
    )
    about = "per-token private secret storage"
    cubbyhole = mount_entry("cubbyhole", about, "cubbyhole_1", running=running)
    return {
        "sys/": {**system, "seal_wrap": True},
        "identity/": identity,
        "cubbyhole/": {**cubbyhole, "local": True},
    }


def mount_entry(
    kind: str, description: str, accessor: str, *, running: str, headers: list[str] | None = None
) -> Json:
    """Return how sys/mounts shows one mount."""
    config: Json = {"default_lease_ttl": 0, "force_no_cache": False, "max_lease_ttl": 0}
    if headers:
        config["passthrough_request_headers"] = headers
    return {
        "accessor": accessor,
        "config": config,
        "description": description,
        "external_entropy_access": False,
        "local": False,
        "options": None,
        "plugin_version": "",
        "running_plugin_version": running,
        "running_sha256": "",
        "seal_wrap": False,
        "type": kind,
        "uuid": str(uuid4()),
    }


def health(version: str, *, sealed: bool, now: float) -> Json:
    """Return the body of sys/health of a node that is active, unless it is sealed."""
    replication = "unknown" if sealed else "disabled"
    cluster = {"cluster_name": "vault-cluster-sandbox", "cluster_id": "sandbox"}
    return {
        "initialized": True,
        "sealed": sealed,
        "standby": sealed,
        "performance_standby": False,
        "replication_performance_mode": replication,
        "replication_dr_mode": replication,
        "server_time_utc": int(now),
        "version": version,
        "enterprise": False,
        **({} if sealed else cluster),
        "echo_duration_ms": 0,
        "clock_skew_ms": 0,
        "replication_primary_canary_age_ms": 0,
    }


def seal_status(version: str, *, sealed: bool) -> Json:
    """Return the body of sys/seal-status."""
    return {
        "type": "shamir",
        "initialized": True,
        "sealed": sealed,
        "t": 1,
        "n": 1,
        "progress": 0,
        "nonce": "",
        "version": version,
        "build_date": "2025-11-21T08:00:32Z",
        "migration": False,
        "recovery_seal": False,
        "storage_type": "inmem",
    }
