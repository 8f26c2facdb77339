"""Delete the Secrets that External Secrets copied into a cluster, and what would copy them again.

The order is what keeps them away: a quota, then what makes the makers, what writes back to the
store, what writes the Secrets, and last the Secrets, by name. A Secret is never read: it is gone
when the dry run of its deletion finds none.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from killswitch.errors import VendorError
from killswitch.model import Plan
from killswitch.steps import synced_secrets_items as items
from killswitch.steps import synced_secrets_notes as say
from killswitch.steps.synced_secrets_items import CLUSTER, Looks, attempt
from killswitch.steps.synced_secrets_port import (
    PARENTS,
    PUSHES,
    SYNCS,
    Latch,
    Lock,
    SecretsCluster,
)


@dataclass(frozen=True, slots=True)
class DeleteSyncedSecrets:
    """Ends the syncing in `namespaces` and deletes its Secrets; `secrets` are "namespace/name".

    What only an object of External Secrets names is deleted, too, and written down beside the
    quota before that object goes. A listed Secret counts as gone only if it was ever seen: a
    name with a typo is missing as well. ValueError for one outside the namespaces.
    """

    name: ClassVar[str] = "synced-secrets"
    evidence: ClassVar[bool] = False

    cluster: SecretsCluster
    system: str
    namespaces: tuple[str, ...]
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for secret in self.secrets:
            namespace, _, name = secret.partition("/")
            if namespace not in self.namespaces or not name or "/" in name:
                raise ValueError(
                    f'a Secret looks like "namespace/name", in a namespace of ours, not {secret!r}'
                )

    def plan(self) -> Plan:
        """Look at the quota, the makers and the Secrets of every namespace."""
        return items.plan_of(self._looks())

    def _looks(self) -> Looks:
        for namespace in self.namespaces:
            yield from self._namespace(namespace)
        ours = frozenset(self.namespaces)
        for resource in PARENTS:
            makers = self.cluster.makers(resource)
            answer = attempt(partial(self.cluster.parents, resource))
            if isinstance(answer, VendorError) and not (answer.lasting and not makers):
                yield f"{CLUSTER}/{resource}", answer
                continue
            # Who may not list them need not: no object in the namespaces has such a parent.
            listed = None if isinstance(answer, VendorError) else answer
            found = items.parents(self.cluster, resource, listed, makers, ours)
            yield f"{CLUSTER}/{resource}", found

    def _namespace(self, namespace: str) -> Looks:
        latch = attempt(partial(self.cluster.latch, namespace))
        exists = isinstance(latch, Latch) and latch.lock is not Lock.MISSING
        answers: list[object] = [latch]
        there: set[str] = set()
        for resource in (PUSHES, SYNCS):
            target = f"{namespace}/{resource}"
            listed = attempt(partial(self.cluster.synced, namespace, resource))
            answers.append(listed)
            if isinstance(listed, VendorError):
                yield target, listed
                continue
            there.update(name for one in listed or () if not one.ending for name in one.secrets)
            yield target, items.synced(self.cluster, namespace, resource, listed, exists=exists)
        if silence := items.silence(answers):
            yield f"{namespace}/secrets", silence
        else:
            for name, answer in self._secrets(namespace):
                if isinstance(answer, VendorError) or items.live(answer):
                    there.add(name)
                yield f"{namespace}/secrets/{name}", answer
        if isinstance(latch, Latch):
            yield f"{namespace}/quota", items.quota(self.cluster, namespace, latch, there)
        else:
            yield f"{namespace}/quota", latch

    def _secrets(self, namespace: str) -> Looks:
        discovered = self.cluster.discovered(namespace)
        places = (secret.partition("/") for secret in self.secrets)
        listed = {name for place, _, name in places if place == namespace}
        names = listed | discovered.keys()
        logins = self.cluster.logins(namespace) if names else {}
        for name in sorted(names):
            if name in logins and name not in listed:
                yield name, [say.login(f"Secret {namespace}/{name}", logins[name])]
                continue
            found = attempt(partial(self.cluster.secret, namespace, name))
            if isinstance(found, VendorError):
                yield name, found
                continue
            yield (
                name,
                items.secret(
                    self.cluster,
                    f"{namespace}/{name}",
                    found,
                    through=discovered.get(name, ""),
                    login=logins.get(name, ""),
                    listed=name in listed,
                ),
            )
