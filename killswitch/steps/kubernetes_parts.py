"""What one look at a namespace means, part by part: what is live, unseen, or ended."""

from collections.abc import Iterator, Sequence
from typing import Final

from killswitch.errors import VendorError
from killswitch.model import Action, Blind, Clear, Note
from killswitch.steps import kubernetes_deeds as deeds
from killswitch.steps import kubernetes_notes as say
from killswitch.steps.kubernetes_looks import Seen
from killswitch.steps.kubernetes_port import LOCK, Cluster, Lock, Workload

LATCH, DELETE, SCALE, SWEEP = 1, 2, 3, 4
_ALWAYS: Final = ("deployments", "statefulsets")
"""The kinds that every trader's account may list; to miss that right is a fault."""
Item = Action | Blind | Clear | Note


def quota(cluster: Cluster, seen: Seen) -> Iterator[Item]:
    """Say whether the latch holds, or that there is none."""
    target = f"{seen.namespace}/quota"
    match seen.lock:
        case None:
            yield say.no_latch(seen.namespace, cluster.selector)
        case VendorError() as error:
            yield Blind(target, error.problem, error.lasting)
        case Lock.IN_FORCE:
            yield Clear(target, f"{LOCK} allows no pod, and is in force")
            yield say.latch(seen.namespace)
        case lock:
            # What is stored but not yet in force is waited for, and holds up no delete.
            phase = SWEEP if lock is Lock.PENDING else LATCH
            both = deeds.lock(cluster, seen.namespace)
            yield Action("contain", target, *both, phase=phase, reversible=True)


def pods(cluster: Cluster, seen: Seen) -> Iterator[Item]:
    """Say which pods are left, and which of them may never be seen to end."""
    target = _pods(cluster, seen)
    if isinstance(seen.pods, VendorError):
        yield Blind(target, seen.pods.problem, seen.pods.lasting)
        return
    late = f"{seen.namespace}/late pods"
    if seen.stuck:
        # A target of its own: what was sent to the others says nothing of these.
        yield Blind(late, say.unconfirmed(seen.stuck))
    elif seen.real or seen.pods:
        yield Clear(late, "no pod is late to end")
    if seen.static:
        yield Blind(f"{seen.namespace}/static pods", say.static(seen.static), lasting=True)
    yield from (say.stuck(seen.namespace, pod) for pod in seen.stuck)
    yield from (say.finalized(seen.namespace, pod) for pod in seen.finalized)
    if seen.left:
        yield _delete(cluster, seen)
    elif seen.stuck:
        yield Blind(target, say.unconfirmed(seen.stuck))
    else:
        saw = "no process, though a finalizer keeps pods listed" if seen.finalized else "no pod"
        saw += " but static ones" if seen.static else ""
        saw += ", kept out by a quota" if seen.held else ""
        yield Clear(target, saw, only_if_known=not (seen.real or seen.pods))


def workloads(cluster: Cluster, seen: Seen, kind: str, found: Sequence[Workload]) -> Iterator[Item]:
    """Say what asks for pods; under a latch that holds, nobody's wish matters."""
    for workload in found:
        target = f"{seen.namespace}/{kind}/{workload.name}"
        wish = say.wish(kind, workload)
        if seen.held and workload.replicas:
            # Something scales it back for ever; what counts is that no pod comes of it.
            yield Clear(target, f"{wish}, kept out by a quota")
        elif workload.replicas:
            yield from _stop(cluster, seen, kind, workload)
        else:
            yield Clear(target, wish)
    if seen.held or not any(workload.replicas for workload in found):
        doubt = seen.lock is not None and not seen.exists
        yield Clear(f"{seen.namespace}/{kind}", "none starts a pod", only_if_known=doubt)


def unseen(seen: Seen, kind: str, error: VendorError) -> Item:
    """Say what it means that a kind of workload could not be listed.

    Where a latch keeps its pods out, a missing right is no reason for doubt.
    """
    target = f"{seen.namespace}/{kind}"
    if seen.held and error.lasting:
        return Clear(target, f"not seen ({error.problem}); no pod, kept out by a quota")
    if seen.lock is not None and error.lasting and kind not in _ALWAYS:
        return say.unseen(seen.namespace, kind, error)
    return Blind(target, error.problem, error.lasting)


def _pods(cluster: Cluster, seen: Seen) -> str:
    # What was seen of some pods vouches for no others: the labels are part of the name.
    labels = f" with {cluster.selector}" if cluster.selector else ""
    return f"{seen.namespace}/pods{labels}"


def _delete(cluster: Cluster, seen: Seen) -> Action:
    namespace, left = seen.namespace, seen.left
    verb, phase = "delete", DELETE
    both = deeds.delete(cluster, namespace, left)
    if all(pod.ending for pod in left):
        verb, phase = "delete again", SWEEP
    elif seen.lock in {Lock.MISSING, Lock.OTHER}:
        # Not to wait for another look, which takes its time in many namespaces.
        phase = LATCH
        both = deeds.lock_and_delete(cluster, namespace, left, seen.asking)
    return Action(verb, _pods(cluster, seen), *both, phase=phase, amount=len(left))


def _stop(cluster: Cluster, seen: Seen, kind: str, workload: Workload) -> Iterator[Action]:
    target = f"{seen.namespace}/{kind}/{workload.name}"
    amount = workload.replicas
    scale = deeds.scale(cluster, seen.namespace, kind, workload.name)
    if seen.lock is Lock.IN_FORCE:
        yield Action("stop", target, *scale, SCALE, amount, reversible=True)
        return
    if seen.lock is None:
        # Comes to pass only where no pod may be deleted; a quota would let it be done next.
        yield Action("only stop", target, *scale, SWEEP, amount, reversible=True)
    # Without a quota the pods come back while they are deleted: stop it at the same time.
    both = deeds.delete_and_scale(cluster, seen.namespace, kind, workload.name)
    yield Action("stop", target, *both, LATCH if seen.empty else DELETE, amount)
