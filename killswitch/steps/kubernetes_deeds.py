"""What the Kubernetes step can do to a cluster; each deed is a pair, for real and as a dry run."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

from killswitch.errors import VendorError
from killswitch.model import Receipt
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

    def change(to: Writes) -> Receipt:
        receipt = to.delete_pods(namespace)
        return Receipt(f"{receipt.summary}: {names(pods)}", receipt.evidence)

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


def _both(cluster: Cluster, change: Callable[[Writes], Receipt]) -> Both:
    return lambda: change(cluster.writes), lambda: change(cluster.rehearsal)
