"""A change of who may halt, as the order that a touch signs; and the ring, by the journal."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

import msgspec
import rfc8785

from killswitch.authority.recovery import RecoveryRecord
from killswitch.authority.ring import EnrolledKey, KeyRing

_RESTORE: Final = "killswitch keys restore takes the ring from the journal; and ask who wrote to it"


def enrolment_scope(key: EnrolledKey) -> tuple[str, ...]:
    """Return the scope of the order that admits `key`: for people, and to the bit."""
    return (
        f'enrol key "{key.label}" of {key.operator}, may {may(key)}',
        f"key record sha256 {fingerprint(key)}",
    )


def removal_scope(key: EnrolledKey) -> tuple[str, ...]:
    """Return the scope of the order that removes `key`."""
    return (
        f'remove key "{key.label}" of {key.operator}',
        f"key record sha256 {fingerprint(key)}",
    )


def adoption_scope(keys: Sequence[EnrolledKey], recovery: RecoveryRecord | None) -> tuple[str, ...]:
    """Return the scope of the order that begins a journal with keys enrolled elsewhere."""
    return (
        *(f'adopt key "{key.label}" of {key.operator}, may {may(key)}' for key in keys),
        *(f"key record sha256 {fingerprint(key)}" for key in keys),
        *((f"recovery recipient x25519 {recovery.recipient.public_key}",) if recovery else ()),
    )


def recovery_scope(record: RecoveryRecord) -> tuple[str, ...]:
    """Return the scope of the order that makes a recovery phrase the one that counts."""
    return (
        "set the recovery phrase: it opens the sealed secrets and admits keys",
        f"recovery recipient x25519 {record.recipient.public_key}",
        f"recovery verifying key ed25519 {record.verifying_key}",
    )


def reseal_scope(data: Mapping[str, object]) -> tuple[str, ...]:
    """Return the scope of the order to seal all anew; `data` has names and recipients (ids)."""
    names, recipients = _words(data.get("names")), _words(data.get("recipients"))
    digest = hashlib.sha256(rfc8785.dumps(sorted(recipients))).hexdigest()
    return (f"seal {len(names)} secrets anew", f"recipients sha256 {digest}")


def may(key: EnrolledKey) -> str:
    """Say what a key's role allows."""
    return "halt and release" if key.role == "both" else key.role


def covers(role: str, other: str) -> bool:
    """Whether a key of `role` may give away, or take away, what `other` allows."""
    return role in {"both", other}


def fingerprint(key: EnrolledKey) -> str:
    """Return the hex SHA-256 over all of an enrolment (RFC 8785) but its counter, which grows."""
    fields = msgspec.to_builtins(key)
    del fields["counter"]
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


class Trouble(NamedTuple):
    """What is wrong, and what to do about it."""

    problem: str
    mend: str


def ring_trouble(
    ring: KeyRing, journal: Iterable[EnrolledKey], recovery: RecoveryRecord | None
) -> Trouble | None:
    """Return how a ring differs from what the journal admitted, or None."""
    told = {key.credential_id: fingerprint(key) for key in journal}
    if ring.keys and not told:
        return Trouble("the journal has admitted none of the keys", "killswitch keys adopt")
    for key in ring.keys:
        if key.credential_id not in told:
            why = "stands in the key ring, but the journal admitted no such key"
            return Trouble(f'"{key.label}" {why}', _RESTORE)
        if told[key.credential_id] != fingerprint(key):
            why = "is not as the journal says that it was enrolled"
            return Trouble(f'"{key.label}" {why}', _RESTORE)
    if (recovery.recipient if recovery else None) != ring.recovery:
        why = (
            "the key ring lacks the recovery phrase that the journal tells of"
            if ring.recovery is None
            else "the recovery phrase in the key ring is not the one that the journal knows"
        )
        return Trouble(why, _RESTORE)
    return None


def admitted(ring: KeyRing, journal: Sequence[EnrolledKey]) -> KeyRing:
    """Return the keys of `ring` that the journal admitted and did not remove, as it knows them.

    What was altered in the ring is for `ring_trouble` to tell, and no reason not to halt. A journal
    that tells of no key has nothing to say.
    """
    if not journal:
        return ring
    counters = {key.credential: key.counter for key in ring.keys}
    keys = tuple(
        replace(key, counter=max(key.counter, counters[key.credential]))
        for key in journal
        if key.credential in counters
    )
    return replace(ring, keys=keys)


def _words(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else []
