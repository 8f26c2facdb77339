"""How the Kubernetes API writes things down: objects, lists, tables, discovery."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from uuid import NAMESPACE_URL, uuid5

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_controllers import HASH, Namespace, Pod, Quota, Workload
from killswitch.sandbox.kubernetes_requests import Json, StatusError, selected

KINDS: Final = {
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
}
GROUPS: Final = {"pods": "", "resourcequotas": "", "deployments": "apps", "statefulsets": "apps"}
_SHORT_NAMES: Final = {
    "pods": "po",
    "resourcequotas": "quota",
    "deployments": "deploy",
    "statefulsets": "sts",
}
_VERBS: Final = {
    "pods": ["create", "delete", "deletecollection", "get", "list"],
    "resourcequotas": ["create", "delete", "get", "list", "patch"],
    "deployments": ["get", "list"],
    "statefulsets": ["get", "list"],
}


def stamp(seconds: float) -> str:
    """Return a time as the API writes it, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _meta(space: Namespace, thing: Pod | Workload | Quota, **more: object) -> Json:
    meta = {
        "name": thing.name,
        "namespace": space.name,
        "uid": thing.uid,
        "resourceVersion": str(1000 + len(space.pods)),
        "creationTimestamp": stamp(thing.created),
    }
    return meta | {key: value for key, value in more.items() if value}


def pod_json(space: Namespace, pod: Pod) -> Json:
    """Return a pod."""
    more: Json = {"labels": pod.labels}
    if pod.owner:
        more["ownerReferences"] = [_owner(space, *pod.owner)]
    meta = _meta(space, pod, **more)
    if pod.delete_at is not None:
        # Unlike other zeros this one is written: the field is a pointer.
        meta["deletionTimestamp"] = stamp(pod.delete_at)
        meta["deletionGracePeriodSeconds"] = pod.delete_grace_s
    return {
        "metadata": meta,
        "spec": {
            "containers": [{"name": "bot", "image": "registry.example/bot:1"}],
            "nodeName": pod.node,
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": pod.grace_s,
        },
        "status": {
            "phase": pod.phase,
            "startTime": stamp(pod.created),
            "containerStatuses": [{"name": "bot", "state": _state(pod)}],
        },
    }


def _state(pod: Pod) -> Json:
    if pod.phase in {"Succeeded", "Failed"}:
        return {"terminated": {"exitCode": int(pod.phase == "Failed")}}
    return {"running": {"startedAt": stamp(pod.created)}}


def _owner(space: Namespace, kind: str, name: str) -> Json:
    owner = {"controller": True, "blockOwnerDeletion": True, "apiVersion": "apps/v1"}
    if kind == "Deployment":
        uid = str(uuid5(NAMESPACE_URL, f"ReplicaSet/{space.name}/{name}"))
        return owner | {"kind": "ReplicaSet", "name": f"{name}-{HASH}", "uid": uid}
    for workload in space.workloads:
        if (workload.kind, workload.name) == (kind, name):
            owner["uid"] = workload.uid
    return owner | {"kind": kind, "name": name}


def namespace_json(name: str, created: float) -> Json:
    """Return a namespace, whose uid depends on its cluster."""
    meta = {"name": name, "uid": str(uuid5(NAMESPACE_URL, f"{created}/{name}"))}
    meta |= {"resourceVersion": "1", "creationTimestamp": stamp(created)}
    status = {"phase": "Active"}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": meta, "spec": {}, "status": status}


def quota_json(space: Namespace, quota: Quota, heeded: Mapping[str, str]) -> Json:
    """Return a quota; `heeded` is what the controller has seen of it, nothing at first."""
    status: Json = {}
    if heeded:
        used = {name: str(len(space.pods) if name == "pods" else 0) for name in heeded}
        status = {"hard": dict(heeded), "used": used}
    spec = quota.spec | {"hard": quota.hard} if quota.hard else quota.spec
    return {"metadata": _meta(space, quota), "spec": spec, "status": status}


def workload_json(space: Namespace, workload: Workload, blocked: str) -> Json:
    """Return a Deployment or StatefulSet; `blocked` is why its pods are refused, or nothing."""
    meta = _meta(
        space,
        workload,
        generation=workload.generation,
        labels=workload.labels,
        annotations=workload.annotations,
    )
    status: Json = {"observedGeneration": workload.generation}
    if workload.kind == "StatefulSet":
        status["replicas"] = 0  # a Deployment's zero is left out, a StatefulSet's is not
    if mine := _count(space, workload):
        status |= {"replicas": mine, "readyReplicas": mine, "availableReplicas": mine}
    if blocked and mine < workload.replicas:
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
        status["conditions"] = [failure | {"message": blocked}]
    labels = workload.template_labels()
    return {
        "metadata": meta,
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": {"app": workload.name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "containers": [{"name": "bot", "image": "registry.example/bot:1"}],
                    "terminationGracePeriodSeconds": workload.grace_s,
                },
            },
        },
        "status": status,
    }


def scale_json(space: Namespace, workload: Workload, replicas: int) -> Json:
    """Return the scale subresource, which leaves out a zero in its spec."""
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": _meta(space, workload),
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": _count(space, workload), "selector": f"app={workload.name}"},
    }


def _count(space: Namespace, workload: Workload) -> int:
    owner = (workload.kind, workload.name)
    return sum(pod.owner == owner and pod.delete_at is None for pod in space.pods.values())


def kubeconfig(url: str, token: str) -> str:
    """Return a kubeconfig with the context "sandbox"; JSON, which is YAML; `token` may be ""."""
    names = {"cluster": "sandbox", "user": "killswitch"}
    file = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "sandbox",
        "clusters": [{"name": names["cluster"], "cluster": {"server": url}}],
        "users": [{"name": names["user"], "user": {"token": token} if token else {}}],
        "contexts": [{"name": "sandbox", "context": names}],
    }
    return json.dumps(file, indent=2) + "\n"


def typed(resource: str, body: Json) -> Json:
    """Return an object with its kind, which entries of a list do not carry."""
    version = "apps/v1" if GROUPS[resource] else "v1"
    return {"kind": KINDS[resource], "apiVersion": version} | body


def page(request: Request, resource: str, items: Sequence[Json]) -> Json:
    """Return the page of `items` that the request's selector, limit and continue ask for."""
    items = [item for item in items if selected(request, item)]
    start = 0
    if token := request.args.get("continue"):
        try:
            start = int(json.loads(base64.urlsafe_b64decode(token))["start"])
        except (binascii.Error, ValueError, KeyError, TypeError):
            message = "continue key is not valid"
            raise StatusError(400, "BadRequest", message) from None
    limit = request.args.get("limit", type=int) or len(items)
    meta: Json = {"resourceVersion": "1000"}
    if left := max(0, len(items) - start - limit):
        token = base64.urlsafe_b64encode(json.dumps({"start": start + limit}).encode()).decode()
        meta |= {"continue": token, "remainingItemCount": left}
    kind = f"{KINDS[resource]}List"
    version = "apps/v1" if GROUPS[resource] else "v1"
    found = items[start : start + limit]
    if "as=Table" in request.headers.get("Accept", ""):
        return _table(found, meta)
    return {"kind": kind, "apiVersion": version, "metadata": meta, "items": found}


def _table(items: Sequence[Json], meta: Json) -> Json:
    """Return what ``kubectl get`` asks for: columns for people."""
    columns = ("Name", "Status", "Created")
    rows = []
    for item in items:
        status = item["status"].get("phase", "")
        status = "Terminating" if "deletionTimestamp" in item["metadata"] else status
        status = status or f"{item['spec'].get('replicas', '')}"
        cells = [item["metadata"]["name"], status, item["metadata"]["creationTimestamp"]]
        partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}
        rows.append({"cells": cells, "object": partial | {"metadata": item["metadata"]}})
    definitions = [
        {"name": column, "type": "string", "format": "", "description": "", "priority": 0}
        for column in columns
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def _resources(group: str) -> list[Json]:
    return [
        {
            "name": resource,
            "singularName": KINDS[resource].lower(),
            "namespaced": True,
            "kind": KINDS[resource],
            "verbs": _VERBS[resource],
            "shortNames": [_SHORT_NAMES[resource]],
        }
        for resource, of_group in GROUPS.items()
        if of_group == group
    ] + [
        {
            "name": f"{resource}/scale",
            "singularName": "",
            "namespaced": True,
            "group": "autoscaling",
            "version": "v1",
            "kind": "Scale",
            "verbs": ["get", "patch"],
        }
        for resource, of_group in GROUPS.items()
        if of_group == group == "apps"
    ]


_V1: Final = {"groupVersion": "apps/v1", "version": "v1"}
DISCOVERY: Final[dict[str, Json]] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2+sandbox"},
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "apps", "versions": [_V1], "preferredVersion": _V1}],
    },
    "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": _resources("")},
    "/apis/apps/v1": {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": "apps/v1",
        "resources": _resources("apps"),
    },
}
