"""Attestation: who vouches for a security key's make and model, and whether that is enough."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from killswitch.authority.ring import UNCHANGED
from killswitch.errors import ConfigError, NotAuthorizedError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from fido2.webauthn import AttestationObject

_FORMAT: Final = "packed"
"""The one format whose signature covers the AAGUID too; older U2F statements leave it open."""

_LONGEST_CHAIN: Final = 6
_HINT: Final = "use a key of a maker whose root certificate is configured"


class Level(StrEnum):
    """How much a key has to prove of its make before it is enrolled."""

    ANY = "any"
    ATTESTED = "attested"
    AAGUID_LIST = "aaguid-list"


@dataclass(frozen=True, slots=True)
class AttestationPolicy:
    """Which keys may be enrolled.

    `roots` are the contents of PEM files, with one certificate or several in each. `aaguids` are
    makes and models as 32 hex digits, with or without dashes; they count with `AAGUID_LIST` only,
    and there only for a key that is attested: by itself an AAGUID is what anybody may claim.

    Raises ConfigError when it could never be met.
    """

    level: Level = Level.ANY
    roots: tuple[bytes, ...] = ()
    aaguids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.level is not Level.ANY and not self.roots:
            raise _unusable(f'the policy "{self.level}" needs a root certificate')
        if self.level is Level.AAGUID_LIST and not self.aaguids:
            raise _unusable(f'the policy "{self.level}" needs the AAGUIDs it allows')
        for aaguid in self.aaguids:
            if len(_digits(aaguid)) != 32 or set(_digits(aaguid)) - set("0123456789abcdef"):  # noqa: PLR2004 (a UUID)
                raise _unusable(f"{aaguid!r} is no AAGUID")

    def anchors(self) -> "tuple[Certificate, ...]":
        """Return the root certificates; raises ConfigError when one cannot be read."""
        from cryptography.x509 import load_pem_x509_certificates  # noqa: PLC0415 (slow)

        try:
            return tuple(one for pem in self.roots for one in load_pem_x509_certificates(pem))
        except ValueError as error:
            raise _unusable("a root certificate is not PEM") from error

    def judge(
        self, statement: "AttestationObject", client_data_hash: bytes, *, now: datetime
    ) -> str:
        """Return what vouches for this new credential: "none", "self" or "attested".

        Only a chain to a configured root is "attested": anybody can make any other. Raises
        NotAuthorizedError when that is less than the policy asks for, or when it is a lie.
        """
        path = _signed_by(statement, client_data_hash)
        if path is None or (path and statement.fmt != _FORMAT):
            found, why = "none", "the key shows no attestation"
        elif not path:
            found, why = "self", "the key vouches for itself only"
        else:
            why = _broken(path, self.anchors(), now)
            found = "none" if why else "attested"
        if self.level is not Level.ANY and found != "attested":
            raise _refused(f"{why}, and the policy is {self.level}", _HINT)
        if self.level is Level.AAGUID_LIST:
            self._check_listed(statement)
        return found

    def _check_listed(self, statement: "AttestationObject") -> None:
        credential = statement.auth_data.credential_data
        aaguid = bytes(credential.aaguid).hex() if credential else ""
        if aaguid not in map(_digits, self.aaguids):
            raise _refused(
                f"the key's make and model, AAGUID {aaguid}, is not on the list",
                "use a listed model, or add this one to the configuration",
            )


def _signed_by(
    statement: "AttestationObject", client_data_hash: bytes
) -> "tuple[Certificate, ...] | None":
    """Return the certificates that vouch, leaf first: none for a self attestation.

    None stands for no attestation at all. Raises NotAuthorizedError for one that does not hold.
    """
    import fido2.attestation  # noqa: F401, PLC0415 (slow; it makes the formats known)
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415 (slow)
    from fido2.attestation.base import (  # noqa: PLC0415 (slow)
        Attestation,
        AttestationType,
        UnsupportedType,
    )

    try:
        kind = Attestation.for_type(statement.fmt)()
        result = kind.verify(statement.att_stmt, statement.auth_data, client_data_hash)
        path = tuple(map(load_der_x509_certificate, result.trust_path))
    except UnsupportedType:
        return None
    # Whatever a parser throws at bytes that nobody vouched for means the same: it does not hold.
    except Exception as error:
        raise _refused(
            f"the key's attestation does not hold: {str(error) or type(error).__name__}",
            "do not use this key",
        ) from error
    # The type decides, not the length of the path: a chain of nothing proves nothing.
    if result.attestation_type == AttestationType.SELF:
        return ()
    return path or None


def _broken(path: "Sequence[Certificate]", roots: "Sequence[Certificate]", now: datetime) -> str:
    """Return why `path` leads to none of `roots`, or "" when it does."""
    from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415 (slow)

    if len(path) > _LONGEST_CHAIN:
        return "the key's chain of certificates is too long"
    whole = [*path]
    if path[-1] not in roots:
        above = [root for root in roots if _issued(path[-1], root, below=len(path) - 1)]
        if not above:
            return "the key's chain of certificates leads to no configured root"
        whole.append(above[0])
    for below, (child, issuer) in enumerate(itertools.pairwise(path)):
        if not _issued(child, issuer, below=below):
            return "the key's chain of certificates is broken"
    for one in whole:
        if not one.not_valid_before_utc <= now <= one.not_valid_after_utc:
            return f"a certificate of the key is not valid today: {one.subject.rfc4514_string()}"
    # The same certificate twice would be a loop, whatever its signatures say.
    if len({one.public_bytes(Encoding.DER) for one in whole}) < len(whole):
        return "the key's chain of certificates is broken"
    return ""


def _issued(child: "Certificate", issuer: "Certificate", *, below: int) -> bool:
    """Whether `issuer` signed `child`, and may sign with `below` CAs between it and the leaf."""
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm  # noqa: PLC0415

    try:
        if not _may_sign(issuer, below):
            return False
        child.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _may_sign(issuer: "Certificate", below: int) -> bool:
    from cryptography import x509  # noqa: PLC0415 (slow)

    try:
        limits = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
    except x509.ExtensionNotFound:
        return False
    if not limits.ca or (limits.path_length is not None and limits.path_length < below):
        return False
    try:
        return issuer.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign
    except x509.ExtensionNotFound:
        return True


def _digits(aaguid: str) -> str:
    return aaguid.replace("-", "").lower()


def _unusable(problem: str) -> ConfigError:
    return ConfigError(problem, effect=UNCHANGED, hint="mend the policy in the configuration")


def _refused(problem: str, hint: str) -> NotAuthorizedError:
    return NotAuthorizedError(problem, effect=UNCHANGED, hint=hint)
