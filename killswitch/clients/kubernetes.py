"""What killswitch asks of one Kubernetes API server, and what it may change there.

Rights needed: resourcequotas get, create (and patch, to mend one); pods list, deletecollection;
deployments and statefulsets list, and patch on their scale.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock as Mutex
from typing import Final

from killswitch.clients.kubeconfig import Access, bearer, load
from killswitch.clients.kubernetes_http import JSON, Answer, Line, expect_ok, parse
from killswitch.clients.kubernetes_shapes import (
    Item,
    Meta,
    Named,
    Page,
    Quota,
    Scale,
    Version,
    lock_of,
    pod_of,
    workload_of,
)
from killswitch.errors import GarbledError, RefusedError, UnreachableError
from killswitch.model import Receipt
from killswitch.secret import Secret
from killswitch.steps.kubernetes_port import LOCK, Lock, Pod, Workload

KUBELET_FLOOR_S: Final = 2
"""The kubelet gives no pod less than this, whatever was asked (since Kubernetes 1.28)."""
_PAGE: Final = 100
_MAX_PAGES: Final = 50
_QUOTAS: Final = "/api/v1/namespaces/{namespace}/resourcequotas"
_QUOTA: Final = f"{_QUOTAS}/{LOCK}"
_PODS: Final = "/api/v1/namespaces/{namespace}/pods"
_WORKLOADS: Final = "/apis/apps/v1/namespaces/{namespace}/{kind}"
_SCALE: Final = f"{_WORKLOADS}/{{name}}/scale"
_LISTS: Final = {"deployments": "DeploymentList", "statefulsets": "StatefulSetList"}


class KubernetesClient:
    """One context of a kubeconfig, which carries the credential unless `login` is given a token.

    Args:
        kubeconfig: path of the file.
        context: its name in that file.
        grace_s: how long a pod may take to end, whole seconds, at least 1.
        timeout_s: for connecting, and for each read of an answer.
        only_loopback: for the sandbox: `warm` and `login` refuse a server on another machine.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        context: str,
        grace_s: int = 1,
        timeout_s: tuple[float, float] = (3, 5),
        only_loopback: bool = False,
    ) -> None:
        if grace_s < 1:
            raise ValueError("grace_s must be at least 1: a forced delete hides what still runs")
        self.grace_s = grace_s
        self._kubeconfig = kubeconfig
        self._context = context
        self._timeout_s = timeout_s
        self._only_loopback = only_loopback
        self._mutex = Mutex()
        self._line: tuple[Line, Access] | None = None
        self._may_write: bool | None = None

    def __repr__(self) -> str:
        return f"KubernetesClient({self._context!r})"

    def warm(self) -> str:
        """Load the kubeconfig, open a connection without the token, and say what answered."""
        line, access = self._connect()
        answer = line.send("GET", "/version", {}, {}, show_credential=False)
        if answer.code in {401, 403}:
            fact = f"reachable, wants a credential ({answer.code})"
        else:
            fact = f"kubernetes {parse(expect_ok(answer), Version).git_version[:40]}"
        if access.expires_at:
            fact += f", token until {access.expires_at:%Y-%m-%d %H:%M} UTC"
        return fact

    def login(self, *, may_write: bool, token: Secret | None = None) -> None:
        """Allow calls with `token`, else with the kubeconfig's own credential.

        Real changes only with `may_write`.
        """
        line, _ = self._connect()
        if token is not None:
            line.use(bearer(token.reveal()))
        self._may_write = may_write

    @property
    def writes(self) -> "Changes":
        """The changes, for real."""
        return Changes(self, dry_run=False)

    @property
    def rehearsal(self) -> "Changes":
        """The same requests with ``dryRun=All``: checked and admitted, then dropped."""
        return Changes(self, dry_run=True)

    def lock_state(self, namespace: str) -> Lock:
        """Read the quota; without the right to, a dry run tells at least whether it is missing."""
        answer = self.call("GET", _QUOTA, {"namespace": namespace})
        missing = answer.code == 404 or (
            answer.code == 403 and self.rehearsal.create_lock(namespace).code == 201
        )
        return Lock.MISSING if missing else lock_of(parse(expect_ok(answer), Quota))

    def pods(self, namespace: str) -> tuple[Pod, ...]:
        """List every pod of `namespace`, finished ones too."""
        found = self._list(_PODS, {"namespace": namespace}, "PodList")
        return tuple(pod_of(item, now) for item, now in found)

    def workloads(self, namespace: str, kind: str) -> tuple[Workload, ...]:
        """List what asks for pods; `kind` is "deployments" or "statefulsets"."""
        params = {"namespace": namespace, "kind": kind}
        return tuple(workload_of(item) for item, _ in self._list(_WORKLOADS, params, _LISTS[kind]))

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

        Without `may_write`, only reads and dry runs leave this process.
        """
        if self._may_write is None:
            raise RuntimeError("login first")
        query = query or {}
        if method != "GET" and not self._may_write and query.get("dryRun") != "All":
            raise RefusedError("this client may only read: no change was sent")
        return self._connect()[0].send(method, path, params, query, body, accept=accept)

    def _list(
        self, path: str, params: Mapping[str, str], kind: str
    ) -> Iterator[tuple[Item, datetime | None]]:
        query = {"limit": str(_PAGE)}
        for _ in range(_MAX_PAGES):
            answer = expect_ok(self.call("GET", path, params, query))
            page = parse(answer, Page)
            if page.kind != kind:
                raise GarbledError(f"asked for a {kind}, answered with something else")
            yield from ((item, answer.date) for item in page.items or ())
            if not page.metadata.next_page:
                return
            query["continue"] = page.metadata.next_page
        raise GarbledError(f"more than {_MAX_PAGES * _PAGE} items in one list")

    def _connect(self) -> tuple[Line, Access]:
        with self._mutex:
            if self._line is None:
                access = load(self._kubeconfig, self._context, only_loopback=self._only_loopback)
                self._line = (Line(access, self._timeout_s), access)
            return self._line


class Changes:
    """The three changes to a cluster; with `dry_run` the server checks them and drops them."""

    def __init__(self, client: KubernetesClient, *, dry_run: bool) -> None:
        self._client = client
        self._dry = {"dryRun": "All"} if dry_run else {}
        self._claim = "dry run: " if dry_run else ""

    def lock(self, namespace: str) -> Receipt:
        """Create the quota that allows no pod, or mend the spec of one that is there."""
        answer = self.create_lock(namespace)
        if answer.code == 404:
            raise RefusedError(f"namespace {namespace!r} does not exist (404)")
        done = "quota created"
        if answer.code == 409:
            lock = self._client.lock_state(namespace)
            if lock is Lock.MISSING:
                raise UnreachableError("the quota was deleted while it was looked at")
            if lock is not Lock.OTHER:
                return Receipt(f"{self._claim}the quota is {lock}")
            answer = self._patch(_QUOTA, {"namespace": namespace}, {"hard": {"pods": "0"}})
            done = "quota mended"
        meta = parse(expect_ok(answer), Named).metadata
        return Receipt(f"{self._claim}{done}: no pod can start", _evidence(meta))

    def create_lock(self, namespace: str) -> Answer:
        """Send the bare create and return the answer, whatever it is: 409 if it is there."""
        body = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": LOCK},
            "spec": {"hard": {"pods": "0"}},
        }
        query = {"fieldManager": "killswitch", **self._dry}
        return self._client.call("POST", _QUOTAS, {"namespace": namespace}, query, body)

    def delete_pods(self, namespace: str) -> Receipt:
        """Ask every pod to end within the grace; the body of the answer is not read."""
        grace_s = self._client.grace_s
        query = {"gracePeriodSeconds": str(grace_s), **self._dry}
        expect_ok(self._client.call("DELETE", _PODS, {"namespace": namespace}, query))
        floor = (
            f" (its kubelet gives at least {KUBELET_FLOOR_S})" if grace_s < KUBELET_FLOOR_S else ""
        )
        return Receipt(f"{self._claim}every pod was asked to end within {grace_s} s{floor}")

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        """Ask for no pod any more; reports what the server now says it wants."""
        params = {"namespace": namespace, "kind": kind, "name": name}
        scale = parse(expect_ok(self._patch(_SCALE, params, {"replicas": 0})), Scale)
        # The scale subresource leaves a zero out.
        wanted = scale.spec.replicas or 0
        return Receipt(f"{self._claim}asks for {wanted} pods", _evidence(scale.metadata))

    def _patch(self, path: str, params: Mapping[str, str], spec: Mapping[str, object]) -> Answer:
        query = {"fieldManager": "killswitch", **self._dry}
        return self._client.call("PATCH", path, params, query, {"spec": spec})


def _evidence(meta: Meta) -> dict[str, str]:
    return {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version}
