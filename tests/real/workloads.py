"""One workload of each kind, made on a real API server."""

from typing import Any, Final

from tests.servers.control_plane import ControlPlane

_APPS: Final = "/apis/apps/v1/namespaces/{namespace}"
_BATCH: Final = "/apis/batch/v1/namespaces/{namespace}"
# Should another test have a node join: there is no such image, and none is to be looked for.
_BOT: Final = {"name": "bot", "image": "trader", "imagePullPolicy": "Never"}
_POD: Final = {"containers": [_BOT]}
_ONCE: Final = {"spec": {**_POD, "restartPolicy": "Never"}}


def _selected(kind: str, *, by_expression: bool = True) -> dict[str, Any]:
    """Return selector and template; labels of its own, or a Deployment adopts a ReplicaSet."""
    labels = {"app": kind}
    selector = {"matchLabels": labels} if by_expression else labels
    return {"selector": selector, "template": {"metadata": {"labels": labels}, "spec": _POD}}


OF_EACH_KIND: Final[dict[str, dict[str, Any]]] = {
    f"{_APPS}/deployments": {"replicas": 2, **_selected("deployments")},
    f"{_APPS}/replicasets": {"replicas": 1, **_selected("replicasets")},
    f"{_APPS}/statefulsets": {
        "replicas": 1,
        "serviceName": "trader",
        **_selected("statefulsets"),
    },
    f"{_APPS}/daemonsets": _selected("daemonsets"),
    f"{_BATCH}/jobs": {"template": _ONCE},
    f"{_BATCH}/cronjobs": {
        "schedule": "0 0 1 1 *",
        "jobTemplate": {"spec": {"template": _ONCE}},
    },
    "/api/v1/namespaces/{namespace}/replicationcontrollers": {
        "replicas": 1,
        **_selected("replicationcontrollers", by_expression=False),
    },
    "/api/v1/namespaces/{namespace}/pods": _POD,
    "/apis/autoscaling/v2/namespaces/{namespace}/horizontalpodautoscalers": {
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "deployments"},
        "maxReplicas": 3,
    },
}


def make_all(cluster: ControlPlane, namespace: str) -> None:
    """Make one of each kind in a namespace, named like its kind."""
    status, answer = cluster.send("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    assert status in {201, 409}, answer
    for path, spec in OF_EACH_KIND.items():
        body = {"metadata": {"name": path.rpartition("/")[2]}, "spec": spec}
        status, answer = cluster.send("POST", path.format(namespace=namespace), body)
        assert status == 201, answer


def make_secret(cluster: ControlPlane, namespace: str, name: str, value: str) -> None:
    """Make a Secret."""
    status, answer = cluster.send(
        "POST",
        f"/api/v1/namespaces/{namespace}/secrets",
        {"metadata": {"name": name}, "stringData": {"key": value}},
    )
    assert status == 201, answer


def pods(cluster: ControlPlane, namespace: str) -> list[str]:
    """Return the names of the pods."""
    status, answer = cluster.send("GET", f"/api/v1/namespaces/{namespace}/pods")
    assert status == 200, answer
    return [pod["metadata"]["name"] for pod in answer["items"]]


def loosen_lock(cluster: ControlPlane, namespace: str) -> None:
    """Make a quota with the lock's name that lets pods in."""
    lock = {"metadata": {"name": "killswitch-lock"}, "spec": {"hard": {"pods": "5"}}}
    status, answer = cluster.send("POST", f"/api/v1/namespaces/{namespace}/resourcequotas", lock)
    assert status == 201, answer
