"""What killswitch asks of one Kubernetes API server, and what it may change there.

Rights needed: resourcequotas get, create (and patch, to mend one); pods list, deletecollection;
list on what asks for pods, and patch on its scale, or on what has none: daemonsets, jobs, cronjobs.
To name who asks for pods again: list on its autoscalers. To pause one: patch on it, and get.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from threading import Lock as Mutex
from typing import Final, TypeVar

from killswitch.clients.kubeconfig import Access, bearer, load
from killswitch.clients.kubernetes_changes import LOCK_PATH, Changes
from killswitch.clients.kubernetes_http import JSON, Answer, Line, expect_ok, parse
from killswitch.clients.kubernetes_kinds import RECONCILERS, WORKLOADS
from killswitch.clients.kubernetes_owners import ReconcilerItem, is_of_keda, reconciler_of
from killswitch.clients.kubernetes_shapes import (
    Item,
    Page,
    PodItem,
    Quota,
    Version,
    is_chosen,
    is_of_deployment,
    lock_of,
    pod_of,
    workload_of,
)
from killswitch.errors import GarbledError, RefusedError
from killswitch.secret import Secret
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool
from killswitch.steps.kubernetes_port import Lock, Pod, Workload

_PAGE: Final = 100
_MAX_PAGES: Final = 50
_LONG: Final = 500
_PODS: Final = "/api/v1/namespaces/{namespace}/pods"
T = TypeVar("T")


class KubernetesClient:
    """One context of a kubeconfig, which carries the credential unless `login` is given a token.

    Args:
        kubeconfig: path of the file.
        context: its name in that file.
        grace_s: how long a pod may take to end, whole seconds, at least 1.
        selector: the labels of the pods to end; none is every pod.
        timeout_s: for connecting, and for each read of an answer.
        only_loopback: for the sandbox: `warm` and `login` refuse a server on another machine.
    """

    def __init__(
        self,
        *,
        kubeconfig: Path,
        context: str,
        grace_s: int = 1,
        selector: Mapping[str, str] | None = None,
        timeout_s: tuple[float, float] = (3, 5),
        only_loopback: bool = False,
    ) -> None:
        if grace_s < 1:
            raise ValueError("grace_s must be at least 1: a forced delete hides what still runs")
        self.grace_s = grace_s
        self._labels = dict(selector or {})
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
    def selector(self) -> str:
        """The labels of the pods to end, as a query: "app=bot,desk=main"; "" is every pod."""
        return ",".join(f"{key}={value}" for key, value in sorted(self._labels.items()))

    @property
    def writes(self) -> Changes:
        """The changes, for real."""
        return Changes(self, dry_run=False)

    @property
    def rehearsal(self) -> Changes:
        """The same requests with ``dryRun=All``: checked and admitted, then dropped."""
        return Changes(self, dry_run=True)

    def lock_state(self, namespace: str) -> Lock:
        """Read the quota; without the right to, a dry run tells at least whether it is missing."""
        answer = self.call("GET", LOCK_PATH, {"namespace": namespace})
        missing = answer.code == 404 or (
            answer.code == 403 and self.rehearsal.create_lock(namespace).code == 201
        )
        return Lock.MISSING if missing else lock_of(parse(expect_ok(answer), Quota))

    def pods(self, namespace: str) -> tuple[Pod, ...]:
        """List every pod of `namespace` that is selected, finished ones too."""
        params, query = {"namespace": namespace}, self.selecting
        found = self._list(_PODS, params, "PodList", PodItem, query)
        return tuple(pod_of(item, now) for item, now in found)

    def workloads(self, namespace: str, kind: str) -> tuple[Workload, ...]:
        """List what asks for such pods; what a Deployment owns is not listed."""
        place = WORKLOADS[kind]
        params, answered = {"namespace": namespace}, f"{place.kind}List"
        items = [item for item, _ in self._list(place.list_path, params, answered, Item)]
        return tuple(
            workload_of(kind, item)
            for item in items
            if is_chosen(item, self._labels) and not is_of_deployment(item)
        )

    def scalers(self, namespace: str, tool: Tool) -> tuple[Reconciler, ...]:
        """List the autoscalers of one kind; none where the cluster does not know the kind."""
        place = RECONCILERS[tool]
        answer = self.call("GET", place.list_path, {"namespace": namespace}, {"limit": str(_LONG)})
        if answer.code == 404:
            return ()
        page = parse(expect_ok(answer), Page[ReconcilerItem])
        if page.metadata.next_page:
            raise GarbledError(f"more than {_LONG} items in one list")
        return tuple(
            reconciler_of(Keeper(tool, item.metadata.name, namespace), item)
            for item in page.items or ()
            if not is_of_keda(item)
        )

    def reconciler(self, keeper: Keeper) -> Reconciler | None:
        """Read an Argo CD application, a Flux object or a ScaledObject; None if it is not there."""
        params = {"namespace": keeper.namespace, "name": keeper.name}
        answer = self.call("GET", RECONCILERS[keeper.tool].path, params)
        if answer.code == 404:
            return None
        return reconciler_of(keeper, parse(expect_ok(answer), ReconcilerItem))

    @property
    def selecting(self) -> dict[str, str]:
        """What limits a request to the selected pods."""
        return {"labelSelector": self.selector} if self._labels else {}

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
        self,
        path: str,
        params: Mapping[str, str],
        kind: str,
        entry: type[T],
        limits: Mapping[str, str] | None = None,
    ) -> Iterator[tuple[T, datetime | None]]:
        query = {"limit": str(_PAGE), **(limits or {})}
        for _ in range(_MAX_PAGES):
            answer = expect_ok(self.call("GET", path, params, query))
            page = parse(answer, Page[entry])  # type: ignore[valid-type]  # msgspec makes it so
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
