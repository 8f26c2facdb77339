"""What the client of synced secrets remembers, for as long as it lives."""

from collections.abc import Iterable, Mapping

from killswitch.steps.synced_secrets_port import PARENTS


class Memory:
    """What was once seen: an object that named a Secret takes the name with it when it goes."""

    def __init__(self) -> None:
        self._discovered: dict[str, dict[str, str]] = {}
        self._seen: dict[str, set[str]] = {}
        self._makers: dict[str, set[str]] = {}
        self._unlockable: set[str] = set()

    def discovered(self, namespace: str) -> Mapping[str, str]:
        """Return the Secrets that other objects named, and which; and those of earlier runs."""
        return dict(self._discovered.get(namespace, {}))

    def seen(self, namespace: str) -> frozenset[str]:
        """Return the Secrets that were seen to be there."""
        return frozenset(self._seen.get(namespace, ()))

    def makers(self, resource: str) -> frozenset[str]:
        """Return the cluster-wide objects that a child was seen of."""
        return frozenset(self._makers.get(resource, ()))

    def lock_refused(self, namespace: str) -> bool:
        """Return whether creating or mending the quota was refused."""
        return namespace in self._unlockable

    def refuse_lock(self, namespace: str) -> None:
        """Remember that the quota was refused: nothing can wait for it."""
        self._unlockable.add(namespace)

    def recall(self, targets: Iterable[str], configured: Iterable[str]) -> None:
        """Take in the targets that earlier runs wrote down, but for the `configured` Secrets.

        A name of ours that is only in the configuration may have a typo; any other was found.
        """
        known = set(configured)
        for target in targets:
            match target.split("/"):
                case [namespace, "secrets", name] if f"{namespace}/{name}" not in known:
                    self._discovered.setdefault(namespace, {}).setdefault(name, "an earlier run")
                case [_, resource, name] if resource in PARENTS:
                    self._makers.setdefault(resource, set()).add(name)
                case _:
                    pass
