"""Namespaces as objects; the uid of kube-system tells one cluster from another."""

from collections.abc import Collection, Mapping
from typing import Final

from killswitch.sandbox import kubernetes_wire as wire
from killswitch.sandbox.kubernetes_controllers import World
from killswitch.sandbox.kubernetes_requests import Json, not_found

UID: Final = "5a4d9bfc-0000-4000-8000-73616e64626f"
OTHER_UID: Final = "07e50000-0000-4000-8000-636c75737465"
TRAPS: Final[Mapping[str, str]] = {
    "another-cluster": "is another cluster than the one that is configured",
    "unnamed-cluster": "does not allow to read which cluster it is",
}


def namespace(world: World, name: str, traps: Collection[str]) -> Json:
    """Return the namespace; kube-system is always there."""
    if name == "kube-system":
        uid = OTHER_UID if "another-cluster" in traps else UID
        return wire.namespace_json(name, world.created, uid)
    if name not in world.namespaces or "namespace-missing" in traps:
        raise not_found("namespaces", name)
    return wire.namespace_json(name, world.created)
