"""The first questions of a look at synced secrets, asked at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from killswitch.errors import VendorError
from killswitch.steps.side_by_side import keep, side_by_side
from killswitch.steps.synced_secrets_port import (
    PARENTS,
    PUSHES,
    SYNCS,
    Latch,
    Lock,
    Parent,
    SecretsCluster,
    Synced,
)

Listed = Sequence[Synced] | VendorError | None
Parents = Sequence[Parent] | VendorError | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was answered: per namespace, per namespace and resource, per cluster-wide resource."""

    latches: dict[str, Latch | VendorError] = field(default_factory=dict)
    lists: dict[tuple[str, str], Listed] = field(default_factory=dict)
    parents: dict[str, Parents] = field(default_factory=dict)

    def inhabited(self, namespace: str) -> bool:
        """Return whether the quota or a listed object proves that the namespace exists."""
        latch = self.latches[namespace]
        if isinstance(latch, Latch) and latch.lock is not Lock.MISSING:
            return True
        lists = (self.lists[namespace, resource] for resource in (PUSHES, SYNCS))
        return any(listed for listed in lists if not isinstance(listed, VendorError))


def first_answers(cluster: SecretsCluster, namespaces: Sequence[str]) -> Seen:
    """Read the quotas and the lists, from which the Secrets' names follow."""
    seen = Seen()
    calls: list[Callable[[], bool]] = []
    for namespace in namespaces:
        calls.append(keep(seen.latches, namespace, partial(cluster.latch, namespace)))
        for resource in (PUSHES, SYNCS):
            read = partial(cluster.synced, namespace, resource)
            calls.append(keep(seen.lists, (namespace, resource), read))
    calls += [keep(seen.parents, each, partial(cluster.parents, each)) for each in PARENTS]
    side_by_side(calls)
    return seen
