"""How the Kubernetes API writes things down: objects, lists, tables, discovery."""

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid5

from werkzeug.wrappers import Request

from killswitch.sandbox.kubernetes_controllers import Namespace, Pod, Quota, Workload
from killswitch.sandbox.kubernetes_discovery import GROUPS, KINDS
from killswitch.sandbox.kubernetes_names import HASH
from killswitch.sandbox.kubernetes_requests import Json, StatusError, selected


def stamp(seconds: float) -> str:
    """Return a time as the API writes it, to the second."""
    return datetime.fromtimestamp(int(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def meta_json(space: Namespace, thing: Pod | Workload | Quota, **more: object) -> Json:
    """Return an object's metadata; what is empty in `more` is left out."""
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
        more["ownerReferences"] = [pod_owner(space, *pod.owner)]
    if pod.static:
        more["annotations"] = {
            "kubernetes.io/config.mirror": "0",
            "kubernetes.io/config.source": "file",
        }
        more["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "Node", "name": pod.node, "uid": "0", "controller": True}
        ]
    if pod.finalizer:
        more["finalizers"] = [pod.finalizer]
    meta = meta_json(space, pod, **more)
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
            "containerStatuses": [_status(pod)],
        },
    }


def _status(pod: Pod) -> Json:
    ended = pod.done or pod.phase in {"Succeeded", "Failed"}
    state: Json = {"running": {"startedAt": stamp(pod.created)}}
    if ended:
        state = {"terminated": {"exitCode": int(pod.phase == "Failed")}}
    image = {"image": "registry.example/bot:1", "imageID": ""}
    return {"name": "bot", "ready": not ended, "restartCount": 0, "state": state} | image


def pod_owner(space: Namespace, kind: str, name: str) -> Json:
    """Return the owner reference of a pod of the workload with this kind and name."""
    owner = {"controller": True, "blockOwnerDeletion": True, "apiVersion": "apps/v1"}
    owner |= {"apiVersion": "batch/v1"} if kind in {"Job", "CronJob"} else {}
    if kind == "Deployment":
        uid = str(uuid5(NAMESPACE_URL, f"ReplicaSet/{space.name}/{name}"))
        return owner | {"kind": "ReplicaSet", "name": f"{name}-{HASH}", "uid": uid}
    for workload in space.workloads:
        if (workload.kind, workload.name) == (kind, name):
            owner["uid"] = workload.uid
    if kind == "CronJob":
        return owner | {"kind": "Job", "name": f"{name}-29000000"}
    return owner | {"kind": kind, "name": name}


def namespace_json(name: str, created: float, uid: str = "") -> Json:
    """Return a namespace, whose uid depends on its cluster."""
    meta = {"name": name, "uid": uid or str(uuid5(NAMESPACE_URL, f"{created}/{name}"))}
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
    return {"metadata": meta_json(space, quota), "spec": spec, "status": status}


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
    return {"kind": KINDS[resource], "apiVersion": _version(resource)} | body


def _version(resource: str) -> str:
    return f"{GROUPS[resource]}/v1".removeprefix("/")


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
    version = _version(resource)
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
