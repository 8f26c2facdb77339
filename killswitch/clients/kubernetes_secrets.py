"""What killswitch asks of External Secrets and of the Secrets in a cluster, and deletes there.

Rights needed in each namespace: resourcequotas get, create, patch; externalsecrets and pushsecrets
list, delete; secrets delete, by name. Cluster-wide, if anything there makes objects in the
namespaces: clusterexternalsecrets and clusterpushsecrets list, delete. To know the Secrets that
stores log in with: secretstores and clustersecretstores list.

The right to delete a Secret can read it: a deletion in the foreground, and that of a Secret with a
finalizer, answers with its values. So every deletion asks for the background and for metadata
only, and what comes back is neither kept nor repeated.
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.clients.kubernetes_http import ONLY_METADATA, Answer, expect_ok, parse
from killswitch.clients.kubernetes_secrets_memory import Memory
from killswitch.clients.kubernetes_secrets_shapes import (
    GROUP,
    MAKERS,
    Deletion,
    Groups,
    Resources,
    Thing,
    Things,
    lock_of,
    logins_of,
    names_in,
    parent_of,
    synced_of,
)
from killswitch.clients.kubernetes_shapes import Named, Quota
from killswitch.errors import GarbledError, RefusedError, UnreachableError
from killswitch.model import Receipt
from killswitch.steps.synced_secrets_port import (
    LOCK,
    MAKER_OF,
    PARENTS,
    PUSHES,
    SYNCS,
    Found,
    Latch,
    Lock,
    Parent,
    Synced,
)

_PAGE: Final = 200
_MAX_PAGES: Final = 50
_QUOTAS: Final = "/api/v1/namespaces/{namespace}/resourcequotas"
_QUOTA: Final = f"{_QUOTAS}/{LOCK}"
_BY_NAME: Final = "/api/v1/namespaces/{namespace}/secrets/{name}"
_VERSION: Final = f"/apis/{GROUP}/{{version}}"
_CLUSTER_WIDE: Final = f"{_VERSION}/{{resource}}"
_IN_NAMESPACE: Final = f"{_VERSION}/namespaces/{{namespace}}/{{resource}}"
_KINDS: Final = {
    PUSHES: "PushSecret",
    SYNCS: "ExternalSecret",
    PARENTS[0]: "ClusterPushSecret",
    PARENTS[1]: "ClusterExternalSecret",
    "secretstores": "SecretStore",
    "clustersecretstores": "ClusterSecretStore",
}


class SecretsClient(Memory):
    """External Secrets and the Secrets of one cluster, over a Kubernetes client of its own.

    It remembers what it saw, for as long as it lives: see `Memory`.
    """

    def __init__(self, kubernetes: KubernetesClient) -> None:
        super().__init__()
        self.kubernetes = kubernetes
        self._served: dict[str, str] = {}

    def __repr__(self) -> str:
        return f"SecretsClient({self.kubernetes!r})"

    @property
    def writes(self) -> "Changes":
        """The changes, for real."""
        return Changes(self, dry_run=False)

    @property
    def rehearsal(self) -> "Changes":
        """The same requests with ``dryRun=All``: checked and admitted, then dropped."""
        return Changes(self, dry_run=True)

    def latch(self, namespace: str) -> Latch:
        """Read the quota; without the right to, a dry run tells at least whether it is missing."""
        answer = self.kubernetes.call("GET", _QUOTA, {"namespace": namespace})
        if answer.code == 404 or (
            answer.code == 403 and self.rehearsal.create_lock(namespace).code == 201
        ):
            return Latch(Lock.MISSING)
        quota = parse(expect_ok(answer), Quota)
        noted = quota.metadata.annotations
        latch = Latch(lock_of(quota), names_in(noted), names_in(noted, MAKERS))
        self.remember(namespace, latch)
        return latch

    def synced(self, namespace: str, resource: str) -> tuple[Synced, ...] | None:
        """List the ExternalSecrets or PushSecrets, and remember what they name."""
        things = self._list(resource, namespace)
        if things is None:
            return None
        found = tuple(synced_of(thing, resource, now) for thing, now in things)
        known = self._discovered.setdefault(namespace, {})
        makers = self._makers.setdefault(MAKER_OF[resource], set())
        for one in found:
            for name in one.secrets:
                known[name] = f"{_KINDS[resource]} {one.name}"
            if resource == SYNCS:
                self._written.setdefault(namespace, set()).update(one.secrets)
            makers.update(filter(None, [one.parent]))
        return found

    def parents(self, resource: str) -> tuple[Parent, ...] | None:
        """List the ClusterExternalSecrets or ClusterPushSecrets."""
        things = self._list(resource)
        return None if things is None else tuple(parent_of(thing, now) for thing, now in things)

    def secret(self, namespace: str, name: str) -> Found | None:
        """Tell by the dry run of its deletion whether a Secret is there."""
        answer = self.delete(_BY_NAME, {"namespace": namespace, "name": name}, dry_run=True)
        if answer.code == 404:
            if _says_gone(answer, "secrets", name):
                return None
            raise GarbledError(f"the answer (404) does not say that Secret {name!r} is missing")
        said = parse(expect_ok(answer), Deletion)
        if said.kind not in {"Status", "PartialObjectMetadata"}:
            raise GarbledError(f"the answer ({answer.code}) is not what a deletion says")
        self._seen.setdefault(namespace, set()).add(name)
        return Found(tuple(said.metadata.finalizers or ()))

    def logins(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that stores log in with; stores that may not be seen name none."""
        found: dict[str, str] = {}
        for resource, place in (("clustersecretstores", ""), ("secretstores", namespace)):
            try:
                things = self._list(resource, place)
            except RefusedError:
                continue  # for good: its Secrets are taken for a bot's in every look alike
            for thing, _ in things or ():
                found.update(logins_of(thing, namespace, cluster_wide=not place))
        self._logins[namespace] = found
        return found

    def delete(self, path: str, params: Mapping[str, str], *, dry_run: bool) -> Answer:
        """Delete one object in the background; nothing of its content comes back."""
        query = {"propagationPolicy": "Background"} | ({"dryRun": "All"} if dry_run else {})
        return self.kubernetes.call("DELETE", path, params, query, accept=ONLY_METADATA)

    def where(self, resource: str, namespace: str) -> tuple[str, dict[str, str]] | None:
        """Return path and parameters of a resource as the cluster serves it, or None."""
        version = self._served.get(resource) or self._discover().get(resource)
        if version is None:
            return None
        params = {"version": version, "resource": resource, "namespace": namespace}
        if not namespace:
            del params["namespace"]
        return (_IN_NAMESPACE if namespace else _CLUSTER_WIDE), params

    def _discover(self) -> Mapping[str, str]:
        """Ask which versions are served: a list without the group is a positive no."""
        groups = parse(expect_ok(self.kubernetes.call("GET", "/apis", {})), Groups)
        if groups.kind != "APIGroupList":
            raise GarbledError("the answer to /apis is not the list of its groups")
        served: dict[str, str] = {}
        for group in groups.groups:
            for version in group.versions if group.name == GROUP else ():
                params = {"version": version.version}
                listed = parse(expect_ok(self.kubernetes.call("GET", _VERSION, params)), Resources)
                if listed.kind != "APIResourceList":
                    raise GarbledError("the answer is not the list of a version's resources")
                for resource in listed.resources:
                    served.setdefault(resource.name, version.version)
        self._served = served
        return served

    def _list(
        self, resource: str, namespace: str = ""
    ) -> list[tuple[Thing, datetime | None]] | None:
        where = self.where(resource, namespace)
        if where is None:
            return None
        return list(self._pages(resource, *where))

    def _pages(
        self, resource: str, path: str, params: Mapping[str, str]
    ) -> Iterator[tuple[Thing, datetime | None]]:
        query = {"limit": str(_PAGE)}
        for _ in range(_MAX_PAGES):
            answer = self.kubernetes.call("GET", path, params, query)
            if answer.code == 404:
                # It was served a moment ago: being removed, or moved to another version.
                self._served = {}
                raise UnreachableError(f"{resource} are not served any more (404)")
            page = parse(expect_ok(answer), Things)
            if page.kind != f"{_KINDS[resource]}List":
                raise GarbledError(f"asked for {resource}, answered with something else")
            yield from ((thing, answer.date) for thing in page.items or ())
            if not page.metadata.next_page:
                return
            query["continue"] = page.metadata.next_page
        raise GarbledError(f"more than {_MAX_PAGES * _PAGE} {resource} in one list")


class Changes:
    """The changes to a cluster; with `dry_run` the server checks them and drops them."""

    def __init__(self, client: SecretsClient, *, dry_run: bool) -> None:
        self._client = client
        self._dry_run = dry_run
        self._query = {"fieldManager": "killswitch"} | ({"dryRun": "All"} if dry_run else {})
        self._claim = "dry run: " if dry_run else ""

    def lock(self, namespace: str) -> Receipt:
        """Create the quota, or mend its spec and add the names that it lacks."""
        try:
            return self._lock(namespace)
        except RefusedError:
            if not self._dry_run:
                self._client.refuse_lock(namespace)
            raise

    def _lock(self, namespace: str) -> Receipt:
        answer = self.create_lock(namespace)
        if answer.code == 404:
            raise RefusedError(f"namespace {namespace!r} does not exist (404)")
        done = "quota created"
        if answer.code == 409:
            latch = self._client.latch(namespace)
            if latch.lock is Lock.MISSING:
                raise UnreachableError("the quota was deleted while it was looked at")
            body, where = self._client.lock_body(namespace), {"namespace": namespace}
            answer = self._client.kubernetes.call("PATCH", _QUOTA, where, self._query, body)
            done = "quota mended"
        meta = parse(expect_ok(answer), Named).metadata
        if self._dry_run:
            self._prove_the_rest(namespace)
        evidence = {"name": meta.name, "uid": meta.uid, "resourceVersion": meta.resource_version}
        return Receipt(f"{self._claim}{done}: no Secret can be created", evidence)

    def _prove_the_rest(self, namespace: str) -> None:
        """Try what a halt does with the quota that it made: read it, and add names to it.

        Who has these rights is told that there is none.
        """
        where, body = {"namespace": namespace}, self._client.lock_body(namespace)
        read = self._client.kubernetes.call("GET", _QUOTA, where)
        added = self._client.kubernetes.call("PATCH", _QUOTA, where, self._query, body)
        for tried in (read, added):
            if tried.code != 404:
                expect_ok(tried)

    def create_lock(self, namespace: str) -> Answer:
        """Send the bare create and return the answer, whatever it is: 409 if it is there."""
        body = {"apiVersion": "v1", "kind": "ResourceQuota", **self._client.lock_body(namespace)}
        where = {"namespace": namespace}
        return self._client.kubernetes.call("POST", _QUOTAS, where, self._query, body)

    def delete(self, resource: str, name: str, namespace: str = "") -> Receipt:
        """Delete one object of External Secrets."""
        where = self._client.where(resource, namespace)
        if where is None:
            return Receipt(f"{self._claim}not installed any more")
        path, params = where
        return self._delete(f"{path}/{{name}}", {**params, "name": name}, resource)

    def delete_secret(self, namespace: str, name: str) -> Receipt:
        """Delete one Secret."""
        return self._delete(_BY_NAME, {"namespace": namespace, "name": name}, "secrets")

    def _delete(self, path: str, params: Mapping[str, str], resource: str) -> Receipt:
        answer = self._client.delete(path, params, dry_run=self._dry_run)
        if answer.code == 404 and _says_gone(answer, resource, params["name"]):
            return Receipt(f"{self._claim}it was gone already")
        said = parse(expect_ok(answer), Deletion)
        uid = said.details.uid or said.metadata.uid
        held = ", held by a finalizer" if said.metadata.finalizers else ""
        return Receipt(f"{self._claim}deletion asked{held}", {"uid": uid})


def _says_gone(answer: Answer, resource: str, name: str) -> bool:
    """Return whether a 404 is the API's own, about this very object: a proxy may say 404, too."""
    said = parse(answer, Deletion)
    about = (said.kind, said.reason, said.details.kind, said.details.name)
    return about == ("Status", "NotFound", resource, name)
