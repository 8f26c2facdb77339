"""What the synced-secrets step says beside its targets: what is true and not its to end."""

from typing import Final

from killswitch.model import Note
from killswitch.steps.synced_secrets_port import LOCK

OVERDUE_S: Final = 2.0
"""For how long a finalizer may hold an object before it is said to hang."""

COPIES: Final = Note(
    "copies",
    "no wipe reaches the memory of a running pod, snapshots of etcd, or the release Secrets of "
    "Helm and Argo CD",
    hint="revoke the keys where they were made: that ends every copy",
)


def latch(namespace: str) -> Note:
    """Say how Secrets are let in again."""
    unlock = f"kubectl --namespace {namespace} delete resourcequota {LOCK}"
    text = f"nothing can create a Secret in {namespace} until the quota {LOCK} is deleted"
    return Note("latch", text, hint=unlock)


def hangs(target: str, what: str) -> Note:
    """Say that an object waits for its finalizer; `what` it does no more."""
    text = f"{target}: deletion asked, it hangs on its finalizer; it never {what} again"
    return Note("finalizer", text, hint="it goes when its operator runs and reaches its store")


def held(target: str, finalizers: tuple[str, ...]) -> Note:
    """Say that a Secret will stay, readable, until somebody takes its finalizers away."""
    text = f"{target} stays readable until its finalizers are gone: {', '.join(finalizers)}"
    return Note("finalizer", text, hint="whoever set them must take them away")


def unlisted(target: str, through: str) -> Note:
    """Say that a Secret was found only because something else named it."""
    text = f"{target} is not in the configuration, found through {through}"
    return Note("unlisted", text, hint="list it in secrets, so that every run looks for it")


def beyond(target: str, what: str) -> Note:
    """Say what an object touches that this step cannot name, and so leaves alone."""
    return Note("unlisted", f"{target} {what}: not deleted", hint="list its Secrets in secrets")


def login(target: str, store: str) -> Note:
    """Say that a Secret is left alone because a store needs it."""
    return Note("left", f"{target} is what {store} logs in with: left alone")


def others(target: str, namespaces: frozenset[str]) -> Note:
    """Say whom else the end of a cluster-wide object strikes."""
    where = ", ".join(sorted(namespaces))
    return Note("others", f"{target} also served {where}", hint="restore it there from its source")
