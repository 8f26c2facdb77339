"""What killswitch may change in a cluster, for real or as a dry run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from killswitch.clients.kubernetes_http import Answer, expect_ok, parse
from killswitch.clients.kubernetes_kinds import RECONCILERS, WORKLOADS, Place
from killswitch.clients.kubernetes_owners import Meta
from killswitch.clients.kubernetes_shapes import Named, Quota, Scale, lock_of
from killswitch.errors import RefusedError, UnreachableError
from killswitch.model import Receipt
from killswitch.steps.kubernetes_keepers import Keeper
from killswitch.steps.kubernetes_port import LOCK, Lock

if TYPE_CHECKING:
    from killswitch.clients.kubernetes import KubernetesClient

KUBELET_FLOOR_S: Final = 2
"""The kubelet gives no pod less than this, whatever was asked (since Kubernetes 1.28)."""
_QUOTAS: Final = "/api/v1/namespaces/{namespace}/resourcequotas"
LOCK_PATH: Final = f"{_QUOTAS}/{LOCK}"
_NO_POD: Final = {"hard": {"pods": "0"}}
_PODS: Final = "/api/v1/namespaces/{namespace}/pods"


class Changes:
    """The changes to a cluster; with `dry_run` the server checks them and drops them."""

    def __init__(self, client: "KubernetesClient", *, dry_run: bool) -> None:
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
            answer = self._patch(LOCK_PATH, {"namespace": namespace}, {"spec": _NO_POD})
            done = "quota mended"
        if answer.code < 300 and lock_of(parse(answer, Quota)) is Lock.OTHER:
            raise RefusedError(
                f"the quota {LOCK} has scopes, which cannot be changed: it does not keep every pod"
                " out; a person has to delete it"
            )
        meta = parse(expect_ok(answer), Named).metadata
        if self._dry:
            # A halt reads back what it created, and may have to mend it: only then would these
            # rights be missed. Who has them is told that there is none.
            where = {"namespace": namespace}
            read = self._client.call("GET", LOCK_PATH, where)
            mended = self._patch(LOCK_PATH, where, {"spec": _NO_POD})
            for tried in (read, mended):
                if tried.code != 404:
                    expect_ok(tried)
        return Receipt(f"{self._claim}{done}: no pod can start", _evidence(meta))

    def create_lock(self, namespace: str) -> Answer:
        """Send the bare create and return the answer, whatever it is: 409 if it is there."""
        body = {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": LOCK},
            "spec": _NO_POD,
        }
        query = {"fieldManager": "killswitch", **self._dry}
        return self._client.call("POST", _QUOTAS, {"namespace": namespace}, query, body)

    def delete_pods(self, namespace: str) -> Receipt:
        """Ask every selected pod to end within the grace; the answer's body is not read.

        The mirrors of static pods are left in the list: the quota would keep them from coming
        back, and then nothing would tell of what runs on.
        """
        grace_s = self._client.grace_s
        query = {"gracePeriodSeconds": str(grace_s), **self._client.selecting, **self._dry}
        if static := self._client.memory.static(namespace):
            query["fieldSelector"] = ",".join(f"metadata.name!={pod.name}" for pod in static)
        expect_ok(self._client.call("DELETE", _PODS, {"namespace": namespace}, query))
        for name in self._client.choice.strays(namespace):
            self._delete_stray(namespace, name)
        floor = (
            f" (its kubelet gives at least {KUBELET_FLOOR_S})" if grace_s < KUBELET_FLOOR_S else ""
        )
        which = f"pod with {self._client.selector}" if self._client.selector else "pod"
        return Receipt(f"{self._claim}every {which} was asked to end within {grace_s} s{floor}")

    def _delete_stray(self, namespace: str, name: str) -> None:
        params = {"namespace": namespace, "name": name}
        query = {"gracePeriodSeconds": str(self._client.grace_s), **self._dry}
        answer = self._client.call("DELETE", f"{_PODS}/{{name}}", params, query)
        if answer.code == 403:
            raise RefusedError(
                f"no right to delete pods by name (403): {name} has not the labels"
                f" {self._client.selector}, but is of what makes pods with them"
            )
        if answer.code != 404:
            expect_ok(answer)

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        """Ask for no pod any more; reports what the server now says it wants."""
        place = WORKLOADS[kind]
        answer = self._change(place, namespace, name)
        if place.subresource:
            scale = parse(answer, Scale)
            # The scale subresource leaves a zero out.
            return Receipt(
                f"{self._claim}asks for {scale.spec.replicas or 0} pods", _evidence(scale.metadata)
            )
        done = "selects no node" if kind == "daemonsets" else "suspended"
        return Receipt(f"{self._claim}{done}", _evidence(parse(answer, Named).metadata))

    def pause(self, keeper: Keeper) -> Receipt:
        """Pause a reconciler by its own means; it is never deleted."""
        answer = self._change(RECONCILERS[keeper.tool], keeper.namespace, keeper.name)
        return Receipt(f"{self._claim}paused", _evidence(parse(answer, Named).metadata))

    def _change(self, place: Place, namespace: str, name: str) -> Answer:
        params = {"namespace": namespace, "name": name}
        return expect_ok(self._patch(f"{place.path}{place.subresource}", params, place.patch))

    def _patch(self, path: str, params: Mapping[str, str], body: Mapping[str, object]) -> Answer:
        # Flux takes back what was written in the name of kubectl.
        query = {"fieldManager": "killswitch", **self._dry}
        return self._client.call("PATCH", path, params, query, body)


def _evidence(meta: Meta) -> dict[str, str]:
    return {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version}
