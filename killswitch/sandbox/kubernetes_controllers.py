"""The books of the sandbox's cluster, and the controllers and the kubelet that act on them.

Nothing runs in the background: `World.settle` brings the books up to the clock at every request.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from killswitch.sandbox.kubernetes_names import HASH, names, new_uid
from killswitch.sandbox.kubernetes_objects import Objects, marks

SLOW_S = 1.5
RETURN_AFTER_S = 0.6
SCALE_BACK_EVERY_S = 0.2
CRON_EVERY_S = 0.4
HALTED = "killswitch/halted"
FINALIZER = "bots.example/settle"


@dataclass(slots=True, kw_only=True)
class Pod:
    """One pod. `owner` is its workload's kind and name, or None for a bare pod.

    `delete_at` is its deletionTimestamp; `ends_at` is when its processes really end. With a
    finalizer it stays listed then, as `done`. A `static` one is the mirror of what its node runs.
    """

    name: str
    owner: tuple[str, str] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    node: str = "node-1"
    phase: str = "Running"
    grace_s: int = 30
    created: float = 0.0
    delete_at: float | None = None
    delete_grace_s: int | None = None
    ends_at: float = math.inf
    finalizer: str = ""
    done: bool = False
    static: bool = False
    uid: str = field(default_factory=new_uid)


@dataclass(slots=True, kw_only=True)
class Workload:
    """What asks for pods, as seeded; `grace_s` is its terminationGracePeriodSeconds.

    `pod_labels` are those of its pod template, beside the label "app", which is its name.
    `replicas` is a Job's parallelism, and the number of nodes for a DaemonSet, which `nodes`
    selects; a CronJob has one pod at its times.
    """

    kind: str
    name: str
    replicas: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    pod_labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    owner: tuple[str, str] | None = None
    suspended: bool = False
    finished: bool = False
    nodes: dict[str, str] = field(default_factory=dict)
    next_start: float = 0.0
    grace_s: int = 30
    generation: int = 1
    created: float = 0.0
    uid: str = field(default_factory=new_uid)

    @property
    def asks(self) -> int:
        """How many pods it wants; no node has the label by which a DaemonSet is halted."""
        return 0 if self.suspended or self.finished or HALTED in self.nodes else self.replicas

    def template_labels(self) -> dict[str, str]:
        """Return the labels of its pod template."""
        return {"app": self.name, **self.pod_labels}

    def pod_labels_now(self) -> dict[str, str]:
        """Return the labels of a pod that it makes."""
        hashed = {"pod-template-hash": HASH} if self.kind == "Deployment" else {}
        return self.template_labels() | hashed


@dataclass(slots=True, kw_only=True)
class Quota:
    """A ResourceQuota; admission heeds it from `in_force_at` on, not from its creation.

    Until then it heeds what was in force `before`.
    """

    name: str
    spec: dict[str, object]
    in_force_at: float
    before: dict[str, str] = field(default_factory=dict)
    created: float = 0.0
    uid: str = field(default_factory=new_uid)

    @property
    def hard(self) -> dict[str, str]:
        """What it allows at most."""
        hard = self.spec.get("hard")
        return {k: str(v) for k, v in hard.items()} if isinstance(hard, dict) else {}


@dataclass(slots=True)
class Namespace:
    """Everything in one namespace, by name; `missing` stands for one that does not exist."""

    name: str
    workloads: list[Workload] = field(default_factory=list)
    pods: dict[str, Pod] = field(default_factory=dict)
    quotas: dict[str, Quota] = field(default_factory=dict)
    seeded: dict[str, int] = field(default_factory=dict)
    empty_since: float | None = None
    returned: bool = False
    stuck: str = ""
    next_scale_back: float = 0.0
    missing: bool = False


class World:
    """All namespaces, and what happens in them as time goes by."""

    def __init__(
        self,
        namespaces: Mapping[str, Iterable[Workload]],
        *,
        clock: Callable[[], float],
        traps: set[str],
        term_s: float,
        floor_s: float,
        quota_lag_s: float,
    ) -> None:
        self.clock = clock
        self.traps = traps
        self.term_s = term_s
        self.floor_s = floor_s
        self.quota_lag_s = quota_lag_s
        self.namespaces: dict[str, Namespace] = {}
        self.objects = Objects()
        self.orphans: list[tuple[str, float]] = []
        """Processes whose pod object was deleted by force: name and when they end."""
        now = self.created = clock()
        for name, workloads in namespaces.items():
            space = Namespace(name, workloads=list(workloads))
            for workload in space.workloads:
                workload.created = now
                space.seeded[workload.uid] = workload.replicas
            self.namespaces[name] = space
        self.settle()

    def settle(self) -> None:
        """Bring the books up to now."""
        now = self.clock()
        self.orphans = [orphan for orphan in self.orphans if orphan[1] > now]
        self.objects.seed(self.traps)
        for space in self.namespaces.values():
            self._reap(space, now)
            self._scale_back(space, now)
            for workload in space.workloads:
                self._control(space, workload, now)
            self._return_once(space, now)

    def live(self) -> list[str]:
        """Name the pods, the processes that outlive their pod, and what would make new pods."""
        self.settle()
        live = [f"process of {name}" for name, _ in self.orphans]
        for space in self.namespaces.values():
            live += [f"pod {space.name}/{name}" for name, pod in space.pods.items() if not pod.done]
            if not self.refusal(space, ""):
                live += [
                    f"{workload.kind} {space.name}/{workload.name} asks for {workload.asks}"
                    for workload in space.workloads
                    if workload.asks
                ]
        return live

    def refusal(self, space: Namespace, pod: str) -> str:
        """Say which quota keeps a new `pod` out, as admission does, or nothing."""
        used = sum(pod.phase not in {"Succeeded", "Failed"} for pod in space.pods.values())
        for quota in space.quotas.values():
            limit = self.heeded(quota).get("pods")
            scoped = quota.spec.get("scopes") or quota.spec.get("scopeSelector")
            if limit is not None and not scoped and used + 1 > int(limit):
                return (
                    f'pods "{pod}" is forbidden: exceeded quota: {quota.name}, '
                    f"requested: pods=1, used: pods={used}, limited: pods={limit}"
                )
        return ""

    def heeded(self, quota: Quota) -> dict[str, str]:
        """Return what the controller has put into the status, which admission goes by."""
        seen = "quota-idle" not in self.traps and self.clock() >= quota.in_force_at
        return quota.hard if seen else quota.before

    def scale(self, workload: Workload, replicas: int) -> None:
        """Write a new wish; nothing stops or starts before the controller sees it."""
        if replicas != workload.replicas:
            workload.replicas = replicas
            workload.generation += 1

    def add_pod(self, namespace: str, name: str, *, phase: str = "Running") -> Pod:
        """Put a bare pod there, past every quota."""
        space = self.namespaces[namespace]
        space.pods[name] = Pod(name=name, phase=phase, created=self.clock())
        return space.pods[name]

    def delete(
        self, space: Namespace, pod: Pod, grace_s: int | None = None, *, dry_run: bool = False
    ) -> None:
        """Do what a DELETE does: the first grace rules, a later one only looks shorter.

        A dry run marks `pod`, which is a copy then, and touches nothing else.
        """
        now = self.clock()
        grace_s = pod.grace_s if grace_s is None else grace_s
        if pod.delete_at is None:
            pod.ends_at = now + self._takes_s(pod, grace_s)
            if "stuck-pod" in self.traps and not space.stuck and not dry_run:
                space.stuck = pod.uid
            if "finalizer-pod" in self.traps and not any(
                it.finalizer for it in space.pods.values()
            ):
                pod.finalizer = FINALIZER
        if pod.delete_grace_s is None or grace_s < pod.delete_grace_s:
            pod.delete_at, pod.delete_grace_s = now + grace_s, grace_s
        if grace_s == 0 and not dry_run:
            # By force: the object is gone at once, the process is not.
            del space.pods[pod.name]
            self.orphans.append((f"{space.name}/{pod.name}", pod.ends_at))

    def _takes_s(self, pod: Pod, grace_s: int) -> float:
        if pod.phase in {"Succeeded", "Failed"}:
            return 0.0
        if "slow-pods" in self.traps:
            return SLOW_S
        return min(self.term_s, max(grace_s, self.floor_s))

    def _reap(self, space: Namespace, now: float) -> None:
        for pod in list(space.pods.values()):
            stuck = "stuck-pod" in self.traps and pod.uid == space.stuck
            if pod.ends_at <= now and pod.finalizer:
                pod.done = True
            elif pod.ends_at <= now and not stuck:
                del space.pods[pod.name]
                if pod.static:
                    self.orphans.append((f"{space.name}/{pod.name}", math.inf))
                if not space.pods:
                    space.empty_since = pod.ends_at

    def _scale_back(self, space: Namespace, now: float) -> None:
        labels, annotations = marks(self.traps)
        fights = "scales-back" in self.traps or self.objects.fight(self.traps)
        due = fights and now >= space.next_scale_back
        for workload in space.workloads:
            workload.labels |= labels
            workload.annotations |= annotations
            if due:
                self.scale(workload, max(workload.replicas, space.seeded[workload.uid]))
                workload.suspended = False
                workload.nodes.pop(HALTED, None)
        if due:
            space.next_scale_back = now + SCALE_BACK_EVERY_S

    def _control(self, space: Namespace, workload: Workload, now: float) -> None:
        owner = (workload.kind, workload.name)
        mine = [pod for pod in space.pods.values() if pod.owner == owner]
        running = [pod for pod in mine if pod.delete_at is None and not pod.done]
        if workload.kind == "CronJob":
            # What it has started runs on when it is suspended.
            if now < workload.next_start:
                return
            workload.next_start = now + CRON_EVERY_S
        else:
            for pod in running[workload.asks :]:
                self.delete(space, pod)
        for name in itertools.islice(
            names(workload.kind, workload.name, workload.replicas), max(workload.asks, 0)
        ):
            if len(running) >= workload.asks:
                return
            if name in space.pods or self.refusal(space, name):
                continue
            pod = Pod(name=name, owner=owner, created=now, labels=workload.pod_labels_now())
            pod.grace_s = workload.grace_s
            space.pods[name] = pod
            running.append(pod)

    def _return_once(self, space: Namespace, now: float) -> None:
        due = space.empty_since is not None and now >= space.empty_since + RETURN_AFTER_S
        if "pods-return-once" in self.traps and due and not space.returned:
            # Let in by an admission that had been asked before the quota was there.
            space.returned = True
            self.add_pod(space.name, "debug-returned")
