"""Names and uids of new objects in the sandbox's cluster."""

import itertools
import uuid
from collections.abc import Iterator
from typing import Final

HASH: Final = "7d9f6b5c4"
"""What the names of a Deployment's ReplicaSet and pods carry."""
_ids = itertools.count(1)


def new_uid() -> str:
    """Return a uid that no other object of this process has."""
    return str(uuid.UUID(int=(0xA11CE << 108) + next(_ids), version=4))


def names(kind: str, name: str, replicas: int) -> Iterator[str]:
    """Return names for new pods: of most kinds a pod that is ending is replaced at once.

    A StatefulSet waits for the name.
    """
    if kind == "StatefulSet":
        return (f"{name}-{n}" for n in range(replicas))
    hashed = f"-{HASH}" if kind == "Deployment" else ""
    return (f"{name}{hashed}-{new_uid()[-5:]}" for _ in itertools.count())
