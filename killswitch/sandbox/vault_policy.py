"""Vault's tokens and policies as its sandbox keeps them: who may do what on which path."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from killswitch.sandbox.vault_answers import NOTHING, Answer, Json, envelope, stamp, unsupported

ROOT: Final = "root"
DEFAULT_POLICY: Final = """
path "auth/token/lookup-self" { capabilities = ["read"] }
path "auth/token/renew-self" { capabilities = ["update"] }
path "auth/token/revoke-self" { capabilities = ["update"] }
path "sys/capabilities-self" { capabilities = ["update"] }
path "cubbyhole/*" { capabilities = ["create", "read", "update", "delete", "list"] }
"""
# Paths for which Vault also wants "sudo".
SUDO: Final = (
    "auth/token/accessors",
    "sys/auth/",
    "sys/leases/revoke-prefix/",
    "sys/leases/revoke-force/",
    "sys/leases/lookup/",
    "sys/seal",
)
_RULE = re.compile(r'path\s+"([^"]*)"\s*\{([^}]*)\}')
_CAPABILITIES = re.compile(r"capabilities\s*=\s*\[([^\]]*)\]")
_QUOTED = re.compile(r'"([^"]*)"')
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_COMMENT = re.compile(r"(#|//)[^\n\"]*$", re.MULTILINE)

Rules = Mapping[str, frozenset[str]]


@dataclass(slots=True)
class Token:
    """One token: times are seconds since 1970, `ttl_s` 0 is for ever."""

    id: str
    policies: tuple[str, ...]
    created: float
    ttl_s: int = 0
    path: str = "auth/token/create"
    accessor: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    revoked: bool = False
    batch: bool = False

    def left_s(self, now: float) -> int:
        """Return how many seconds the token still has; 0 also for one that never ends."""
        return max(0, int(self.created + self.ttl_s - now)) if self.ttl_s else 0

    def alive(self, now: float) -> bool:
        """Return whether the token is neither revoked nor expired."""
        return not self.revoked and (not self.ttl_s or now < self.created + self.ttl_s)

    @property
    def client_id(self) -> str:
        """Return the id that Vault derives for a token without an entity."""
        text = "\x7f".join(sorted(self.policies)) + "\x00root"
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def parse_policy(text: str) -> Rules:
    """Read the part of HCL that policies are written in; ValueError for anything else."""
    rules: dict[str, frozenset[str]] = {}
    bare = _COMMENT.sub("", text)
    if _RULE.sub("", bare).strip():
        raise ValueError("failed to parse policy")
    for pattern, body in _RULE.findall(bare):
        found = _CAPABILITIES.search(body)
        granted = frozenset(_QUOTED.findall(found.group(1)) if found else ())
        rules[pattern] = rules.get(pattern, frozenset()) | granted
    return rules


def capabilities(policies: Iterable[Rules], path: str, *, listing: bool = False) -> frozenset[str]:
    """Return what the most specific pattern grants on `path`; deny wins, nothing is nothing.

    A pattern may end in ``*`` (any rest) and hold ``+`` (any one segment). For a LIST the exact
    pattern without the trailing slash counts too, as in Vault.
    """
    merged: dict[str, frozenset[str]] = {}
    for rules in policies:
        for pattern, granted in rules.items():
            merged[pattern] = merged.get(pattern, frozenset()) | granted
    fitting = [pattern for pattern in merged if _fits(pattern, path)]
    if not fitting and listing:
        fitting = [pattern for pattern in merged if pattern == path.rstrip("/")]
    if not fitting:
        return frozenset()
    granted = merged[max(fitting, key=_weight)]
    return frozenset() if "deny" in granted else granted


def any_right_under(policies: Iterable[Rules], mount: str) -> bool:
    """Return whether some pattern grants something inside `mount`."""
    for rules in policies:
        for pattern, granted in rules.items():
            literal = re.split(r"[*+]", pattern)[0]
            wild = literal != pattern
            inside = literal.startswith(mount) or (wild and mount.startswith(literal))
            if inside and granted - {"deny"}:
                return True
    return False


def needs_sudo(path: str) -> bool:
    """Return whether Vault asks for "sudo" on `path`."""
    return path.startswith(SUDO)


class Tokens:
    """Every token and policy of one Vault, and what it answers under auth/token/."""

    def __init__(self, policies: Mapping[str, str]) -> None:
        self.policies = {"default": DEFAULT_POLICY, **policies}
        self.by_id: dict[str, Token] = {}
        self.withheld: set[str] = set()
        """What no limited token may do in any secrets engine, whatever its policies say."""

    def add(self, token: Token) -> None:
        """Take in a token."""
        self.by_id[token.id] = token

    def rights(self, token: Token, path: str) -> frozenset[str]:
        """Return what `token` may do on `path`; {"root"} for everything."""
        if ROOT in token.policies:
            return frozenset({ROOT})
        rights = capabilities(self._rules(token), path, listing=path.endswith("/"))
        return rights if path.startswith(("sys/", "auth/")) else rights - self.withheld

    def sees(self, token: Token, mount: str) -> bool:
        """Return whether `token` has some right inside `mount`."""
        return ROOT in token.policies or any_right_under(self._rules(token), mount)

    def revoke_prefix(self, prefix: str) -> None:
        """Revoke every token that was made under `prefix`."""
        for token in self.by_id.values():
            below = f"{token.path}/".startswith(f"{prefix.rstrip('/')}/")
            token.revoked = token.revoked or (below and not token.batch)

    def leases(self, prefix: str, now: float) -> list[str]:
        """Return what stands below `prefix`, which ends in "/": tokens, and folders of them."""
        keys = set()
        for token in self.by_id.values():
            lease = f"{token.path}/h{hashlib.sha256(token.id.encode()).hexdigest()}"
            if token.alive(now) and token.ttl_s and not token.batch and lease.startswith(prefix):
                inner, folder, _ = lease.removeprefix(prefix).partition("/")
                keys.add(inner + folder)
        return sorted(keys)

    def answer(  # noqa: PLR0911 (one return for each endpoint)
        self, method: str, path: str, body: Json, caller: Token, now: float
    ) -> Answer:
        """Answer a call under auth/token/."""
        alive = [token for token in self.by_id.values() if token.alive(now)]
        match method, path:
            case "GET", "lookup-self":
                return 200, envelope(_described(caller, now), mount_type="token")
            case (("POST" | "PUT"), "create"):
                return self._create(body, caller, now)
            case (("POST" | "PUT"), "revoke-self") if caller.batch:
                return 400, {"errors": ["batch tokens cannot be revoked"]}
            case (("POST" | "PUT"), "revoke-self"):
                caller.revoked = True
                return 204, None
            case (("POST" | "PUT"), "revoke-accessor"):
                found = [token for token in alive if token.accessor == body.get("accessor")]
                for token in found:
                    token.revoked = True
                warning = ["No token found with this accessor"]
                missing = envelope(None, mount_type="token", warnings=warning)
                return (204, None) if found else (200, missing)
            case "LIST", "accessors/":
                accessors = [token.accessor for token in alive]
                return 200, envelope({"keys": accessors}, mount_type="token")
            case _, ("lookup-self" | "create" | "revoke-self" | "revoke-accessor"):
                return unsupported()
            case _:
                return NOTHING

    def _rules(self, token: Token) -> list[Rules]:
        return [
            parse_policy(self.policies[name]) for name in token.policies if name in self.policies
        ]

    def _create(self, body: Json, caller: Token, now: float) -> Answer:
        asked = body.get("policies") or [name for name in caller.policies if name != "default"]
        names = tuple(asked) if ROOT in asked else tuple(sorted({"default", *asked}))
        ttl_s = _seconds(str(body.get("ttl", "768h")))
        batch = body.get("type") == "batch"
        token = Token(f"hvs.{secrets.token_urlsafe(18)}", names, now, ttl_s, batch=batch)
        self.add(token)
        auth = {
            "client_token": token.id,
            "accessor": token.accessor,
            "policies": list(names),
            "token_policies": list(names),
            "metadata": None,
            "lease_duration": ttl_s,
            "renewable": True,
            "entity_id": "",
            "token_type": "service",
            "orphan": False,
        }
        return 200, {**envelope(None, mount_type="token"), "auth": auth}


def _described(token: Token, now: float) -> Json:
    return {
        "accessor": "" if token.batch else token.accessor,
        "creation_time": int(token.created),
        "creation_ttl": token.ttl_s,
        "display_name": ROOT if ROOT in token.policies else "token",
        "entity_id": "",
        "expire_time": stamp(token.created + token.ttl_s) if token.ttl_s else None,
        "explicit_max_ttl": 0,
        "id": token.id,
        "issue_time": stamp(token.created),
        "meta": None,
        "num_uses": 0,
        "orphan": ROOT in token.policies,
        "path": token.path,
        "policies": list(token.policies),
        "renewable": bool(token.ttl_s),
        "ttl": token.left_s(now),
        "type": "batch" if token.batch else "service",
    }


def _seconds(text: str) -> int:
    found = re.fullmatch(r"(\d+)([smhd]?)", text)
    return int(found.group(1)) * _UNITS[found.group(2)] if found else 0


def _fits(pattern: str, path: str) -> bool:
    parts = [re.escape(part) for part in pattern.removesuffix("*").split("+")]
    rest = ".*" if pattern.endswith("*") else ""
    return re.fullmatch("[^/]+".join(parts) + rest, path, re.DOTALL) is not None


def _weight(pattern: str) -> tuple[float, bool, int, int, str]:
    """Return Vault's order of patterns: the later the first wildcard, the more specific."""
    wildcards = [pattern.index(sign) for sign in "*+" if sign in pattern]
    first = min(wildcards, default=float("inf"))
    return (first, not pattern.endswith("*"), -pattern.count("+"), len(pattern), pattern)
