"""What the client of synced secrets remembers, for as long as it lives."""

from collections.abc import Iterable, Mapping

from killswitch.clients.kubernetes_secrets_shapes import lock_body
from killswitch.steps.synced_secrets_port import PARENTS, Latch


class Memory:
    """What was once seen: an object that named a Secret takes the name with it when it goes."""

    def __init__(self) -> None:
        self._discovered: dict[str, dict[str, str]] = {}
        self._written: dict[str, set[str]] = {}
        self._logins: dict[str, Mapping[str, str]] = {}
        self._seen: dict[str, set[str]] = {}
        self._makers: dict[str, set[str]] = {}
        self._reported: dict[str, set[str]] = {}
        self._unlockable: set[str] = set()

    def discovered(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that other objects named, and which; and those of earlier runs."""
        left = self.left(namespace)
        known = self._discovered.get(namespace, {})
        return {name: through for name, through in known.items() if name not in left}

    def left(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that are only read by PushSecrets and that a store logs in with."""
        ours = self._written.get(namespace, set()) | self._seen.get(namespace, set())
        read = self._discovered.get(namespace, {}).keys() - ours
        logins = self._logins.get(namespace, {})
        return {name: store for name, store in logins.items() if name in read}

    def seen(self, namespace: str) -> frozenset[str]:
        """Return the Secrets that were seen to be there."""
        return frozenset(self._seen.get(namespace, ()))

    def makers(self, resource: str) -> frozenset[str]:
        """Return the cluster-wide objects that a child was seen of, or noted beside the quota."""
        return frozenset(self._makers.get(resource, ()))

    def earlier_makers(self, resource: str) -> frozenset[str]:
        """Return those that earlier runs reported."""
        return frozenset(self._reported.get(resource, ()))

    def lock_refused(self, namespace: str) -> bool:
        """Return whether creating or mending the quota was refused."""
        return namespace in self._unlockable

    def refuse_lock(self, namespace: str) -> None:
        """Remember that the quota was refused: nothing can wait for it."""
        self._unlockable.add(namespace)

    def remember(self, namespace: str, latch: Latch) -> None:
        """Take in what is noted beside the quota."""
        self._written.setdefault(namespace, set()).update(latch.names)
        for name in latch.names:
            self._discovered.setdefault(namespace, {}).setdefault(name, "an earlier look")
        for maker in latch.makers:
            resource, _, name = maker.partition("/")
            self._makers.setdefault(resource, set()).add(name)

    def lock_body(self, namespace: str) -> dict[str, object]:
        """Return the quota as it is to be, with all that is to be noted there."""
        makers = (f"{kind}/{name}" for kind, names in self._makers.items() for name in names)
        return lock_body(self.seen(namespace) | self.discovered(namespace).keys(), makers)

    def recall(self, targets: Iterable[str], configured: Iterable[str]) -> None:
        """Take in the targets that earlier runs wrote down, but for the `configured` Secrets.

        A name of ours that is only in the configuration may have a typo; any other was found.
        """
        known = set(configured)
        for target in targets:
            match target.split("/"):
                case [namespace, "secrets", name] if f"{namespace}/{name}" not in known:
                    self._written.setdefault(namespace, set()).add(name)
                    self._discovered.setdefault(namespace, {}).setdefault(name, "an earlier run")
                case [_, resource, name] if resource in PARENTS:
                    self._reported.setdefault(resource, set()).add(name)
                case _:
                    pass
