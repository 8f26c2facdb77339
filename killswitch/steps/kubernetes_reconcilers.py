"""Who may ask for pods again: named, with how to suspend it, and paused where that is wanted."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note
from killswitch.steps import kubernetes_deeds as deeds
from killswitch.steps import kubernetes_notes as say
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool
from killswitch.steps.kubernetes_looks import Seen
from killswitch.steps.kubernetes_port import Cluster
from killswitch.steps.side_by_side import keep, side_by_side

PAUSES: Final = {
    Tool.ARGOCD: "argocd",
    Tool.KUSTOMIZATION: "flux",
    Tool.HELMRELEASE: "flux",
    Tool.KEDA: "keda",
}
"""What can be paused, and the word for it in the configuration."""
_PLACES: Final = {
    Tool.ARGOCD: "applications",
    Tool.KUSTOMIZATION: "kustomizations",
    Tool.HELMRELEASE: "helmreleases",
    Tool.KEDA: "scaledobjects",
}
_SCALERS: Final = (Tool.KEDA, Tool.HPA)
Answer = Sequence[Reconciler] | VendorError
Item = Action | Blind | Clear | Note


def named(seen: Seen, pause: Collection[str]) -> Iterator[Note]:
    """Say who keeps what in a namespace, but for those that are paused."""
    kept: dict[Keeper | None, list[str]] = {}
    for kind, workloads in seen.kinds.items():
        for workload in () if isinstance(workloads, VendorError) else workloads:
            keepers: tuple[Keeper | None, ...] = workload.keepers
            if seen.held and workload.replicas and not keepers:
                keepers = (None,)
            for keeper in keepers:
                kept.setdefault(keeper, []).append(f"{kind}/{workload.name}")
    for keeper, what in kept.items():
        if keeper is None or PAUSES.get(keeper.tool) not in pause:
            yield say.may_return(seen.namespace, keeper, what)


def paused(
    cluster: Cluster, looks: Sequence[Seen], pause: Collection[str], phase: int
) -> Iterator[Item]:
    """Look at the autoscalers, and at what is to be paused; each of the latter is a target."""
    # While pods are ending nothing is said of what need not be paused: every call counts.
    quiet = [seen for seen in looks if not any(pod.ending for pod in seen.left)]
    lists: dict[tuple[str, Tool], Answer] = {}
    calls = []
    for tool in _SCALERS:
        for seen in looks if PAUSES.get(tool) in pause else quiet:
            read = partial(cluster.scalers, seen.namespace, tool)
            calls.append(keep(lists, (seen.namespace, tool), read))
    found: dict[Keeper, Reconciler | VendorError | None] = {}
    calls += [
        keep(found, keeper, partial(cluster.reconciler, keeper))
        for keeper in _keepers(looks)
        if PAUSES.get(keeper.tool) in pause
    ]
    side_by_side(calls)
    for seen in looks:
        for tool in _SCALERS:
            scalers = lists.get((seen.namespace, tool), ())
            yield from _scalers(cluster, seen, tool, scalers, pause, phase)
    for keeper, answer in found.items():
        yield from _reconciler(cluster, keeper, answer, phase)


def _keepers(looks: Sequence[Seen]) -> Iterable[Keeper]:
    kinds = (kind for seen in looks for kind in seen.kinds.values())
    workloads = (it for kind in kinds if not isinstance(kind, VendorError) for it in kind)
    return dict.fromkeys(keeper for workload in workloads for keeper in workload.keepers)


def _scalers(
    cluster: Cluster,
    seen: Seen,
    tool: Tool,
    answer: Answer,
    pause: Collection[str],
    phase: int,
) -> Iterator[Item]:
    wanted = PAUSES.get(tool) in pause
    target = f"{seen.namespace}/{_PLACES.get(tool)}"
    if isinstance(answer, VendorError):
        blind = Blind(target, answer.problem, answer.lasting)
        yield blind if wanted else say.not_looked(tool, answer)
        return
    scalers = [scaler for scaler in answer if not seen.selected or _scales(seen, scaler)]
    for scaler in scalers:
        if wanted:
            yield from _reconciler(cluster, scaler.keeper, scaler, phase)
        elif not scaler.paused:
            yield say.may_return(seen.namespace, scaler.keeper, [scaler.scales])
    if wanted and all(scaler.paused for scaler in scalers):
        yield Clear(target, "none asks for a pod")


def _scales(seen: Seen, scaler: Reconciler) -> bool:
    """Return whether what it scales is among what was seen: "Deployment bot"."""
    kind, _, name = scaler.scales.lower().partition(" ")
    found = seen.kinds.get(f"{kind}s", ())
    return isinstance(found, VendorError) or any(it.name == name for it in found)


def _reconciler(
    cluster: Cluster, keeper: Keeper, answer: Reconciler | VendorError | None, phase: int
) -> Iterator[Item]:
    target = f"{keeper.namespace}/{_PLACES[keeper.tool]}/{keeper.name}"
    if isinstance(answer, VendorError):
        yield Blind(target, answer.problem, answer.lasting)
    elif answer is None:
        yield Clear(target, "not in this cluster")
        yield say.may_return(keeper.namespace, keeper, ["it is kept outside this cluster"])
    elif answer.paused:
        yield Clear(target, "paused")
        yield from (say.may_resume(keeper, above) for above in answer.keepers)
    else:
        both = deeds.pause(cluster, keeper)
        yield Action("pause", target, *both, phase=phase, reversible=True)
