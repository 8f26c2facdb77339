"""A Kubernetes API server as far as a halt meets it: pods, quotas, and what asks for pods."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import ClassVar

from werkzeug.wrappers import Request, Response

from killswitch.sandbox import kubernetes_identity as identity
from killswitch.sandbox import kubernetes_wire as wire
from killswitch.sandbox import kubernetes_workloads as workloads
from killswitch.sandbox.kubernetes_controllers import Namespace, Pod, Quota, Workload, World
from killswitch.sandbox.kubernetes_discovery import DISCOVERY, GROUPS, KINDS
from killswitch.sandbox.kubernetes_objects import OPEN
from killswitch.sandbox.kubernetes_open import opened
from killswitch.sandbox.kubernetes_requests import (
    Ask,
    Json,
    NoSuchGroupError,
    Reply,
    StatusError,
    What,
    forbidden,
    new_name,
    not_found,
    nothing_at,
    options,
    patched,
    read_json,
    selected,
)
from killswitch.sandbox.kubernetes_views import shown
from killswitch.sandbox.server import VendorServer

TOKEN = "sandbox-kubernetes-token"
USER = "system:serviceaccount:killswitch:killswitch"
_PATCHED = ("daemonsets", "jobs", "cronjobs")
_FEW = frozenset({"namespaces", "pods", "resourcequotas", "deployments", "statefulsets"})
_VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
_ON_MANY = {"get": "list", "delete": "deletecollection"}


class KubernetesServer(VendorServer):
    """One cluster.

    `denied` holds missing rights as "verb resource" ("create resourcequotas"). `term_s` is what a
    process needs to end on SIGTERM; the kubelet kills it after the grace that was asked for, but
    not before `floor_s` (2 s on a real node). A quota is in force `quota_lag_s` after its creation.
    `open_reads` lets anyone read: kubectl never sends a token over plain http.
    """

    name = "kubernetes"
    TRAPS: ClassVar[Mapping[str, str]] = {
        "forbidden": "answers 403 to everything that would change something",
        "expired-token": "answers 401: the token has expired",
        "quota-refused": "answers 403 to the creation of a quota",
        "quota-idle": "stores a quota, but its controller never puts it in force",
        "stuck-pod": "has one pod that never ends: its node is gone",
        "scale-lies": "answers 200 to a scale, and changes nothing",
        "delete-lies": "answers 200 to the deletion of the pods, and deletes none",
        "scales-back": "has a reconciler that scales everything back up, each 0.2 s",
        "slow-pods": "has pods that need 1.5 s to end",
        "namespace-missing": "has no such namespace: lists are empty, creations answer 404",
        "lost-reply": "does what it is told, and cuts the connection before it answers",
        "finalizer-pod": "has one pod that stays listed when its processes have ended",
        "few-rights": "answers 403 to all but pods, quotas, Deployments and StatefulSets",
        "keda-scales-back": "has KEDA scale everything back up, unless it is paused",
        "argocd-scales-back": "has Argo CD scale everything back up, unless it is paused",
        "flux-scales-back": "has Flux scale everything back up, unless it is suspended",
        **identity.TRAPS,
        "pods-return-once": "lets a bare pod appear once, 0.6 s after the last one ended",
    }

    def __init__(
        self,
        *,
        token: str = TOKEN,
        namespaces: Mapping[str, Iterable[Workload]] | None = None,
        term_s: float = 0.6,
        floor_s: float = 0.5,
        quota_lag_s: float = 0.005,
        open_reads: bool = False,
        traps: Iterable[str] = (),
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(traps=traps, port=port, clock=clock)
        if namespaces is None:
            namespaces = {
                "trading": [
                    Workload(kind="Deployment", name="freqtrade", replicas=2),
                    Workload(kind="StatefulSet", name="hedger", replicas=1),
                ]
            }
        self.token = token
        self.open_reads = open_reads
        self.denied: set[str] = set()
        self.world = World(
            namespaces,
            clock=clock,
            traps=self.traps,
            term_s=term_s,
            floor_s=floor_s,
            quota_lag_s=quota_lag_s,
        )

    def kubeconfig(self, *, with_token: bool = True) -> str:
        """Return the text of a kubeconfig with the context "sandbox"."""
        return wire.kubeconfig(self.url, self.token if with_token else "")

    def live(self) -> list[str]:
        """Name the pods that exist, and what would make new ones."""
        with self.lock:
            self.world.traps = self.traps
            return self.world.live()

    def is_write(self, request: Request) -> bool:
        """Return whether it changes anything: a dry run does not."""
        dry = "dryRun" in request.args or b'"dryRun"' in request.get_data()
        return super().is_write(request) and not dry

    def respond(self, request: Request) -> Response:
        """Answer as the API server does; problems are Status objects."""
        with self.lock:
            self.world.traps = self.traps
            self.world.settle()
            try:
                code, body = shown(request, *self._answer(request))
            except StatusError as error:
                code, body = error.code, error.body()
            except NoSuchGroupError:
                return Response("404 page not found\n", status=404, mimetype="text/plain")
            self.world.settle()
        if "lost-reply" in self.traps and self.is_write(request) and code < 300:
            self.cut(request)
        return Response(json.dumps(body), status=code, mimetype="application/json")

    def _answer(self, request: Request) -> Reply:
        shown = request.headers.get("Authorization")
        open_to_all = request.path == "/version" or (self.open_reads and request.method == "GET")
        if shown and ("expired-token" in self.traps or shown != f"Bearer {self.token}"):
            raise StatusError(401, "Unauthorized", "Unauthorized")
        path = request.path.rstrip("/")
        if request.method == "GET" and (found := self._discovered(path)):
            return 200, found
        what = What.of(path)
        verb = _VERBS.get(request.method, "")
        if what and not what.name:
            verb = _ON_MANY.get(verb, verb)
        if what:
            self._authorise(verb, what, anonymous=not shown and not open_to_all)
            if what.resource == "namespaces" and verb == "get":
                return 200, identity.namespace(self.world, what.name, self.traps)
            if what.resource in OPEN:
                return opened(self.world, what, verb, request)
        if what is None or not what.served(GROUPS) or "/v1/" not in path:
            raise nothing_at(what)
        scale = "/scale" if what.part else ""
        act = self._acts().get(f"{verb} {scale or what.resource}")
        if act is None:
            message = "the server does not allow this method on the requested resource"
            raise StatusError(405, "MethodNotAllowed", message)
        space = self.world.namespaces.get(what.namespace)
        if space is None or "namespace-missing" in self.traps:
            space = Namespace(what.namespace, missing=True)
        dry_run, grace_s = options(request)
        return act(Ask(request, space, what.resource, what.name, dry_run, grace_s))

    def _discovered(self, path: str) -> Json:
        group = path.removeprefix("/apis/")
        here = {"kind": "APIGroup", "apiVersion": "v1", "name": group}
        return DISCOVERY.get(path) or (here if group in self.world.objects.installed else {})

    def _acts(self) -> Mapping[str, Callable[[Ask], Reply]]:
        reads = {f"list {resource}": self._list for resource in KINDS}
        reads |= {f"get {resource}": self._get for resource in KINDS}
        patch = partial(workloads.patch_workload, world=self.world)
        reads |= {f"patch {resource}": patch for resource in _PATCHED}
        return reads | {
            "create pods": self._create_pod,
            "delete pods": self._delete_pod,
            "deletecollection pods": self._delete_pods,
            "create resourcequotas": self._create_quota,
            "patch resourcequotas": self._patch_quota,
            "delete resourcequotas": self._delete_quota,
            "get /scale": workloads.get_scale,
            "patch /scale": partial(workloads.patch_scale, world=self.world),
        }

    def _authorise(self, verb: str, what: What, *, anonymous: bool) -> None:
        right = f"{verb} {what.resource}/{what.part}".removesuffix("/")
        denied = anonymous or right in self.denied
        denied |= "forbidden" in self.traps and verb not in {"get", "list"}
        denied |= "few-rights" in self.traps and what.resource not in _FEW
        denied |= "unnamed-cluster" in self.traps and what.resource == "namespaces"
        denied |= "quota-refused" in self.traps and right == "create resourcequotas"
        if denied:
            raise forbidden("system:anonymous" if anonymous else USER, verb, what)

    def _all(self, space: Namespace, resource: str) -> list[Json]:
        if resource == "pods":
            return [wire.pod_json(space, pod) for _, pod in sorted(space.pods.items())]
        if resource == "resourcequotas":
            return [
                wire.quota_json(space, quota, self.world.heeded(quota))
                for quota in space.quotas.values()
            ]
        return workloads.listed(self.world, space, resource)

    def _list(self, ask: Ask) -> Reply:
        return 200, wire.page(ask.request, ask.resource, self._all(ask.space, ask.resource))

    def _get(self, ask: Ask) -> Reply:
        return 200, self._one(ask.space, ask.resource, ask.name)

    def _one(self, space: Namespace, resource: str, name: str) -> Json:
        for item in self._all(space, resource):
            if item["metadata"]["name"] == name:
                return wire.typed(resource, item)
        raise not_found(f"{resource}.{GROUPS[resource]}".removesuffix("."), name)

    def _create_pod(self, ask: Ask) -> Reply:
        name = new_name(ask, KINDS[ask.resource], ask.space.pods)
        if refusal := self.world.refusal(ask.space, name):
            raise StatusError(403, "Forbidden", refusal, name=name, kind="pods")
        pod = Pod(name=name, created=self.clock())
        if not ask.dry_run:
            ask.space.pods[name] = pod
        return 201, wire.typed("pods", wire.pod_json(ask.space, pod))

    def _delete_pod(self, ask: Ask) -> Reply:
        self._one(ask.space, ask.resource, ask.name)
        pod = ask.space.pods[ask.name]
        if ask.dry_run:
            pod = replace(pod)
        self.world.delete(ask.space, pod, ask.grace_s, dry_run=ask.dry_run)
        return 200, wire.typed(ask.resource, wire.pod_json(ask.space, pod))

    def _delete_pods(self, ask: Ask) -> Reply:
        answer = self._list(ask)
        if not ask.dry_run and "delete-lies" not in self.traps:
            for pod in list(ask.space.pods.values()):
                if selected(ask.request, wire.pod_json(ask.space, pod)):
                    self.world.delete(ask.space, pod, ask.grace_s)
        return answer

    def _create_quota(self, ask: Ask) -> Reply:
        name = new_name(ask, KINDS[ask.resource], ask.space.quotas)
        now = self.clock()
        spec = read_json(ask.request).get("spec") or {}
        quota = Quota(name=name, spec=spec, created=now, in_force_at=now + self.world.quota_lag_s)
        if not ask.dry_run:
            ask.space.quotas[name] = quota
        return 201, wire.typed(ask.resource, wire.quota_json(ask.space, quota, {}))

    def _patch_quota(self, ask: Ask) -> Reply:
        before = self._one(ask.space, ask.resource, ask.name)
        spec = patched(ask.request, before)["spec"]
        if any(spec.get(part) != before["spec"].get(part) for part in ("scopes", "scopeSelector")):
            message = f'ResourceQuota "{ask.name}" is invalid: spec.scopes: field is immutable'
            raise StatusError(422, "Invalid", message)
        if not ask.dry_run:
            quota = ask.space.quotas[ask.name]
            quota.before, quota.spec = self.world.heeded(quota), spec
            quota.in_force_at = self.clock() + self.world.quota_lag_s
        return 200, before | {"spec": spec}

    def _delete_quota(self, ask: Ask) -> Reply:
        answer = self._one(ask.space, ask.resource, ask.name)
        if not ask.dry_run:
            del ask.space.quotas[ask.name]
        return 200, answer
