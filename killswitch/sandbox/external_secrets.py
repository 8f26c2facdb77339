"""The Secrets of the sandbox's cluster, and an External Secrets operator that acts on them.

Nothing runs in the background: `Operator.settle` brings the books up to the clock.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from killswitch.sandbox.kubernetes_controllers import World
from killswitch.sandbox.kubernetes_names import new_uid

GROUP: Final = "external-secrets.io"
KINDS: Final = {
    "externalsecrets": "ExternalSecret",
    "pushsecrets": "PushSecret",
    "secretstores": "SecretStore",
    "clusterexternalsecrets": "ClusterExternalSecret",
    "clusterpushsecrets": "ClusterPushSecret",
}
VERSIONS: Final = {kind: "v1alpha1" if "push" in kind else "v1" for kind in KINDS}
CHILD_OF: Final = {
    "clusterexternalsecrets": "externalsecrets",
    "clusterpushsecrets": "pushsecrets",
}
STORE_TOKEN: Final = "store-token"
REACTS_S: Final = 0.02
REMAKES_S: Final = 0.05
REFRESH_S: Final = 1.0
PUSH_EVERY_S: Final = 3600.0
EAGER_S: Final = 0.3
VALUES: Final = {"key": "made-up", "secret": "made-up"}
_FINALIZERS: Final = {
    "externalsecrets": "externalsecrets.external-secrets.io/externalsecret-cleanup",
    "pushsecrets": "pushsecret.externalsecrets.io/finalizer",
}


@dataclass(slots=True, kw_only=True)
class Thing:
    """One object: a Secret with its `data`, or one of External Secrets with its `spec`.

    `owner` is the kind and name of what made it; it goes with that. `due` is when the operator
    will next do something about it.
    """

    name: str
    namespace: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    owner: tuple[str, str] | None = None
    finalizers: list[str] = field(default_factory=list)
    created: float = 0.0
    ending: float | None = None
    due: float = 0.0
    uid: str = field(default_factory=new_uid)


Key = tuple[str, str, str]
"""Resource, namespace ("" for a cluster-wide one) and name."""


class Operator:
    """The books, and what the operator and the garbage collector make of them as time goes by.

    `push` writes a secret into a Vault, by path; without it nothing is pushed.
    """

    def __init__(self, world: World, *, clock: Callable[[], float]) -> None:
        self.world = world
        self.clock = clock
        self.traps: set[str] = set()
        self.things: dict[Key, Thing] = {}
        self.push: Callable[[str, Mapping[str, str]], None] = lambda _path, _data: None
        self._late: list[tuple[float, str]] = []

    def add(self, resource: str, thing: Thing) -> Thing:
        """Put one object there, past every quota."""
        thing.created = self.clock()
        thing.due = thing.created + PUSH_EVERY_S if resource == "pushsecrets" else 0.0
        if resource in _FINALIZERS and not self._never_held(resource, thing):
            thing.finalizers.append(_FINALIZERS[resource])
        self.things[resource, thing.namespace, thing.name] = thing
        return thing

    def of(self, resource: str, namespace: str | None = None) -> list[Thing]:
        """Return the objects of one kind, everywhere or in one namespace."""
        return [
            thing
            for (kind, place, _), thing in sorted(self.things.items())
            if kind == resource and namespace in {None, place}
        ]

    def delete(self, resource: str, thing: Thing) -> None:
        """Do what a DELETE does: a finalizer holds the object until its operator is done."""
        now = self.clock()
        late = resource == "pushsecrets" and "pushsecret-writes-late" in self.traps
        if late and thing.ending is None:
            self._late.append((now + EAGER_S, _remote_key(thing)))
        if not thing.finalizers:
            self._remove(resource, thing)
        elif thing.ending is None:
            thing.ending, thing.due = now, now + REACTS_S

    def live(self) -> list[str]:
        """Name the Secrets with keys in them, and what could bring one back."""
        self.settle()
        live = [
            f"Secret {thing.namespace}/{thing.name}"
            for thing in self.of("secrets")
            if thing.name != STORE_TOKEN
        ]
        for resource, kind in KINDS.items():
            if resource != "secretstores" and self.installed:
                things = [thing for thing in self.of(resource) if thing.ending is None]
                live += [f"{kind} {thing.namespace}/{thing.name}" for thing in things]
        return live

    @property
    def installed(self) -> bool:
        """Whether External Secrets is there at all."""
        return "externalsecrets-missing" not in self.traps

    def settle(self) -> None:
        """Bring the books up to now."""
        now = self.clock()
        for at, path in [late for late in self._late if late[0] <= now]:
            self._late.remove((at, path))
            self.push(path, VALUES)
        if not self.installed or "operator-down" in self.traps:
            return
        for resource, child in CHILD_OF.items():
            for parent in self.of(resource):
                self._remake(parent, child, now)
        for resource in ("pushsecrets", "externalsecrets"):
            for thing in self.of(resource):
                if thing.ending is not None:
                    self._finish(resource, thing, now)
                elif resource == "pushsecrets":
                    self._push(thing, now)
                else:
                    self._sync(thing, now)

    def _finish(self, resource: str, thing: Thing, now: float) -> None:
        held = resource == "pushsecrets" and "pushsecret-hangs" in self.traps
        if thing.due <= now and not held:
            self._remove(resource, thing)

    def _remove(self, resource: str, thing: Thing) -> None:
        self.things.pop((resource, thing.namespace, thing.name), None)
        kind = KINDS.get(resource, "")
        for (below, place, _), other in list(self.things.items()):
            if other.owner == (kind, thing.name) and thing.namespace in {"", place}:
                self.delete(below, other)

    def _remake(self, parent: Thing, child: str, now: float) -> None:
        """Make what is missing of a cluster-wide object, some milliseconds after it went."""
        kind = KINDS[child]
        for namespace in parent.spec["namespaces"]:
            if (child, namespace, parent.name) in self.things or self.refusal(child, namespace):
                parent.due = now + REMAKES_S
            elif parent.due <= now:
                owner = (f"Cluster{kind}", parent.name)
                spec = parent.spec[f"{kind[0].lower()}{kind[1:]}Spec"]
                self.add(
                    child, Thing(name=parent.name, namespace=namespace, spec=spec, owner=owner)
                )

    def _sync(self, thing: Thing, now: float) -> None:
        """Write an ExternalSecret's Secret again: Owner at once, Orphan later, Merge never."""
        target = thing.spec["target"]
        name, policy = target.get("name", thing.name), target.get("creationPolicy", "Owner")
        if ("secrets", thing.namespace, name) in self.things or policy == "Merge":
            thing.due = now + (REACTS_S if policy == "Owner" else REFRESH_S)
        elif thing.due <= now and not self.refusal("secrets", thing.namespace):
            owner = ("ExternalSecret", thing.name) if policy == "Owner" else None
            secret = Thing(name=name, namespace=thing.namespace, data=dict(VALUES), owner=owner)
            self.add("secrets", secret)

    def _push(self, thing: Thing, now: float) -> None:
        """Write a PushSecret's source into the Vault, at each refresh."""
        every_s = EAGER_S if "pushsecret-eager" in self.traps else PUSH_EVERY_S
        source = thing.spec["selector"]["secret"]["name"]
        thing.due = min(thing.due, now + every_s)
        if thing.due <= now:
            thing.due = now + every_s
            if secret := self.things.get(("secrets", thing.namespace, source)):
                self.push(_remote_key(thing), secret.data)

    def refusal(self, resource: str, namespace: str) -> str:
        """Say which quota keeps a new object out, as admission does, or nothing."""
        space = self.world.namespaces.get(namespace)
        counted = resource if resource == "secrets" else f"count/{resource}.{GROUP}"
        used = len(self.of(resource, namespace))
        for quota in space.quotas.values() if space else ():
            limit = self.world.heeded(quota).get(counted)
            if limit is not None and used + 1 > int(limit):
                return (
                    f"exceeded quota: {quota.name}, requested: {counted}=1, "
                    f"used: {counted}={used}, limited: {counted}={limit}"
                )
        return ""

    @staticmethod
    def _never_held(resource: str, thing: Thing) -> bool:
        return resource == "pushsecrets" and thing.spec.get("deletionPolicy") != "Delete"


def _remote_key(thing: Thing) -> str:
    return str(thing.spec["data"][0]["match"]["remoteRef"]["remoteKey"])


def seed(operator: Operator, namespace: str = "trading") -> None:
    """Put a small desk there: Secrets of each policy, one pushed, one made cluster-wide."""

    def external(name: str, policy: str) -> dict[str, Any]:
        return {
            "refreshInterval": f"{REFRESH_S:g}s",
            "secretStoreRef": {"kind": "SecretStore", "name": "vault"},
            "target": {"name": name, "creationPolicy": policy, "deletionPolicy": "Retain"},
        }

    token = {"name": STORE_TOKEN, "key": "token"}
    store = {"provider": {"vault": {"path": "trading", "auth": {"tokenSecretRef": token}}}}
    add = operator.add
    add("secretstores", Thing(name="vault", namespace=namespace, spec=store))
    add("secrets", Thing(name=STORE_TOKEN, namespace=namespace, data={"token": "made-up"}))
    for name, policy in (("freqtrade-bybit", "Owner"), ("hedger-bybit", "Orphan")):
        spec = external(name, policy)
        add("externalsecrets", Thing(name=name, namespace=namespace, spec=spec))
        add("secrets", Thing(name=name, namespace=namespace, data=dict(VALUES)))
    operator.things["secrets", namespace, "freqtrade-bybit"].owner = (
        "ExternalSecret",
        "freqtrade-bybit",
    )
    push = {
        "refreshInterval": f"{PUSH_EVERY_S:g}s",
        "deletionPolicy": "Delete",
        "selector": {"secret": {"name": "hedger-bybit"}},
        "data": [{"match": {"secretKey": "key", "remoteRef": {"remoteKey": "trading/hedger"}}}],
    }
    add("pushsecrets", Thing(name="hedger-bybit", namespace=namespace, spec=push))
    everywhere = {
        "namespaces": [namespace],
        "externalSecretSpec": external("desk-webhook", "Owner"),
    }
    add("clusterexternalsecrets", Thing(name="desk-webhook", spec=everywhere))
    operator.settle()
