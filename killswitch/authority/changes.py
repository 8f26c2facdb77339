"""A change of who may halt, as the order that a touch signs."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import msgspec
import rfc8785

from killswitch.authority.ring import EnrolledKey, KeyRing


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


def may(key: EnrolledKey) -> str:
    """Say what a key's role allows."""
    return "halt and release" if key.role == "both" else key.role


def fingerprint(key: EnrolledKey) -> str:
    """Return the hex SHA-256 over all of an enrolment (RFC 8785) but its counter, which grows."""
    fields = msgspec.to_builtins(key)
    del fields["counter"]
    return hashlib.sha256(rfc8785.dumps(fields)).hexdigest()


def admitted(ring: KeyRing, journal: Sequence[EnrolledKey]) -> KeyRing:
    """Return `ring` without the keys that the journal did not admit, or that it removed.

    Only credentials are compared: an altered name is for `ring_trouble` to tell, and no reason not
    to halt. A journal that tells of no key has nothing to say.
    """
    if not journal:
        return ring
    known = {key.credential for key in journal}
    return replace(ring, keys=tuple(key for key in ring.keys if key.credential in known))


def ring_trouble(ring: Sequence[EnrolledKey], journal: Sequence[EnrolledKey]) -> str:
    """Return how a ring differs from the keys that the journal says are enrolled, or nothing.

    A journal that tells of no key has nothing to say: the keys were enrolled elsewhere.
    """
    if not journal:
        return ""
    told = {key.credential_id: fingerprint(key) for key in journal}
    for key in ring:
        if key.credential_id not in told:
            return f'"{key.label}" stands in the key ring, but the journal admitted no such key'
        if told[key.credential_id] != fingerprint(key):
            return f'"{key.label}" is not as the journal says that it was enrolled'
    return ""
