"""What the sandbox's API server says it has, and which verbs it takes: what kubectl asks first."""

from typing import Any, Final

Json = dict[str, Any]
KINDS: Final = {
    "pods": "Pod",
    "resourcequotas": "ResourceQuota",
    "replicationcontrollers": "ReplicationController",
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "replicasets": "ReplicaSet",
    "jobs": "Job",
    "cronjobs": "CronJob",
}
_BATCH: Final = ("jobs", "cronjobs")
_CORE: Final = ("pods", "resourcequotas", "replicationcontrollers")
GROUPS: Final = {
    resource: "" if resource in _CORE else "batch" if resource in _BATCH else "apps"
    for resource in KINDS
}
SCALED: Final = ("deployments", "statefulsets", "replicasets", "replicationcontrollers")
WORKLOADS: Final = (*SCALED, "daemonsets", *_BATCH)
_SHORT_NAMES: Final = {
    "pods": "po",
    "resourcequotas": "quota",
    "replicationcontrollers": "rc",
    "deployments": "deploy",
    "statefulsets": "sts",
    "daemonsets": "ds",
    "replicasets": "rs",
    "cronjobs": "cj",
}
_VERBS: Final = {
    "pods": ["create", "delete", "deletecollection", "get", "list"],
    "resourcequotas": ["create", "delete", "get", "list", "patch"],
}


def _resources(group: str) -> list[Json]:
    return [
        {
            "name": resource,
            "singularName": KINDS[resource].lower(),
            "namespaced": True,
            "kind": KINDS[resource],
            "verbs": _VERBS.get(resource, ["get", "list", "patch"]),
            "shortNames": [_SHORT_NAMES[resource]] if resource in _SHORT_NAMES else [],
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
        for resource in SCALED
        if GROUPS[resource] == group
    ]


def _group(name: str) -> Json:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _list(group: str) -> Json:
    version = f"{group}/v1".removeprefix("/")
    body = {"kind": "APIResourceList", "groupVersion": version, "resources": _resources(group)}
    return body | {"apiVersion": "v1"} if group else body


DISCOVERY: Final[dict[str, Json]] = {
    "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.2+sandbox"},
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group("apps"), _group("batch")],
    },
    "/api/v1": _list(""),
    "/apis/apps/v1": _list("apps"),
    "/apis/batch/v1": _list("batch"),
}
