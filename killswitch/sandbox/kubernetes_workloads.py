"""What asks for pods, as the sandbox's API server shows it and lets it be changed."""

from typing import Final

from killswitch.sandbox.kubernetes_controllers import Namespace, Workload, World
from killswitch.sandbox.kubernetes_discovery import GROUPS, KINDS
from killswitch.sandbox.kubernetes_requests import Ask, Json, Reply, StatusError, not_found, patched
from killswitch.sandbox.kubernetes_wire import meta_json, pod_owner, typed

_SUSPENDED: Final = frozenset({"Job", "CronJob"})


def listed(world: World, space: Namespace, resource: str) -> list[Json]:
    """Return the workloads of one kind."""
    found = [
        workload_json(space, workload, world.refusal(space, workload.name))
        for workload in space.workloads
        if workload.kind == KINDS[resource]
    ]
    if resource == "replicasets":
        found += [_of_deployment(space, it) for it in space.workloads if it.kind == "Deployment"]
    return found


def _of_deployment(space: Namespace, workload: Workload) -> Json:
    made = workload_json(space, workload, "")
    own = pod_owner(space, "Deployment", workload.name)
    above: Json = {"apiVersion": "apps/v1", "kind": "Deployment", "name": workload.name}
    above |= {"uid": workload.uid, "controller": True}
    meta = made["metadata"] | {"name": own["name"], "uid": own["uid"], "ownerReferences": [above]}
    return made | {"metadata": meta}


def get_scale(ask: Ask) -> Reply:
    """Answer a GET of a scale."""
    workload = _named(ask)
    return 200, scale_json(ask.space, workload, workload.replicas)


def patch_scale(ask: Ask, world: World) -> Reply:
    """Answer a PATCH of a scale."""
    workload = _named(ask)
    before = scale_json(ask.space, workload, workload.replicas)
    replicas = patched(ask.request, before)["spec"].get("replicas", 0)
    if not isinstance(replicas, int) or replicas < 0:
        message = f'Scale "{ask.name}" is invalid: spec.replicas: must be 0 or more'
        raise StatusError(422, "Invalid", message)
    if not ask.dry_run and "scale-lies" not in world.traps:
        world.scale(workload, replicas)
    return 200, scale_json(ask.space, workload, replicas)


def patch_workload(ask: Ask, world: World) -> Reply:
    """Answer a PATCH of a workload: whether it is suspended, and which nodes it selects."""
    workload = _named(ask)
    before = workload_json(ask.space, workload, "")
    after = patched(ask.request, before)
    after["metadata"] = after["metadata"] | {"generation": workload.generation + (after != before)}
    if not ask.dry_run and "scale-lies" not in world.traps:
        spec = after["spec"]
        workload.suspended = bool(spec.get("suspend"))
        if workload.kind == "DaemonSet":
            workload.nodes = spec["template"]["spec"].get("nodeSelector", {})
        workload.generation = after["metadata"]["generation"]
    return 200, typed(ask.resource, after)


def _named(ask: Ask) -> Workload:
    for workload in ask.space.workloads:
        if (workload.kind, workload.name) == (KINDS[ask.resource], ask.name):
            return workload
    raise not_found(f"{ask.resource}.{GROUPS[ask.resource]}".removesuffix("."), ask.name)


def workload_json(space: Namespace, workload: Workload, blocked: str) -> Json:
    """Return a workload; `blocked` is why its pods are refused, or nothing."""
    more: Json = {"labels": workload.labels, "annotations": workload.annotations}
    if workload.owner:
        kind, name = workload.owner
        more["ownerReferences"] = [{"kind": kind, "name": name, "uid": "", "controller": True}]
    meta = meta_json(space, workload, generation=workload.generation, **more)
    return {"metadata": meta, "spec": _spec(workload), "status": _status(space, workload, blocked)}


def _spec(workload: Workload) -> Json:
    template: Json = {
        "metadata": {"labels": workload.template_labels()},
        "spec": {
            "containers": [{"name": "bot", "image": "registry.example/bot:1"}],
            "terminationGracePeriodSeconds": workload.grace_s,
        },
    }
    if workload.nodes:
        template["spec"]["nodeSelector"] = dict(workload.nodes)
    selector = {"matchLabels": {"app": workload.name}}
    match workload.kind:
        case "CronJob":
            job = {"spec": {"template": template}}
            return {"schedule": "* * * * *", "suspend": workload.suspended, "jobTemplate": job}
        case "Job":
            spec: Json = {"parallelism": workload.replicas, "suspend": workload.suspended}
        case "DaemonSet":
            spec = {"selector": selector}
        case "ReplicationController":
            spec = {"replicas": workload.replicas, "selector": selector["matchLabels"]}
        case _:
            spec = {"replicas": workload.replicas, "selector": selector}
    return spec | {"template": template}


def _status(space: Namespace, workload: Workload, blocked: str) -> Json:
    mine = _count(space, workload)
    if workload.finished:
        return {"conditions": [{"type": "Complete", "status": "True"}]}
    if workload.kind in _SUSPENDED:
        return {"active": mine} if mine else {}
    status: Json = {"observedGeneration": workload.generation}
    if workload.kind == "DaemonSet":
        asked = {"desiredNumberScheduled": workload.asks, "currentNumberScheduled": mine}
        return status | asked | {"numberReady": mine, "numberMisscheduled": 0}
    if workload.kind != "Deployment":
        status["replicas"] = 0  # only a Deployment leaves its zero out
    if mine:
        status |= {"replicas": mine, "readyReplicas": mine, "availableReplicas": mine}
    if blocked and mine < workload.replicas:
        failure = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate"}
        status["conditions"] = [failure | {"message": blocked}]
    return status


def scale_json(space: Namespace, workload: Workload, replicas: int) -> Json:
    """Return the scale subresource, which leaves out a zero in its spec."""
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta_json(space, workload),
        "spec": {"replicas": replicas} if replicas else {},
        "status": {"replicas": _count(space, workload), "selector": f"app={workload.name}"},
    }


def _count(space: Namespace, workload: Workload) -> int:
    owner = (workload.kind, workload.name)
    return sum(pod.owner == owner and pod.delete_at is None for pod in space.pods.values())
