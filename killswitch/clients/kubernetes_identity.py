"""Which cluster this is: the uid of its namespace kube-system, which no other cluster has."""

import re
import time
from threading import Event, Lock, Thread
from typing import Final, Protocol

import msgspec

from killswitch.clients.kubernetes_http import Answer, expect_ok, parse
from killswitch.errors import RefusedError, VendorError
from killswitch.model import Note

_KUBE_SYSTEM: Final = "/api/v1/namespaces/kube-system"
_RIGHT: Final = "get on namespaces, resourceNames [kube-system], by a Role in kube-system"
_UID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Many questions begin at once: what one was told of the cluster, the others need not wait for.
_SAME_S: Final = 1.0
_READ_BY_HAND: Final = "kubectl get namespace kube-system -o jsonpath='{.metadata.uid}'"
# An unpinned cluster's answer has come by the end of the first look, or is not waited for.
_WAIT_S: Final = 0.05


class _Meta(msgspec.Struct):
    name: str
    uid: str


class _Namespace(msgspec.Struct):
    metadata: _Meta


class Asks(Protocol):
    """What sends a request."""

    def send(
        self, method: str, path: str, params: dict[str, str], query: dict[str, str], /
    ) -> Answer:
        """Send one request with the credential."""


class ClusterIdentity:
    """Compares the cluster with the one that is `wanted`, "" for any."""

    def __init__(self, wanted: str) -> None:
        if wanted and not _UID.fullmatch(wanted):
            raise ValueError(f"cluster_uid is not the uid of a namespace: {_READ_BY_HAND}")
        self._wanted = wanted
        self._mutex = Lock()
        self._confirmed = not wanted
        self._problem: VendorError | None = None
        self._problem_until = 0.0
        self._asked = False
        self._answered = Event()
        self._found = ""

    def demand(self, line: Asks) -> None:
        """Return when this is the pinned cluster, or none is pinned; it is asked once.

        Raises:
            RefusedError: it is another one, or may not be asked. VendorError: it did not say.
        """
        with self._mutex:
            if self._confirmed:
                return
            if self._problem is not None and time.monotonic() < self._problem_until:
                raise type(self._problem)(self._problem.problem)
            try:
                self._compare(line)
            except VendorError as error:
                self._problem, self._problem_until = error, time.monotonic() + _SAME_S
                raise
            self._confirmed = True

    def _compare(self, line: Asks) -> None:
        found = self._uid(line)
        if found != self._wanted:
            raise RefusedError(
                "this kubeconfig leads to another cluster than the one configured: its uid is"
                f" {found}, cluster_uid is {self._wanted}"
            )

    def ask(self, line: Asks) -> None:
        """Begin to ask an unpinned cluster for its uid, in the background, once."""
        with self._mutex:
            if self._wanted or self._asked:
                return
            self._asked = True
        Thread(target=self._ask, args=(line,), name="cluster uid", daemon=True).start()

    def notes(self) -> tuple[Note, ...]:
        """Say that the cluster is not pinned, and what to write, once it is known."""
        if self._wanted or not self._asked or not self._answered.wait(_WAIT_S):
            return ()
        hint = f'cluster_uid = "{self._found}"' if self._found else f"its uid: {_READ_BY_HAND}"
        text = "the cluster is not pinned: a changed kubeconfig could lead to another one unseen"
        return (Note("not pinned", text, hint=hint),)

    def _ask(self, line: Asks) -> None:
        try:
            self._found = self._uid(line)
        except Exception:  # noqa: BLE001 (a convenience: the note then says how to ask by hand)
            self._found = ""
        finally:
            self._answered.set()

    def _uid(self, line: Asks) -> str:
        answer = line.send("GET", _KUBE_SYSTEM, {}, {})
        if answer.code == 403:
            raise RefusedError(
                f"cluster_uid cannot be checked (403): the right is missing: {_RIGHT}"
            )
        meta = parse(expect_ok(answer), _Namespace).metadata
        if meta.name != "kube-system" or not meta.uid.isprintable() or len(meta.uid) > 64:
            raise RefusedError("cluster_uid cannot be checked: another answer than a namespace")
        return meta.uid
