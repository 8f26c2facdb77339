"""What the Kubernetes step says beside its targets: what is true and not its to end."""

from collections.abc import Sequence
from typing import Final

from killswitch.errors import VendorError
from killswitch.model import Note
from killswitch.steps.kubernetes_keepers import Keeper, Tool, suspend
from killswitch.steps.kubernetes_port import LOCK, Pod, Workload

_MOST: Final = 8


def latch(namespace: str) -> Note:
    """Say how pods are let in again."""
    unlock = f"kubectl --namespace {namespace} delete resourcequota {LOCK}"
    text = f"no pod can start in {namespace} until the quota {LOCK} is deleted"
    return Note("latch", text, hint=unlock)


def no_latch(namespace: str, selector: str) -> Note:
    """Say that nothing keeps pods out."""
    pods = f"pods with {selector}" if selector else "pods"
    text = f"no quota keeps {pods} out of {namespace}: what starts one later is not stopped"
    return Note("latch", text, hint="suspend what may ask for pods, or set latch = true")


def stuck(namespace: str, pod: Pod) -> Note:
    """Say that a pod is late to end."""
    hint = "look at the node, or power it off; the keys are what counts"
    return Note("stuck", f"{namespace}: {unconfirmed([pod])}", hint=hint)


def unconfirmed(pods: Sequence[Pod]) -> str:
    """Return what is known of pods that did not end in time."""
    may = "its process may" if len(pods) == 1 else "their processes may"
    how = "left the list unconfirmed" if all(pod.lost for pod in pods) else "stop not confirmed"
    return f"pod {names(pods)}: {how}; {may} still run"


def static(pods: Sequence[Pod]) -> str:
    """Return why static pods run on, and who can end them."""
    return f"static pod {names(pods)}: only its node can stop it (remove its manifest there)"


def finalized(namespace: str, pod: Pod) -> Note:
    """Say that a pod is listed although its processes have ended."""
    text = f"pod {namespace}/{pod}: its containers have ended; {pod.held_by} keeps it listed"
    return Note("listed", text, hint=f"kubectl --namespace {namespace} describe pod {pod.name}")


def unseen(namespace: str, kind: str, error: VendorError) -> Note:
    """Say which kind of workload could not be listed."""
    text = f"{kind} in {namespace} cannot be listed, their pods are kept out: {error.problem}"
    return Note("cannot see", text, hint="grant list and patch on them to have them stopped, too")


def not_looked(tool: Tool, error: VendorError) -> Note:
    """Say that nobody knows whether there is such an autoscaler."""
    why = "no right to list them" if error.lasting else error.problem
    text = f"not seen whether any {tool} asks for pods: {why}"
    return Note("cannot see", text, hint="kubectl get hpa,scaledobjects --all-namespaces")


def may_return(namespace: str, keeper: Keeper | None, what: Sequence[str]) -> Note:
    """Say who may ask for pods again, and how it is suspended."""
    who = keeper or "something"
    text = f"{who} may ask for pods again in {namespace}: {_some(what)}"
    if keeper is None:
        return Note("reconciler", text, hint="find and suspend it before the quota is deleted")
    return Note("reconciler", text, hint=suspend(keeper, namespace))


def may_resume(keeper: Keeper, above: Keeper) -> Note:
    """Say who may take back the pause of `keeper`."""
    text = f"{above} may take back the pause of {keeper}"
    return Note("reconciler", text, hint=suspend(above, keeper.namespace))


def wish(kind: str, workload: Workload) -> str:
    """Return what a workload asks for."""
    if not workload.replicas:
        return "asks for no pods"
    other = {"daemonsets": "asks for a pod on every node", "cronjobs": "starts pods at its times"}
    return other.get(kind, f"asks for {workload.replicas} pods")


def names(pods: Sequence[Pod]) -> str:
    """Return the first pods by name and node."""
    return _some([str(pod) for pod in pods])


def _some(what: Sequence[str]) -> str:
    more = f" and {len(what) - _MOST} more" if len(what) > _MOST else ""
    return ", ".join(what[:_MOST]) + more
