"""One way to talk to a cluster, plain HTTP, whether it is the sandbox's or a real one."""

import copy
import itertools
import json
import math
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

from killswitch.sandbox.kubernetes import USER, KubernetesServer
from killswitch.sandbox.kubernetes_controllers import Namespace, Pod, Workload
from tests.servers.fixtures import Cluster

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
JSON = "application/json"
METADATA = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
METADATA_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
LOCK = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "killswitch-lock"},
    "spec": {"hard": {"pods": "0"}},
}
GROUPS = {
    "pods": "/api/v1",
    "resourcequotas": "/api/v1",
    "secrets": "/api/v1",
    "deployments": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "daemonsets": "/apis/apps/v1",
    "jobs": "/apis/batch/v1",
    "cronjobs": "/apis/batch/v1",
    "horizontalpodautoscalers": "/apis/autoscaling/v2",
    "scaledobjects": "/apis/keda.sh/v1alpha1",
}


_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `body` is the JSON, or the text when it is not JSON."""

    code: int
    body: Any
    headers: Message

    @property
    def items(self) -> list[Any]:
        return list(self.body["items"])

    @property
    def message(self) -> str:
        return str(self.body["message"])


@dataclass(frozen=True, slots=True)
class Seed:
    """A workload that a test wants to find there; its processes ignore SIGTERM."""

    kind: str
    name: str
    pods: int = 1
    labels: Mapping[str, str] = field(default_factory=dict)


class Bench(Protocol):
    """A cluster under test."""

    user: str
    """The name of the user without rights, as refusals write it."""

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        as_user: str = "admin",
        content_type: str = "",
        accept: str = JSON,
    ) -> Answer:
        """Send one request as "admin", "nobody" (no rights), "stranger" (bad token) or ""."""

    def namespace(self, *seeds: Seed) -> str:
        """Make a namespace with `seeds`, and return its name once all their pods run."""

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig of the admin with the context "bench"."""


def at(resource: str, namespace: str, name: str = "", part: str = "", **query: object) -> str:
    """Return the path of a collection, an object, or a part of it, with a query."""
    path = f"{GROUPS[resource]}/namespaces/{namespace}/{resource}"
    path += "".join(f"/{piece}" for piece in (name, part) if piece)
    return f"{path}?{urlencode(query)}" if query else path


def names(answer: Answer) -> list[str]:
    return [item["metadata"]["name"] for item in answer.items]


def eventually(
    look: Callable[[], Answer], done: Callable[[Answer], object], within_s: float = 10
) -> Answer:
    """Look until `done`, and return that answer."""
    give_up = time.monotonic() + within_s
    while not done(answer := look()):
        assert time.monotonic() < give_up, f"still {answer.code} {str(answer.body)[:800]}"
        time.sleep(0.02)
    return answer


def send(
    url: str, method: str, path: str, body: object, headers: dict[str, str], ca_file: str = ""
) -> Answer:
    """Send one request; `body` is bytes, or anything that JSON can write."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port
    if address.scheme == "https":
        trust = ssl.create_default_context(cafile=ca_file)
        connection: HTTPConnection = HTTPSConnection(host, port, timeout=10, context=trust)
    else:
        connection = HTTPConnection(host, port, timeout=10)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, headers)
        reply = connection.getresponse()
        text = reply.read()
    finally:
        connection.close()
    is_json = reply.headers.get_content_type() == JSON
    return Answer(reply.status, json.loads(text) if is_json else text.decode(), reply.headers)


def _headers(token: str, body: object, content_type: str, accept: str) -> dict[str, str]:
    headers = {"Accept": accept}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if body is not None:
        headers["Content-Type"] = content_type or JSON
    return headers


class _Everything(set[str]):
    """Every right there is."""

    def __contains__(self, right: object) -> bool:
        return True


class FakeBench:
    """The sandbox's cluster; its kubelet takes as long as a real one."""

    def __init__(self, server: KubernetesServer | None = None) -> None:
        self.server = server or KubernetesServer(
            namespaces={}, term_s=60, floor_s=2, quota_lag_s=0.01
        )
        self.user = USER
        self._made = 0

    @contextmanager
    def running(self) -> Iterator["FakeBench"]:
        self.server.start()
        yield self
        self.server.stop()

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        as_user: str = "admin",
        content_type: str = "",
        accept: str = JSON,
    ) -> Answer:
        tokens = {"": "", "stranger": "nobody-knows-it"}
        headers = _headers(tokens.get(as_user, self.server.token), body, content_type, accept)
        self.server.denied = _Everything() if as_user == "nobody" else set()
        return send(self.server.url, method, path, body, headers)

    def namespace(self, *seeds: Seed) -> str:
        self._made += 1
        space = Namespace(f"bench-{self._made}")
        world = self.server.world
        for seed in seeds:
            labels = {"app": seed.name, **seed.labels}
            if seed.kind == "Pod":
                pod = Pod(name=seed.name, labels=labels, created=world.clock())
                space.pods[seed.name] = pod
                continue
            workload = Workload(
                kind=seed.kind, name=seed.name, replicas=seed.pods, pod_labels=labels
            )
            workload.created = world.clock()
            workload.next_start = math.inf  # the next run of its CronJobs is far
            space.workloads.append(workload)
            space.seeded[workload.uid] = workload.replicas
        with self.server.lock:
            world.namespaces[space.name] = space
            world.settle()
        return space.name

    def kubeconfig(self, folder: Path) -> Path:
        return _written(folder, self.server.url, self.server.token, {})


class RealBench:
    """A real API server, with a node or something that plays one."""

    def __init__(self, cluster: Cluster) -> None:
        self.user = "killswitch"
        self._plane = cluster.control_plane
        self._node = cluster.node

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        as_user: str = "admin",
        content_type: str = "",
        accept: str = JSON,
    ) -> Answer:
        tokens = {
            "admin": self._plane.token("admin"),
            "nobody": self._plane.token(self.user),
            "stranger": "nobody-knows-it",
            "": "",
        }
        headers = _headers(tokens[as_user], body, content_type, accept)
        return send(self._plane.url, method, path, body, headers, str(self._plane.ca_file))

    def namespace(self, *seeds: Seed, within_s: float = 30) -> str:
        name = f"bench-{next(_numbers)}"
        self._make("/api/v1/namespaces", {"metadata": {"name": name}})
        expected = 0
        for seed in seeds:
            resource, body = self._manifest(seed)
            self._make(at(resource, name), body)
            expected += 0 if seed.kind in {"CronJob", "HorizontalPodAutoscaler"} else seed.pods
        eventually(
            lambda: self.ask("GET", at("pods", name)),
            lambda seen: [pod["status"]["phase"] for pod in seen.items] == ["Running"] * expected,
            within_s=within_s,
        )
        return name

    def kubeconfig(self, folder: Path) -> Path:
        cluster = {"certificate-authority": str(self._plane.ca_file)}
        return _written(folder, self._plane.url, self._plane.token("admin"), cluster)

    def _make(self, path: str, body: object) -> None:
        answer = self.ask("POST", path, body)
        assert answer.code == 201, answer.body

    def _manifest(self, seed: Seed) -> tuple[str, Mapping[str, Any]]:
        labels = {"app": seed.name, **seed.labels}
        pod = self._node.pod_template(labels=labels, on_sigterm="ignores")
        named = {"metadata": {"name": seed.name}}
        once = copy.deepcopy(pod)
        once["spec"]["restartPolicy"] = "Never"
        job = {"parallelism": seed.pods, "completions": seed.pods, "template": once}
        apps: dict[str, Any] = {"selector": {"matchLabels": {"app": seed.name}}, "template": pod}
        match seed.kind:
            case "Pod":
                return "pods", pod | {"metadata": pod["metadata"] | {"name": seed.name}}
            case "Deployment":
                return "deployments", named | {"spec": apps | {"replicas": seed.pods}}
            case "StatefulSet":
                policy = {"podManagementPolicy": "Parallel", "serviceName": seed.name}
                spec = apps | policy | {"replicas": seed.pods}
                return "statefulsets", named | {"spec": spec}
            case "DaemonSet":
                return "daemonsets", named | {"spec": apps}
            case "Job":
                return "jobs", named | {"spec": job}
            case "CronJob":
                spec = {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": job}}
                return "cronjobs", named | {"spec": spec}
            case _:
                raise ValueError(seed.kind)


def _written(folder: Path, url: str, token: str, cluster: Mapping[str, str]) -> Path:
    file = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "bench",
        "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "bench", "context": {"cluster": "c", "user": "u"}}],
    }
    path = folder / "kubeconfig.json"
    path.write_text(json.dumps(file))
    path.chmod(0o600)
    return path


def refusal(bench: Bench, what: str, verb: str, resource: str, group: str, space: str) -> str:
    """Return the text of a 403."""
    return (
        f'{what} is forbidden: User "{bench.user}" cannot {verb} resource "{resource}" '
        f'in API group "{group}" in the namespace "{space}"'
    )


def failure(answer: Answer) -> tuple[int, Sequence[str], Mapping[str, Any]]:
    """Return code, reason and details of a Status, which must be one in every field."""
    body = answer.body
    assert (body["kind"], body["apiVersion"], body["metadata"]) == ("Status", "v1", {})
    assert (body["status"], body["code"]) == ("Failure", answer.code)
    return answer.code, body["reason"], body.get("details", {})
