"""What killswitch asks of one Kubernetes API server, and what it may change there.

Rights needed: resourcequotas get, create (and patch, to mend one); pods list, deletecollection;
list on what asks for pods, and patch on its scale, or on what has none: daemonsets, jobs, cronjobs.
To name who asks for pods again: list on its autoscalers. To pause one: patch on it, and get.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final, TypeVar, Unpack

from killswitch.clients.kubernetes_changes import LOCK_PATH, Changes
from killswitch.clients.kubernetes_choice import Choice
from killswitch.clients.kubernetes_http import Answer, expect_ok, is_gone, parse
from killswitch.clients.kubernetes_kinds import RECONCILERS, WORKLOADS, Place
from killswitch.clients.kubernetes_owners import ReconcilerItem, is_of_keda, reconciler_of
from killswitch.clients.kubernetes_pods import PodMemory
from killswitch.clients.kubernetes_session import ApiSession, SessionArguments
from killswitch.clients.kubernetes_shapes import (
    Item,
    Page,
    PodItem,
    Quota,
    is_chosen,
    is_finished,
    is_of_deployment,
    lock_of,
    pod_of,
    workload_of,
)
from killswitch.errors import GarbledError
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool
from killswitch.steps.kubernetes_port import Lock, Pod, Workload

_PAGE: Final = 100
_MAX_PAGES: Final = 50
_LONG: Final = 500
_PODS: Final = "/api/v1/namespaces/{namespace}/pods"
T = TypeVar("T")


class KubernetesClient(ApiSession):
    """What the halt looks at and changes in one cluster; the rest of its arguments: `ApiSession`.

    Args:
        grace_s: how long a pod may take to end, whole seconds, at least 1.
        selector: the labels of the pods to end; none is every pod.
    """

    def __init__(
        self,
        *,
        grace_s: int = 1,
        selector: Mapping[str, str] | None = None,
        **session: Unpack[SessionArguments],
    ) -> None:
        if grace_s < 1:
            raise ValueError("grace_s must be at least 1: a forced delete hides what still runs")
        super().__init__(**session)
        self.grace_s = grace_s
        self._labels = dict(selector or {})
        self.choice = Choice(self._labels)
        self.memory = PodMemory()

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
        """List every pod of `namespace` that is selected, finished ones too.

        For the rest of the run it holds also those that left the list before their end was seen.
        """
        found = list(self._list(_PODS, {"namespace": namespace}, "PodList", PodItem))
        clock = next((now for _, now in found), None)

        def listed(kind: str) -> Mapping[str, Item]:
            return {item.metadata.uid: item for item in self._items(namespace, kind)}

        items = self.choice.of(namespace, [item for item, _ in found], listed)
        return self.memory.beside(namespace, [pod_of(item, clock) for item in items])

    def workloads(self, namespace: str, kind: str) -> tuple[Workload, ...]:
        """List what asks for such pods, without finished Jobs and what a Deployment owns."""
        return tuple(
            workload_of(kind, item)
            for item in self._items(namespace, kind)
            if is_chosen(item, self._labels)
            and not is_of_deployment(item)
            and not (kind == "jobs" and is_finished(item))
        )

    def scalers(self, namespace: str, tool: Tool) -> tuple[Reconciler, ...]:
        """List the autoscalers of one kind; none where the cluster does not know the kind."""
        place = RECONCILERS[tool]
        answer = self.call("GET", place.list_path, {"namespace": namespace}, {"limit": str(_LONG)})
        if answer.code == 404 and self._is_unknown(place.api):
            return ()
        page = parse(_expect_served(answer, place), Page[ReconcilerItem])
        if page.metadata.next_page:
            raise GarbledError(f"more than {_LONG} items in one list")
        return tuple(
            reconciler_of(Keeper(tool, item.metadata.name, namespace), item)
            for item in page.items or ()
            if not is_of_keda(item)
        )

    def reconciler(self, keeper: Keeper) -> Reconciler | None:
        """Read an Argo CD application, a Flux object or a ScaledObject; None if it is not there."""
        place = RECONCILERS[keeper.tool]
        params = {"namespace": keeper.namespace, "name": keeper.name}
        answer = self.call("GET", place.path, params)
        if is_gone(answer, place.resource, keeper.name):
            return None
        return reconciler_of(keeper, parse(_expect_served(answer, place), ReconcilerItem))

    @property
    def selecting(self) -> dict[str, str]:
        """What limits a request to the selected pods."""
        return {"labelSelector": self.selector} if self._labels else {}

    def _is_unknown(self, api: str) -> bool:
        """Return whether the cluster serves no version of the group of `api`."""
        return self.call("GET", api.rpartition("/")[0], {}).code == 404

    def _items(self, namespace: str, kind: str) -> list[Item]:
        place = WORKLOADS[kind]
        found = self._list(place.list_path, {"namespace": namespace}, f"{place.kind}List", Item)
        return [item for item, _ in found]

    def _list(
        self,
        path: str,
        params: Mapping[str, str],
        kind: str,
        entry: type[T],
    ) -> Iterator[tuple[T, datetime | None]]:
        query = {"limit": str(_PAGE)}
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


def _expect_served(answer: Answer, place: Place) -> Answer:
    if answer.code == 404:
        raise GarbledError(f"could not look (404): {place.api} {place.resource} is not served")
    return expect_ok(answer)
