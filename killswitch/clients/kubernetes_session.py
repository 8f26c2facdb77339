"""A session with one API server: warmed up without a credential, logged in after the touch."""

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock as Mutex
from typing import Final, Required, TypedDict

import msgspec

from killswitch.clients.kubeconfig import Access, load
from killswitch.clients.kubeconfig_credential import Credential, bearer
from killswitch.clients.kubernetes_http import JSON, Answer, Line, expect_ok, parse
from killswitch.clients.kubernetes_identity import ClusterIdentity
from killswitch.errors import RefusedError, VendorError
from killswitch.model import Note
from killswitch.secret import Secret

_YOUNG_S: Final = 5.0


class Version(msgspec.Struct, rename="camel"):
    """The answer of /version."""

    git_version: str


class SessionArguments(TypedDict, total=False):
    """The arguments of `ApiSession`, for who passes them on."""

    kubeconfig: Required[Path]
    context: Required[str]
    cluster_uid: str
    plugins: Sequence[str]
    own_credential: bool
    needed_s: float
    timeout_s: tuple[float, float]
    only_loopback: bool


class ApiSession:
    """One context of a kubeconfig, which carries the credential unless `login` is given a token.

    Args:
        kubeconfig: path of the file.
        context: its name in that file.
        cluster_uid: the uid of the cluster's namespace kube-system; another cluster is refused
            before anything is looked at. "" takes any.
        plugins: names of the credential plugins that the kubeconfig may run.
        own_credential: False when `login` will be given a token: the kubeconfig's own credential
            is then never read, run or shown.
        needed_s: how long a credential must be good for.
        timeout_s: for connecting, and for each read of an answer.
        only_loopback: for the sandbox: `warm` and `login` refuse a server on another machine.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        context: str,
        cluster_uid: str = "",
        plugins: Sequence[str] = (),
        own_credential: bool = True,
        needed_s: float = 0.0,
        timeout_s: tuple[float, float] = (3, 5),
        only_loopback: bool = False,
    ) -> None:
        self._kubeconfig = kubeconfig
        self._context = context
        self._plugins = tuple(plugins)
        self._own_credential = own_credential
        self._needed = timedelta(seconds=needed_s)
        self._timeout_s = timeout_s
        self._only_loopback = only_loopback
        self._identity = ClusterIdentity(cluster_uid)
        self._mutex = Mutex()
        self._line: tuple[Line, Access] | None = None
        self._loaded_at = 0.0
        self._may_write: bool | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._context!r})"

    def warm(self) -> str:
        """Load the kubeconfig, with its plugin if it has one, and say what answered.

        The connection is opened without the token. Raises RefusedError also for a credential that
        has ended, or ends while it is needed.
        """
        line, access = self._connect()
        answer = line.send("GET", "/version", {}, {}, show_credential=False)
        if answer.code in {401, 403}:
            fact = f"reachable, wants a credential ({answer.code})"
        else:
            fact = f"kubernetes {parse(expect_ok(answer), Version).git_version[:40]}"
        credential = access.credential
        if credential.expires_at:
            fact += f", {credential.what.removeprefix('the ')} until {_minute(credential)}"
            self._demand_lasting(credential)
        return fact

    def login(self, *, may_write: bool, token: Secret | None = None) -> None:
        """Allow calls with `token`, else with the kubeconfig's own credential.

        A plugin's credential that has ended since, or ends while it is needed, is fetched again.
        Real changes only with `may_write`.
        """
        if token is not None:
            credential = bearer(token.reveal())
            self._only_foreign()
            self._connect()[0].use(credential)
        else:
            self._connect()
            self._renew()
        self._may_write = may_write

    def call(
        self,
        method: str,
        path: str,
        params: Mapping[str, str],
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        *,
        accept: str = JSON,
    ) -> Answer:
        """Send one request with the credential; any HTTP status is an answer.

        Without `may_write`, only reads and dry runs leave this process. The first one is preceded
        by the question which cluster this is, if that is pinned.
        """
        if self._may_write is None:
            raise RuntimeError("login first")
        query = query or {}
        if method != "GET" and not self._may_write and query.get("dryRun") != "All":
            raise RefusedError("this client may only read: no change was sent")
        line, _ = self._connect()
        self._identity.demand(line)
        return line.send(method, path, params, query, body, accept=accept)

    def identify(self) -> None:
        """Begin to ask which cluster this is, if that is not pinned; costs nobody any time."""
        self._identity.ask(self._connect()[0])

    def notes(self) -> tuple[Note, ...]:
        """Return what is to be said of the cluster's identity, as far as it is known."""
        return self._identity.notes()

    def _only_foreign(self) -> None:
        with self._mutex:
            if self._own_credential:
                self._own_credential, self._line = False, None

    def _renew(self) -> None:
        """Load the kubeconfig again when what its plugin gave does not last."""
        with self._mutex:
            if self._line is None or time.monotonic() - self._loaded_at < _YOUNG_S:
                return
            credential = self._line[1].credential
            if not credential.from_plugin or self._lasts(credential):
                return
            try:
                self._line = self._load()
            except VendorError:
                if _ended(credential):
                    raise

    def _lasts(self, credential: Credential) -> bool:
        ends = credential.expires_at
        return ends is None or ends > datetime.now(UTC) + self._needed

    def _demand_lasting(self, credential: Credential) -> None:
        if _ended(credential):
            raise RefusedError(f"{credential.what} expired at {_minute(credential)}")
        if not self._lasts(credential):
            needed_s = self._needed.total_seconds()
            raise RefusedError(
                f"{credential.what} expires at {_minute(credential)}, within the {needed_s:g} s"
                " that a halt may take"
            )

    def _connect(self) -> tuple[Line, Access]:
        with self._mutex:
            if self._line is None:
                self._line = self._load()
            return self._line

    def _load(self) -> tuple[Line, Access]:
        access = load(
            self._kubeconfig,
            self._context,
            only_loopback=self._only_loopback,
            plugins=self._plugins,
            own_credential=self._own_credential,
        )
        self._loaded_at = time.monotonic()
        return Line(access, self._timeout_s), access


def _ended(credential: Credential) -> bool:
    return credential.expires_at is not None and credential.expires_at <= datetime.now(UTC)


def _minute(credential: Credential) -> str:
    return f"{credential.expires_at:%Y-%m-%d %H:%M} UTC" if credential.expires_at else ""
