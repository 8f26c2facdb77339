"""A loopback Vault: KV v1 and v2, tokens and policies, the parts of sys that a halt touches."""

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import ClassVar, Final

from werkzeug.wrappers import Request, Response

from killswitch.sandbox.server import VendorServer
from killswitch.sandbox.vault_answers import DONE, Answer, Json
from killswitch.sandbox.vault_auth import AuthMethods
from killswitch.sandbox.vault_policy import ROOT, Token, Tokens, needs_sudo
from killswitch.sandbox.vault_store import Call, Mount, answer_kv
from killswitch.sandbox.vault_sys import System
from killswitch.sandbox.vault_world import ROLES, WORLD, hung_up, minimal_policy

ROOT_TOKEN: Final = "hvs.sandbox-root"
TOKEN: Final = "hvs.sandbox-killswitch"
PUT_BACK_S: Final = 0.4
DENIED: Final[Answer] = (403, {"errors": ["1 error occurred:\n\t* permission denied\n\n"]})


class _Elsewhere(VendorServer):
    """Where the trap "redirect" leads: it keeps every token that arrives."""

    name = "elsewhere"

    def __init__(self) -> None:
        super().__init__()
        self.tokens: list[str] = []

    def respond(self, request: Request) -> Response:
        self.tokens += request.headers.getlist("X-Vault-Token")
        return Response(status=204)

    def live(self) -> list[str]:
        return []


class VaultServer(VendorServer):
    """A Vault 1.21.0 in development mode, with a root and a limited token.

    State is in `mounts`, `tokens` (with the policies) and `sys` (auth methods with their roles,
    quotas, seal). An unmount erases for as long as the caller stays: `erase_s` for each secret.
    It is blind to races between requests, and to what storage does beneath.

    Args:
        root_token: may do everything.
        token: may list and delete metadata in the seeded mounts, and unmount them; delete and
            read the seeded roles, and revoke and list what the methods' logins issued.
        mounts: the seeded KV mounts with their version.
        secrets: the seeded secrets, by full path.
        roles: the seeded roles of auth methods: "auth/approle/role/bot" to what it says.
        erase_s: how long an unmount takes for each secret.
    """

    name: ClassVar[str] = "vault"
    TRAPS: ClassVar[Mapping[str, str]] = {
        "wipe-lies": "answers 204 to every delete of a secret and deletes nothing",
        "put-back": "a writer puts one secret back, once, soon after all were gone",
        "forbidden-list": "the token may not list",
        "forbidden-delete": "the token may not delete secrets",
        "sealed": "the vault is sealed",
        "token-revoked": "the token was revoked",
        "rate-limited": "answers 429 for a second, after the first five requests",
        "wrong-mount": "the mount was renamed: nothing is found under its old path",
        "wrong-version": "the mount is version 1: below metadata/ and data/ there is nothing",
        "redirect": "sends every request that has a token to another address",
        "lost-reply": "deletes, and cuts the connection instead of answering",
        "half-erased": "the mount was unmounted half: unreadable, listed, its data still there",
        "slow-erase": "an unmount takes a second for each secret, and ends if the caller hangs up",
        "cut-erase": "the first unmount is cut off in the middle, as by a proxy's time-out",
        "erase-limit": "an unmount is ended after a third of the secrets, as by Vault's time limit",
        "standby": "the node is a standby: it says so, and passes requests on",
    }

    def __init__(
        self,
        *,
        root_token: str = ROOT_TOKEN,
        token: str = TOKEN,
        mounts: Mapping[str, int] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        roles: Mapping[str, Mapping[str, str]] | None = None,
        erase_s: float = 0.0,
        traps: Iterable[str] = (),
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(traps=traps, port=port, clock=clock)
        seeded = {"trading/": 2} if mounts is None else dict(mounts)
        self.root_token, self.token = root_token, token
        self.elsewhere = _Elsewhere()
        self.mounts = {path: Mount(path, version) for path, version in seeded.items()}
        self.mounts.setdefault("secret/", Mount("secret/", 2, "key/value secret storage"))
        self.erase_s = erase_s
        seeded_roles = (ROLES if mounts is None else {}) if roles is None else roles
        self.tokens = Tokens({"killswitch": minimal_policy(seeded, seeded_roles)})
        self.tokens.add(Token(root_token, (ROOT,), clock(), path="auth/token/root"))
        self.tokens.add(Token(token, ("default", "killswitch"), clock(), ttl_s=90 * 86400))
        self.sys = System(self.mounts, self.tokens, clock)
        self.auth = AuthMethods(self.sys.auths, self.tokens)
        for path, role in seeded_roles.items():
            self.auth.put(path, dict(role))
        self._seeded = frozenset(seeded)
        world = WORLD if secrets is None else secrets
        self._world = {path: world[path] for path in world if path.startswith(tuple(seeded))}
        self._put_back_at: float | None = None
        self._asked = 0
        self._limited_until: float | None = None
        self._cut_off = False
        for path, data in self._world.items():
            self.put(path, data)

    def start(self) -> None:
        """Serve in the background, with the other address of the trap "redirect"."""
        self.elsewhere.start()
        super().start()

    def stop(self) -> None:
        """Release hanging requests and close both ports."""
        super().stop()
        self.elsewhere.stop()

    def put(self, path: str, data: Mapping[str, str]) -> None:
        """Write a secret by its full path, past tokens and policies."""
        mount = next(m for m in self.mounts.values() if path.startswith(m.path))
        mount.put(path.removeprefix(mount.path), dict(data), now=self.clock())

    def live(self) -> list[str]:
        """Name every secret that is still stored in a seeded mount, readable or not."""
        with self.lock:
            self._write_back()
            mounts = [mount for path, mount in self.mounts.items() if path in self._seeded]
            return sorted(mount.path + name for mount in mounts for name in mount.names)

    def log_in(self, role: str) -> str:
        """Return a token made by a role, "auth/approle/role/bot", as a login would make it."""
        with self.lock:
            return self.auth.issue(role, self.clock()).id

    def is_write(self, request: Request) -> bool:
        """Whether this request would change something; asking for rights does not."""
        return super().is_write(request) and request.path != "/v1/sys/capabilities-self"

    def respond(self, request: Request) -> Response:
        """Answer one request as Vault would, or as a trap says."""
        if "redirect" in self.traps and "X-Vault-Token" in request.headers:
            return Response(status=307, headers={"Location": self.elsewhere.url + request.path})
        with self.lock:
            self._arm()
            self._write_back()
            status, body = self._answer(request)
            self._write_back()
            unmounted, self.sys.unmounted = self.sys.unmounted, None
        if unmounted is not None:
            status, body = self._erase(unmounted, request)
        if "lost-reply" in self.traps and request.method == "DELETE":
            self.cut(request)
        text = "" if body is None else json.dumps(body)
        return Response(text, status=status, content_type="application/json")

    def _answer(self, request: Request) -> Answer:  # noqa: PLR0911 (the gates, in Vault's order)
        listing = request.method == "LIST" or request.args.get("list") == "true"
        method = "LIST" if listing else request.method
        path = re.sub("/+", "/", request.path.removeprefix("/v1/"))
        sealed = self.sys.sealed or "sealed" in self.traps
        if path in {"sys/health", "sys/seal-status"}:
            return self.sys.state(path, sealed=sealed, standby="standby" in self.traps)
        if sealed:
            return 503, {"errors": ["Vault is sealed"]}
        if self._too_many(path):
            return 429, {"errors": [f'request path "{path}": rate limit quota exceeded']}
        if refusal := _malformed(method, path):
            return 400, {"errors": [refusal]}
        token = self._token(request.headers.get("X-Vault-Token", ""))
        if self.auth.is_login(method, path):
            return self.auth.log_in(path, self._body(request), self.clock())
        if token is None:
            bad = "2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"
            known = "X-Vault-Token" in request.headers
            return 403, {"errors": [bad if known else "permission denied"]}
        if path.startswith("sys/internal/ui/mounts/"):
            return self.sys.preflight(token, path.removeprefix("sys/internal/ui/mounts/"))
        path = f"{path.rstrip('/')}/" if listing else path
        if not self._may(token, method, path):
            return DENIED
        body = self._body(request)
        if not isinstance(body, dict):
            return 400, {"errors": ["failed to parse JSON input"]}
        return self._route(method, path, body, token, int(request.args.get("version", "0")))

    def _body(self, request: Request) -> object:
        return request.get_json(force=True, silent=True) if request.data else {}

    def _route(self, method: str, path: str, body: Json, token: Token, version: int) -> Answer:
        now = self.clock()
        if path.startswith("auth/token/") and not path.startswith("auth/token/roles/"):
            return self.tokens.answer(method, path.removeprefix("auth/token/"), body, token, now)
        if path.startswith("auth/"):
            return self.auth.answer(method, path, body)
        if path.startswith("sys/"):
            return self.sys.answer(method, path.removeprefix("sys/"), body, token)
        mount = self.sys.mount_of(path)
        if mount is None or mount.tainted:
            why = "route entry not found." if mount is None else "route entry is tainted."
            return 404, {"errors": [f'no handler for route "{path}". {why}']}
        if "wipe-lies" in self.traps and method == "DELETE":
            return DONE
        inner = path[len(mount.where) :]
        return answer_kv(mount, Call(method, inner, body, version, now, token.client_id))

    def _erase(self, mount: Mount, request: Request) -> Answer:
        """Erase an unmounted mount while the caller stays, and no longer than Vault lets it."""
        self._cut_off = self._cut_off or "cut-erase" not in self.traps
        slow_s = 1.0 if "slow-erase" in self.traps else self.erase_s
        names = mount.names
        limit = max(2, len(names) // 3) if "erase-limit" in self.traps else len(names)
        for count, name in enumerate(names):
            if slow_s:
                self.hang(slow_s)
            cut = not self._cut_off and count >= len(names) // 2
            if cut or hung_up(request) or self._closing.is_set():
                self._cut_off = True
                self.cut(request)
                break
            if count >= limit:
                return 400, {"errors": ["context canceled"]}
            with self.lock:
                mount.drop(name)
        with self.lock:
            if not mount.names and self.mounts.get(mount.path) is mount:
                del self.mounts[mount.path]
        return DONE

    def _token(self, value: str) -> Token | None:
        token = self.tokens.by_id.get(value)
        if token is None or not token.alive(self.clock()):
            return None
        revoked = "token-revoked" in self.traps and ROOT not in token.policies
        return None if revoked else token

    def _may(self, token: Token, method: str, path: str) -> bool:
        rights = self.tokens.rights(token, path)
        need = {"GET": "read", "LIST": "list", "DELETE": "delete"}.get(method, "update")
        mount = self.sys.mount_of(path)
        if need == "update" and mount is not None and not mount.has(path[len(mount.where) :]):
            need = "create"
        return ROOT in rights or (need in rights and ("sudo" in rights or not needs_sudo(path)))

    def _too_many(self, path: str) -> bool:
        now = self.clock()
        self._asked += 1
        if "rate-limited" in self.traps and self._asked > 5:
            self._limited_until = self._limited_until or now + 1.0
            if now < self._limited_until:
                return True
        return self.sys.over_quota(path)

    def _arm(self) -> None:
        """Bring the books to what the traps say now."""
        for mount in [self.mounts[path] for path in self._seeded & set(self.mounts)]:
            mount.moved_to = f"renamed-{mount.path}" if "wrong-mount" in self.traps else ""
            mount.claims = 1 if "wrong-version" in self.traps else 0
            mount.tainted = mount.unmounted or "half-erased" in self.traps
        words = ("list", "delete")
        self.tokens.withheld = {word for word in words if f"forbidden-{word}" in self.traps}

    def _write_back(self) -> None:
        """Act as the writer of the trap "put-back"; it notices what each request left."""
        lost = sorted(path for path in self._world if self.sys.mount_of(path) is not None)
        if "put-back" not in self.traps or not lost or self._put_back_at == float("inf"):
            return
        now = self.clock()
        if self._put_back_at is None:
            empty = not any(self.mounts[path].names for path in self._seeded & set(self.mounts))
            self._put_back_at = now + PUT_BACK_S if empty else None
        elif now >= self._put_back_at:
            self._put_back_at = float("inf")
            self.put(lost[0], self._world[lost[0]])


def _malformed(method: str, path: str) -> str:
    if {".", ".."} & set(path.split("/")):
        return "relative paths not supported"
    folder = method in {"POST", "PUT"} and path.endswith("/")
    return "cannot write to a path ending in '/'" if folder else ""
