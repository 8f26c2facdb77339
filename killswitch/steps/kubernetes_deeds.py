"""What the Kubernetes step can do to a cluster; each deed is a pair, for real and as a dry run."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from killswitch.errors import VendorError
from killswitch.model import Receipt
from killswitch.steps.kubernetes_keepers import Keeper
from killswitch.steps.kubernetes_notes import names
from killswitch.steps.kubernetes_port import Cluster, Pod, Writes

Deed: TypeAlias = Callable[[], Receipt]
Both: TypeAlias = tuple[Deed, Deed]
"""An action's `perform` and `rehearse`."""


def lock(cluster: Cluster, namespace: str) -> Both:
    """Create or mend the quota that keeps pods out."""
    return _both(cluster, lambda to: to.lock(namespace))


def delete(cluster: Cluster, namespace: str, pods: Sequence[Pod]) -> Both:
    """Ask every pod to end; the receipt names those of `pods`."""
    return _both(cluster, lambda to: _delete(to, namespace, pods))


def lock_and_delete(
    cluster: Cluster, namespace: str, pods: Sequence[Pod], workloads: Sequence[tuple[str, str]]
) -> Both:
    """Keep pods out, and ask every pod to end.

    Without the quota they would be replaced at once, for ever: what asks for them, each of
    `workloads` by kind and name, is then stopped in the same breath.
    """

    def change(to: Writes) -> Receipt:
        try:
            to.lock(namespace)
            asking: Sequence[tuple[str, str]] = ()
        except VendorError:
            asking = workloads
        receipt = _delete(to, namespace, pods)
        for kind, name in asking:
            with suppress(VendorError):
                to.scale_to_zero(namespace, kind, name)
        return receipt

    return _both(cluster, change)


def scale(cluster: Cluster, namespace: str, kind: str, name: str) -> Both:
    """Ask for no pod any more."""
    return _both(cluster, lambda to: to.scale_to_zero(namespace, kind, name))


def delete_and_scale(cluster: Cluster, namespace: str, kind: str, name: str) -> Both:
    """Ask every pod to end, and then for none any more."""

    def change(to: Writes) -> Receipt:
        # Who deletes a pod first sets its grace: its controller would leave it 30 s.
        with suppress(VendorError):
            to.delete_pods(namespace)
        return to.scale_to_zero(namespace, kind, name)

    return _both(cluster, change)


def pause(cluster: Cluster, keeper: Keeper) -> Both:
    """Keep a reconciler from setting anything back."""
    return _both(cluster, lambda to: to.pause(keeper))


def _delete(to: Writes, namespace: str, pods: Sequence[Pod]) -> Receipt:
    receipt = to.delete_pods(namespace)
    return Receipt(f"{receipt.summary}: {names(pods)}", receipt.evidence)


def _both(cluster: Cluster, change: Callable[[Writes], Receipt]) -> Both:
    return lambda: change(cluster.writes), lambda: change(cluster.rehearsal)
