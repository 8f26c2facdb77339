"""The sandbox's API server with Secrets and External Secrets, and the Vault that they write to."""

import time
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

from werkzeug.wrappers import Request, Response

from killswitch.sandbox.external_secrets import GROUP, KINDS, VERSIONS, Operator, Thing, seed
from killswitch.sandbox.kubernetes import KubernetesServer
from killswitch.sandbox.kubernetes_controllers import Namespace, Workload
from killswitch.sandbox.kubernetes_requests import (
    Ask,
    Json,
    NoSuchGroupError,
    Reply,
    StatusError,
    What,
    not_found,
    options,
    read_json,
    selected,
)
from killswitch.sandbox.kubernetes_wire import stamp
from killswitch.sandbox.vault import VaultServer

HELD: Final = "hedger-bybit"
"""The Secret that the trap of a finalizer is about."""
KEEPS: Final = "desk.example/keep"
_NO_RIGHTS: Final = ("get", "list", "create", "patch", "deletecollection")
_FOREGROUND: Final = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
_LOST: Final = "the server could not find the requested resource"


class SyncedKubernetesServer(KubernetesServer):
    """One cluster in which External Secrets copies keys from a Vault into Secrets.

    The account may delete Secrets and not read them; and yet a deletion in the foreground, or of
    a Secret with a finalizer, answers with all that is in it, as the real server does.
    """

    TRAPS: ClassVar[Mapping[str, str]] = {
        **KubernetesServer.TRAPS,
        "secrets-forbidden": "answers 403 to the deletion of a Secret, to its dry run, too",
        "secret-delete-lies": "answers 200 to the deletion of a Secret, and deletes none",
        "secret-finalizer": "has one Secret with a finalizer that nobody takes away",
        "externalsecrets-missing": "has no External Secrets installed, only what they once made",
        "operator-down": "has no operator running: its finalizers hold what is deleted",
        "pushsecret-hangs": "has a PushSecret whose finalizer hangs: its store is out of reach",
        "pushsecret-eager": "has a PushSecret that writes its key back to Vault each 0.3 s",
        "pushsecret-writes-late": "writes a key to Vault 0.3 s after its PushSecret was deleted",
        "gitops-brings-back": "has a tool that applies a deleted ExternalSecret again, at once",
    }

    def __init__(
        self,
        *,
        namespaces: Mapping[str, Iterable[Workload]] | None = None,
        clock: Callable[[], float] = time.time,
        **settings: Any,
    ) -> None:
        super().__init__(namespaces=namespaces, clock=clock, **settings)
        self.denied |= {f"{verb} secrets" for verb in _NO_RIGHTS}
        self.synced = Operator(self.world, clock=clock)
        self._annotations: dict[tuple[str, str], dict[str, str]] = {}
        self._applied: dict[tuple[str, str], dict[str, Any]] = {}
        if namespaces is None:
            seed(self.synced)

    def settle(self) -> None:
        """Bring the operator's books up to now, for a server that it writes to."""
        with self.lock:
            self._operate()

    def live_secrets(self) -> list[str]:
        """Name the Secrets with keys in them, and what could bring one back."""
        with self.lock:
            self._operate()
            return self.synced.live()

    def _operate(self) -> None:
        self.synced.traps = self.world.traps = self.traps
        for secret in self.synced.of("secrets"):
            held = "secret-finalizer" in self.traps and secret.name == HELD
            others = [one for one in secret.finalizers if one != KEEPS]
            secret.finalizers = [*others, *([KEEPS] if held else [])]
            if secret.ending is not None and not secret.finalizers:
                self.synced.delete("secrets", secret)
        self._apply_again()
        self.synced.settle()

    def _apply_again(self) -> None:
        for thing in self.synced.of("externalsecrets"):
            if thing.owner is None:
                self._applied[thing.namespace, thing.name] = thing.spec
        for (namespace, name), spec in self._applied.items():
            gone = ("externalsecrets", namespace, name) not in self.synced.things
            kept_out = self.synced.refusal("externalsecrets", namespace)
            if gone and "gitops-brings-back" in self.traps and not kept_out:
                self.synced.add("externalsecrets", Thing(name=name, namespace=namespace, spec=spec))

    # What the plain server has no answer to.

    def _answer(self, request: Request) -> Reply:
        self._operate()
        path = request.path.rstrip("/")
        try:
            code, body = super()._answer(request)
        except (NoSuchGroupError, StatusError) as error:
            # By now it was let in, and leads nowhere that the plain server knows.
            lost = isinstance(error, NoSuchGroupError) or error.message == _LOST
            reply = self._beyond(request, path) if lost else None
            if reply is None:
                raise
            code, body = reply
        self._operate()
        return code, self._more_groups(path, body)

    def _more_groups(self, path: str, body: Json) -> Json:
        if path == "/apis" and self.synced.installed:
            return body | {"groups": [*body["groups"], _GROUP]}
        if path == "/api/v1":
            secrets = {"name": "secrets", "singularName": "secret", "namespaced": True}
            secrets |= {"kind": "Secret", "verbs": ["delete"]}
            return body | {"resources": [*body["resources"], secrets]}
        return body

    def _beyond(self, request: Request, path: str) -> Reply | None:
        what = What.of(path)
        version = path.split("/")[3:4]
        if path.startswith(f"/apis/{GROUP}") and not self.synced.installed:
            return None
        if request.method == "GET" and path == f"/apis/{GROUP}":
            return 200, {"kind": "APIGroup", "apiVersion": "v1", **_GROUP}
        if request.method == "GET" and path in {f"/apis/{GROUP}/{v}" for v in VERSIONS.values()}:
            return 200, _resources(path.rpartition("/")[2])
        known = what is not None and (
            (what.group, what.resource) == ("", "secrets")
            or (what.group == GROUP and VERSIONS.get(what.resource) in version)
        )
        return self._on(request, what) if what and known and not what.part else None

    def _on(self, request: Request, what: What) -> Reply:
        if what.name and request.method == "DELETE":
            return self._delete(request, what)
        things = [] if self._no_such(what.namespace) else self._things(what)
        items = [item for thing in things if selected(request, item := _json(what, thing))]
        if what.name and request.method == "GET":
            if not items:
                raise not_found(_full(what), what.name)
            return 200, items[0]
        if request.method == "DELETE":
            for thing in things if not options(request)[0] else ():
                self.synced.delete(what.resource, thing)
        elif request.method != "GET":
            message = "the server does not allow this method on the requested resource"
            raise StatusError(405, "MethodNotAllowed", message)
        return 200, _list(what, items)

    def _things(self, what: What) -> list[Thing]:
        things = self.synced.of(what.resource, what.namespace)
        return [thing for thing in things if what.name in {"", thing.name}]

    def _no_such(self, namespace: str) -> bool:
        missing = namespace not in self.world.namespaces or "namespace-missing" in self.traps
        return bool(namespace) and missing

    def _delete(self, request: Request, what: What) -> Reply:
        secret = what.resource == "secrets"
        if secret and "secrets-forbidden" in self.traps:
            message = f'secrets "{what.name}" is forbidden: cannot delete resource "secrets"'
            raise StatusError(403, "Forbidden", message, name=what.name, kind="secrets")
        things = [] if self._no_such(what.namespace) else self._things(what)
        if not things:
            raise not_found(_full(what), what.name)
        (thing,) = things
        dry_run, _ = options(request)
        body = read_json(request) if request.get_data() else {}
        policy = str(request.args.get("propagationPolicy", body.get("propagationPolicy", "")))
        held = [*thing.finalizers, *([_FOREGROUND[policy]] if policy in _FOREGROUND else [])]
        answer = _json(what, thing)
        if held:
            now = stamp(self.clock())
            answer["metadata"] |= {"finalizers": held, "deletionGracePeriodSeconds": 0}
            answer["metadata"].setdefault("deletionTimestamp", now)
        else:
            details = {"name": thing.name, "group": what.group, "kind": what.resource}
            details = {key: value for key, value in details.items() if value}
            head = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
            answer = head | {"details": {**details, "uid": thing.uid}}
        if not dry_run and not (secret and "secret-delete-lies" in self.traps):
            self.synced.delete(what.resource, thing)
        return 200, answer

    # The annotations of quotas, which the plain server does not keep.

    def _create_quota(self, ask: Ask) -> Reply:
        return self._annotated(ask, super()._create_quota(ask))

    def _patch_quota(self, ask: Ask) -> Reply:
        return self._annotated(ask, super()._patch_quota(ask))

    def _annotated(self, ask: Ask, reply: Reply) -> Reply:
        name = reply[1]["metadata"]["name"]
        sent = (read_json(ask.request).get("metadata") or {}).get("annotations") or {}
        if not ask.dry_run and isinstance(sent, dict):
            self._annotations.setdefault((ask.space.name, name), {}).update(sent)
        return reply

    def _all(self, space: Namespace, resource: str) -> list[Json]:
        found = super()._all(space, resource)
        for item in found if resource == "resourcequotas" else ():
            noted = self._annotations.get((space.name, item["metadata"]["name"]))
            item["metadata"] |= {"annotations": noted} if noted else {}
        return found


class SyncedVaultServer(VaultServer):
    """A Vault that an operator pushes keys into, at any time."""

    def __init__(self, cluster: SyncedKubernetesServer, **settings: Any) -> None:
        super().__init__(**settings)
        self._cluster = cluster
        cluster.synced.push = self._pushed

    def respond(self, request: Request) -> Response:
        """Answer one request, after what the operator did in the meantime."""
        self._cluster.settle()
        return super().respond(request)

    def live(self) -> list[str]:
        """Name every secret that is still stored in a seeded mount, readable or not."""
        self._cluster.settle()
        return super().live()

    def _pushed(self, path: str, data: Mapping[str, str]) -> None:
        with self.lock:
            if any(path.startswith(mount) for mount in self.mounts):
                self.put(path, data)


def _json(what: What, thing: Thing) -> Json:
    meta: Json = {"name": thing.name, "uid": thing.uid, "resourceVersion": "1000"}
    meta |= {"creationTimestamp": stamp(thing.created)}
    if thing.namespace:
        meta["namespace"] = thing.namespace
    if thing.owner:
        kind, name = thing.owner
        version = "v1alpha1" if "Push" in kind else "v1"
        owner = {"apiVersion": f"{GROUP}/{version}", "kind": kind, "name": name, "uid": "1"}
        meta["ownerReferences"] = [owner | {"controller": True}]
    if thing.finalizers:
        meta["finalizers"] = list(thing.finalizers)
    if thing.ending is not None:
        meta |= {"deletionTimestamp": stamp(thing.ending), "deletionGracePeriodSeconds": 0}
    if what.resource == "secrets":
        head = {"kind": "Secret", "apiVersion": "v1", "metadata": meta}
        data = {key: b64encode(value.encode()).decode() for key, value in thing.data.items()}
        return head | {"data": data, "type": "Opaque"}
    head = {"kind": KINDS[what.resource], "apiVersion": f"{GROUP}/{VERSIONS[what.resource]}"}
    served = thing.spec.get("namespaces")
    status = {"provisionedNamespaces": served} if served else {}
    return {**head, "metadata": meta, "spec": thing.spec, "status": status}


def _list(what: What, items: list[Json]) -> Json:
    kind = KINDS.get(what.resource, "Secret")
    version = f"{GROUP}/{VERSIONS[what.resource]}" if what.group else "v1"
    head: Json = {"kind": f"{kind}List", "apiVersion": version}
    return head | {"metadata": {"resourceVersion": "1000"}, "items": items}


def _full(what: What) -> str:
    return f"{what.resource}.{what.group}" if what.group else what.resource


def _resources(version: str) -> Json:
    resources = [
        {
            "name": resource,
            "singularName": kind.lower(),
            "namespaced": not resource.startswith("cluster"),
            "kind": kind,
            "verbs": ["delete", "get", "list"],
        }
        for resource, kind in KINDS.items()
        if VERSIONS[resource] == version
    ]
    head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{version}"}
    return {**head, "resources": resources}


_SERVED: Final = [{"groupVersion": f"{GROUP}/{v}", "version": v} for v in ("v1", "v1alpha1")]
_GROUP: Final[Json] = {"name": GROUP, "versions": _SERVED, "preferredVersion": _SERVED[0]}
