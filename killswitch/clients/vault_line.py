"""One Vault to talk to: the connection, the token, and what its refusals mean."""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import msgspec

from killswitch.address import checked_url
from killswitch.clients import vault_http as wire
from killswitch.errors import GarbledError, RefusedError, VendorError
from killswitch.model import Clear
from killswitch.secret import Secret
from killswitch.steps.vault_port import DeadTokenError, NoRightError
from killswitch.unfinished import LONGEST_S, UNFINISHED, Unfinished

if TYPE_CHECKING:
    import hvac
    import requests

T = TypeVar("T")
_LONGEST_PAUSE_S: Final = 0.5
_PATHS_A_QUERY: Final = 250


class _Health(msgspec.Struct):
    sealed: bool
    standby: bool
    version: str


class Token(msgspec.Struct):
    """What lookup-self says."""

    accessor: str
    ttl: int
    path: str = ""
    type: str = "service"


class Reply(msgspec.Struct, Generic[T]):
    """Vault's frame around an answer."""

    data: T


@dataclass(slots=True)
class Memory:
    """What one run knows of its own doing, so that "gone" can be told from "ended by us".

    Mounts by their path: `stood` has accessor and most secrets seen (also by the path of a folder),
    `lost` the accessors of those that stood there before, `erased` those whose erasing Vault
    answered, `begun` those that an earlier halt told to be erased and `ended` those that it
    read back; the others have accessors, which are never given twice. `asked` are roles and
    prefixes that Vault answered well, `seen` all targets that were live. `last_seen` is what was
    seen before the own token was told to end, `clean_since` since when all else is.
    """

    stood: dict[str, tuple[str, int]] = field(default_factory=dict)
    lost: dict[str, tuple[str, ...]] = field(default_factory=dict)
    erased: dict[str, str] = field(default_factory=dict)
    begun: Mapping[str, str] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    seen: frozenset[str] = frozenset()
    last_seen: tuple[Clear, ...] | None = None
    clean_since: float | None = None


class Line:
    """The connection to one Vault; every call goes through it.

    Nothing is taken from the environment: no VAULT_* variable, no ~/.vault-token, no proxy, no
    .netrc. Redirects are refused, because the token would go with them.

    Args:
        address, namespace: "https://vault.internal:8200"; ValueError unless https or loopback.
        ca_file: the only certificate authority to trust, instead of the usual ones.
        timeout_s: to connect, and for each part of an answer.
        back_off_s: for how long a call that meets the rate limit (429) is repeated.
        steady_s: how long all else must have been seen ended before the own token may go.
        erase_s: for how long a mount's erasing is waited for, and asked for again.
        unfinished: where calls are known that must not be cut off.
    """

    def __init__(
        self,
        *,
        address: str,
        namespace: str | None = None,
        ca_file: str | None = None,
        timeout_s: tuple[float, float] = (3.0, 5.0),
        back_off_s: float = 3.0,
        steady_s: float = 2.0,
        erase_s: float = LONGEST_S,
        unfinished: Unfinished = UNFINISHED,
    ) -> None:
        self._address = checked_url(address)
        self._namespace = namespace
        self._ca_file = ca_file
        self._timeout_s = timeout_s
        self._back_off_s = back_off_s
        self._steady_s = steady_s
        self._erase_s = erase_s
        self._unfinished = unfinished
        self._memory = Memory()
        self._session: requests.Session | None = None
        self._session_lock = threading.Lock()
        self._client: hvac.Client | None = None
        self._may_write = False
        self._version = ""

    @property
    def namespace_doubt(self) -> str:
        """Say that the namespace may be ignored; "" if there is none, or no reason to think so."""
        if not self._namespace or not self._version or "+ent" in self._version:
            return ""
        edition = (
            f"{self._version} is not Vault Enterprise, which alone has namespaces, with OpenBao"
        )
        return (
            f"{edition}: any other ignores {wire.plain(self._namespace)}, and so acts on its root"
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._address!r})"

    def warm(self) -> str:
        """Return the state of the seal and the version, asked without a token."""
        anonymous = self._new_client("")
        status, body = wire.send(
            anonymous, lambda vault: vault.sys.read_health_status(method="GET")
        )
        # A standby (429, 473) forwards what it is asked: no obstacle, but worth saying.
        if status not in {200, 429, 473}:
            raise wire.not_ok(status, body)
        health = wire.parse(body, _Health)
        self._version = wire.plain(health.version)
        role = "unsealed, a standby node" if health.standby else "unsealed"
        return f"{role}, {self._version}"

    def login(
        self,
        *,
        token: Secret,
        may_write: bool,
        begun: Mapping[str, str] | None = None,
        ended: Mapping[str, str] | None = None,
        seen: frozenset[str] = frozenset(),
    ) -> None:
        """Take the token; with `may_write` false nothing can be changed through this client.

        `begun` and `ended` are mounts with their accessors, `seen` are targets, see `Memory`.
        """
        value = token.reveal().strip()
        if not (value.isascii() and value.isprintable() and value.split() == [value]):
            raise RefusedError("the token is empty or has characters that no vault token has")
        self._client = self._new_client(value)
        self._may_write = may_write
        self._memory = Memory(begun=begun or {}, ended=ended or {}, seen=seen)

    def lacks(self, *needed: tuple[str, str]) -> tuple[str, ...]:
        """Return which of the rights (right, path) are missing: "delete sys/mounts/trading"."""
        granted = dict[str, list[str]]()
        paths = list(dict.fromkeys(path for _, path in needed))
        for start in range(0, len(paths), _PATHS_A_QUERY):
            body = {"paths": paths[start : start + _PATHS_A_QUERY]}
            ask = partial(_post, "/v1/sys/capabilities-self", body)
            granted |= self._read(ask, dict[str, list[str]])
        return tuple(
            f"{right} {wire.plain(path)}"
            for right, path in needed
            if not {right, "root"} & set(granted.get(path, []))
        )

    def token_ttl_s(self) -> int:
        """Return how long the token will live; 0 for ever."""
        return self._lookup_self().ttl

    def _lookup_self(self) -> Token:
        status, body = self._ask(lambda vault: vault.auth.token.lookup_self())
        if status == 200:
            return wire.parse(body, Reply[Token]).data
        if _is_dead(status, body):
            raise DeadTokenError(str(wire.not_ok(status, body)))
        raise wire.not_ok(status, body)

    def _writing(self, what: str) -> None:
        if self._client is None:
            raise RuntimeError("login comes first")
        if not self._may_write:
            raise RefusedError(f"this client may only read: it {what}")

    def _read(self, ask: wire.Ask, shape: type[T]) -> T:
        status, body = self._ask(ask)
        if status != 200:
            raise wire.not_ok(status, body)
        return wire.parse(body, Reply[shape]).data  # type: ignore[valid-type]  # made at run time

    def _write(self, ask: wire.Ask) -> None:
        status, body = self._ask(ask)
        if status == 403:
            raise self._refusal(str(wire.not_ok(status, body)))
        if status not in {200, 204}:
            raise wire.not_ok(status, body)

    def _refusal(self, problem: str) -> VendorError:
        """Tell, after a 403, a missing right from a token that no longer is one."""
        status, body = self._ask(lambda vault: vault.auth.token.lookup_self())
        if status == 200:
            return NoRightError(problem)
        said = wire.not_ok(status, body)
        if not _is_dead(status, body):
            return said
        words = "the token is dead, or unknown to this vault, and a new one is needed to look"
        return DeadTokenError(f"{words}: {said}")

    def _ask(self, ask: wire.Ask, vault: "hvac.Client | None" = None) -> tuple[int, bytes]:
        """Send one request; one that meets the rate limit waits, and goes on."""
        vault = vault or self._client
        if vault is None:
            raise RuntimeError("login comes first")
        end, pause = time.monotonic() + self._back_off_s, 0.05
        while True:
            status, body = wire.send(vault, ask)
            if status != 429 or time.monotonic() + pause > end:
                return status, body
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _new_client(self, token: str) -> "hvac.Client":
        with self._session_lock:
            self._session = self._session or wire.new_session(self._ca_file)
        return self._speaker(token, self._timeout_s, self._session)

    def _patient_client(self, read_s: float) -> "hvac.Client":
        """Return one that waits long for an answer, on a connection that is kept from idling."""
        if self._client is None:
            raise RuntimeError("login comes first")
        session = wire.new_session(self._ca_file, keep_alive=True)
        return self._speaker(self._client.token, (self._timeout_s[0], read_s), session)

    def _speaker(
        self, token: str, timeout_s: tuple[float, float], session: "requests.Session"
    ) -> "hvac.Client":
        return wire.new_client(
            self._address,
            token=token,
            namespace=self._namespace,
            timeout_s=timeout_s,
            session=session,
        )


def _is_dead(status: int, body: bytes) -> bool:
    """Tell Vault's own 403 to lookup-self from that of whatever stands before it."""
    try:
        return status == 403 and bool(wire.parse(body, wire.Errors).errors)
    except GarbledError:
        return False


def _post(url: str, body: Mapping[str, object], vault: "hvac.Client") -> object:
    return vault.adapter.post(url, json=body)
