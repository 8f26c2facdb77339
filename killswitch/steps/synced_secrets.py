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
from killswitch.steps.side_by_side import keep, side_by_side
from killswitch.steps.synced_secrets_answers import Seen, first_answers
from killswitch.steps.synced_secrets_items import CLUSTER, Looks
from killswitch.steps.synced_secrets_port import (
    PUSHES,
    SYNCS,
    Found,
    Latch,
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
        seen = first_answers(self.cluster, self.namespaces)
        for namespace in self.namespaces:
            yield from self._namespace(namespace, seen)
        for resource, answer in seen.parents.items():
            if isinstance(answer, VendorError):
                known = self.cluster.makers(resource) | self.cluster.earlier_makers(resource)
                yield from items.unlisted_parents(resource, answer, known)
            else:
                found = items.parents(self.cluster, resource, answer, seen)
                yield f"{CLUSTER}/{resource}", found

    def _namespace(self, namespace: str, seen: Seen) -> Looks:
        latch = seen.latches[namespace]
        lists = {resource: seen.lists[namespace, resource] for resource in (PUSHES, SYNCS)}
        there: set[str] = set()
        makers: set[str] = set()
        part = f"{namespace}/secrets"
        # First the Secrets: with the logins it is known what must be noted.
        for target, answer in self._secrets(namespace, items.silence([latch, *lists.values()])):
            if isinstance(answer, VendorError) or items.live(answer):
                name = {target.removeprefix(f"{part}/")}
                there |= name if target != part else self.cluster.discovered(namespace).keys()
            yield target, answer
        for resource, listed in lists.items():
            if isinstance(listed, VendorError):
                yield f"{namespace}/{resource}", listed
                continue
            for one in listed or ():
                if not one.ending:
                    there |= set(one.secrets)
                    makers |= items.made_by(resource, one)
            found = items.synced(self.cluster, namespace, resource, listed, seen)
            yield f"{namespace}/{resource}", found
        if isinstance(latch, Latch):
            yield f"{namespace}/quota", items.quota(self.cluster, namespace, latch, there, makers)
        else:
            yield f"{namespace}/quota", latch

    def _secrets(self, namespace: str, silence: VendorError | None) -> Looks:
        part = f"{namespace}/secrets"
        if silence:
            yield part, silence
            return
        places = (secret.partition("/") for secret in self.secrets)
        listed = {name for place, _, name in places if place == namespace}
        known = self.cluster.discovered(namespace).keys() | self.cluster.left(namespace).keys()
        try:
            logins = self.cluster.logins(namespace) if listed | known else {}
        except VendorError as error:
            yield part, error
            return
        discovered = self.cluster.discovered(namespace)
        names = listed | discovered.keys()
        yield part, items.left(namespace, self.cluster.left(namespace), names)
        answers: dict[str, Found | VendorError | None] = {}
        look = self.cluster.secret
        asked = [keep(answers, name, partial(look, namespace, name)) for name in sorted(names)]
        side_by_side(asked)
        for name, found in answers.items():
            if isinstance(found, VendorError):
                yield f"{part}/{name}", found
                continue
            why = items.Why(discovered.get(name, ""), logins.get(name, ""), name in listed)
            yield f"{part}/{name}", items.secret(self.cluster, f"{namespace}/{name}", found, why)
