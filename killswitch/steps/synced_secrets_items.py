"""What the synced-secrets step makes of what it saw: what is live, what has ended, what to say."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from killswitch.errors import RefusedError, VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt
from killswitch.steps import synced_secrets_notes as say
from killswitch.steps.synced_secrets_answers import Seen
from killswitch.steps.synced_secrets_port import (
    LOCK,
    MAKER_OF,
    PARENTS,
    PUSHES,
    SYNCS,
    Found,
    Latch,
    Lock,
    Parent,
    SecretsCluster,
    SecretWrites,
    Synced,
)

CLUSTER: Final = "all namespaces"
"""Where cluster-wide objects stand in a target: no namespace can have this name."""
ABSENT: Final = "External Secrets is not installed"
UNSEEN: Final = "not seen (403); no object of theirs in the namespaces"
LATCH, MAKERS, PUSH, SYNC, SECRETS, SWEEP = 1, 2, 3, 4, 5, 6
_DOES: Final = {PUSHES: "pushes", SYNCS: "syncs"} | dict.fromkeys(PARENTS, "makes one")
_PHASE: Final = {PUSHES: PUSH, SYNCS: SYNC} | dict.fromkeys(PARENTS, MAKERS)
Item: TypeAlias = Action | Blind | Clear | Note
Looks: TypeAlias = Iterator[tuple[str, list[Item] | VendorError]]
"""Parts of the system, and what was seen of each."""


def plan_of(looks: Looks) -> Plan:
    """Return what was seen as a plan; raises VendorError when nothing was."""
    found: list[Item] = []
    errors: list[VendorError] = []
    for part, answer in looks:
        if isinstance(answer, VendorError):
            errors.append(answer)
            found.append(Blind(part, answer.problem, answer.lasting))
        else:
            found += answer
    if errors and len(errors) == len(found):
        raise min(errors, key=lambda error: error.lasting)
    return Plan(
        live=tuple(item for item in found if isinstance(item, Action)),
        blind=tuple(item for item in found if isinstance(item, Blind)),
        clear=tuple(item for item in found if isinstance(item, Clear)),
        notes=tuple(item for item in found if isinstance(item, Note)),
    )


def silence(answers: Sequence[object]) -> VendorError | None:
    """Return why nothing at all answered: each further question would wait in vain, too."""
    errors = [answer for answer in answers if isinstance(answer, VendorError)]
    silent = len(errors) == len(answers) and not any(error.lasting for error in errors)
    return errors[0] if silent else None


def live(found: Sequence[Item]) -> bool:
    """Return whether any of it is live."""
    return any(isinstance(item, Action) for item in found)


def quota(
    cluster: SecretsCluster, namespace: str, latch: Latch, there: Iterable[str], makers: set[str]
) -> list[Item]:
    """Judge the quota, which must name each Secret that is `there` before what made it goes.

    And each of `makers`, "resource/name", before its child goes.
    """
    target = f"{namespace}/quota"
    known = cluster.seen(namespace) | cluster.discovered(namespace).keys()
    unwritten = (known.intersection(there) - latch.names) | (makers - latch.makers)
    if latch.lock is Lock.IN_FORCE and not unwritten:
        return [Clear(target, f"{LOCK} allows no Secret, and is in force"), say.latch(namespace)]
    # What is stored but not yet in force is waited for; it must not hold up the deletes.
    phase = SWEEP if latch.lock is Lock.PENDING and not unwritten else LATCH
    both = _both(cluster, lambda to: to.lock(namespace))
    return [Action("contain", target, *both, phase=phase, reversible=True)]


def synced(
    cluster: SecretsCluster,
    namespace: str,
    resource: str,
    listed: Sequence[Synced] | None,
    seen: Seen,
) -> list[Item]:
    """Judge the ExternalSecrets or PushSecrets of a namespace, after its Secrets."""
    if listed is None:
        return [Clear(f"{namespace}/{resource}", ABSENT)]
    found: list[Item] = []
    for one in listed:
        target = f"{namespace}/{resource}/{one.name}"
        why = held_back(cluster, (namespace, resource), one, seen.latches[namespace])
        found += _object(cluster, target, one.ending_s, withheld=why)
        if one.beyond:
            found.append(say.beyond(target, one.beyond))
    # An empty list looks the same in a namespace that is not there: it may be a typo.
    exists = seen.inhabited(namespace) or bool(cluster.seen(namespace))
    return found + _none_left(f"{namespace}/{resource}", found, exists=exists)


def held_back(
    cluster: SecretsCluster, place: tuple[str, str], one: Synced, latch: Latch | VendorError
) -> str:
    """Say why an object waits: without it, only the quota tells the next run what it named.

    `place` is its namespace and resource.
    """
    namespace, resource = place
    if isinstance(latch, VendorError):
        noted, never = False, latch.lasting
    else:
        names = cluster.discovered(namespace).keys() & one.secrets
        noted = names <= latch.names and latch.makers >= made_by(resource, one)
        never = cluster.lock_refused(namespace)
    return "" if noted or never else "waits until what it names is noted beside the quota"


def made_by(resource: str, one: Synced) -> set[str]:
    """Return the cluster-wide object that makes `one`, as "resource/name", or nothing."""
    return {f"{MAKER_OF[resource]}/{one.parent}"} if one.parent else set()


def unlisted_parents(
    resource: str, error: VendorError, known: Iterable[str]
) -> Iterator[tuple[str, list[Item] | VendorError]]:
    """Judge cluster-wide objects that cannot be listed; `known` made something at some time."""
    target = f"{CLUSTER}/{resource}"
    if error.lasting and not known:
        # Who may not list them need not.
        yield target, [Clear(target, UNSEEN)]
        return
    yield target, error
    for name in sorted(known):
        yield f"{target}/{name}", error


def parents(
    cluster: SecretsCluster,
    resource: str,
    listed: Sequence[Parent] | None,
    seen: Seen,
) -> list[Item]:
    """Judge the cluster-wide objects by whether they serve our namespaces; None: not installed."""
    if listed is None:
        return [Clear(f"{CLUSTER}/{resource}", ABSENT)]
    ours, makers = seen.latches.keys(), cluster.makers(resource)
    found: list[Item] = []
    for one in listed:
        target = f"{CLUSTER}/{resource}/{one.name}"
        if one.name in makers or ours & one.namespaces:
            why = _made_waits(cluster, resource, one.name, seen)
            found += _object(cluster, target, one.ending_s, withheld=why)
            if elsewhere := one.namespaces - ours:
                found.append(say.others(target, elsewhere))
    return found + _none_left(f"{CLUSTER}/{resource}", found, exists=True)


def _made_waits(cluster: SecretsCluster, resource: str, parent: str, seen: Seen) -> str:
    """Say why a cluster-wide object waits: what it made goes with it, and takes the names along."""
    for (namespace, kind), listed in seen.lists.items():
        if MAKER_OF[kind] != resource:
            continue
        if isinstance(listed, VendorError):
            if not listed.lasting:
                return f"waits until the {kind} in {namespace} are seen"
            continue
        for one in listed or ():
            why = held_back(cluster, (namespace, kind), one, seen.latches[namespace])
            if one.parent == parent and why:
                return why
    return ""


@dataclass(frozen=True, slots=True)
class Why:
    """Why a Secret is looked at: what named it, the store that logs in with it, if it is listed."""

    through: str
    login: str
    listed: bool


def secret(cluster: SecretsCluster, path: str, found: Found | None, why: Why) -> list[Item]:
    """Judge one Secret, "namespace/name"."""
    namespace, _, name = path.partition("/")
    target = f"{namespace}/secrets/{name}"
    notes: list[Item] = [say.COPIES]
    if not why.listed:
        notes.append(say.unlisted(f"Secret {path}", why.through))
    if found is None:
        gone = "gone: its deletion answers 404"
        return [Clear(target, gone, only_if_known=not why.through), *notes]
    if found.finalizers:
        notes.append(say.held(f"Secret {path}", found.finalizers))
    # Whoever may create a store could exempt a bot's Secret: it stays live, and is said.
    remedy = (
        "delete it, or that store, by hand" if why.through else "take it off the list of secrets"
    )
    withheld = f"{why.login} logs in with it: {remedy}" if why.login else ""
    perform, rehearse = _both(cluster, lambda to: to.delete_secret(namespace, name))
    if withheld:
        rehearse = partial(_refuse, withheld)
    return [Action("delete", target, perform, rehearse, SECRETS, withheld=withheld), *notes]


def left(namespace: str, logins: Mapping[str, str], names: Iterable[str]) -> list[Item]:
    """Say which Secrets are no targets: a store logs in with them, and nothing writes them."""
    alone = sorted(logins.keys() - names)
    return [say.login(f"Secret {namespace}/{name}", logins[name]) for name in alone]


def _object(
    cluster: SecretsCluster, target: str, ending_s: float | None, *, withheld: str
) -> list[Item]:
    place, resource, name = target.split("/")
    if ending_s is None:
        namespace = "" if place == CLUSTER else place
        both = _both(cluster, lambda to: to.delete(resource, name, namespace))
        return [Action("delete", target, *both, phase=_PHASE[resource], withheld=withheld)]
    does = _DOES[resource]
    found: list[Item] = [Clear(target, f"deletion asked, its finalizer holds it; {does} no more")]
    return [*found, say.hangs(target, does)] if ending_s >= say.OVERDUE_S else found


def _none_left(target: str, found: Sequence[Item], *, exists: bool) -> list[Item]:
    if live(found):
        return []
    ending = sum(isinstance(item, Clear) for item in found)
    saw = f"{ending} wait for their finalizers" if ending else "none is left"
    return [Clear(target, saw, only_if_known=not exists)]


def _refuse(why: str) -> Receipt:
    raise RefusedError(why)


def _both(
    cluster: SecretsCluster, change: Callable[[SecretWrites], Receipt]
) -> tuple[Callable[[], Receipt], Callable[[], Receipt]]:
    return lambda: change(cluster.writes), lambda: change(cluster.rehearsal)
