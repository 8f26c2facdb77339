"""What the Kubernetes step says beside its targets: what is true and not its to end."""

from collections.abc import Sequence
from typing import Final

from killswitch.model import Note
from killswitch.steps.kubernetes_port import LOCK, Pod, Workload

OVERDUE_S: Final = 5.0
"""How late a pod may end before it is said to be stuck."""


def latch(namespace: str) -> Note:
    """Say how pods are let in again."""
    unlock = f"kubectl --namespace {namespace} delete resourcequota {LOCK}"
    text = f"no pod can start in {namespace} until the quota {LOCK} is deleted"
    return Note("latch", text, hint=unlock)


def stuck(namespace: str, pod: Pod) -> Note:
    """Say that a pod is late to end."""
    text = f"pod {namespace}/{pod} did not end in time: its process may run on"
    return Note("stuck", text, hint="look at the node, or power it off; the keys are what counts")


def may_return(target: str, workload: Workload) -> Note:
    """Say who may ask for pods again."""
    text = f"{target} is scaled by {workload.owner or 'something'}, which may ask for pods again"
    return Note("reconciler", text, hint="suspend it there before the quota is deleted")


def names(pods: Sequence[Pod], most: int = 8) -> str:
    """Return the first `most` pods by name and node."""
    more = f" and {len(pods) - most} more" if len(pods) > most else ""
    return ", ".join(str(pod) for pod in pods[:most]) + more
