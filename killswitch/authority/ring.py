"""The key ring: which security keys may authorise an order, in one small private file."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec

from killswitch.authority.files import locked, read_guarded, write_private
from killswitch.authority.sealing import Recipient
from killswitch.errors import ConfigError, UsageError

__all__ = [
    "ROLES",
    "SANDBOX_AAGUID",
    "SANDBOX_RP_ID",
    "SCHEMA",
    "UNCHANGED",
    "EnrolledKey",
    "KeyRing",
    "locked",
    "read_guarded",
    "update",
    "write_private",
]

SANDBOX_RP_ID: Final = "sandbox.killswitch.localhost"
SANDBOX_AAGUID: Final = b"killswitch-sandb"
"""The make and model that the sandbox's software key claims: nobody's product."""

SCHEMA: Final = 1
UNCHANGED: Final = "the key ring is unchanged"
ROLES: Final = ("halt", "release", "both")
_ATTESTATIONS: Final = ("none", "self", "attested")
_ROLES_FOR: Final = {
    "live": ("halt", "both"),
    "drill": ("halt", "both"),
    "release": ("release", "both"),
    "keys": ROLES,
    "look": ROLES,
}
"""Which roles may authorise an order of this mode."""

_LONGEST_NAME: Final = 40
# AttestedCredentialData: AAGUID, two bytes of length, credential id, COSE key (WebAuthn 6.5.1).
_AAGUID_END: Final = 16
_LENGTH_END: Final = 18


@dataclass(frozen=True, slots=True)
class EnrolledKey:
    """One security key, and whose it is.

    `credential` is WebAuthn's AttestedCredentialData, as bytes: AAGUID, credential id and public
    key. `counter` is the highest signature counter seen. `enrolled_at` is RFC 3339 UTC. `role`
    is one of `ROLES`. `recipients` is what secrets are sealed to so that this key opens them.
    `attestation` says who vouched for its make and model: "none", "self" or "attested".
    """

    label: str
    operator: str
    rp_id: str
    credential: bytes
    aaguid: str
    counter: int
    enrolled_at: str
    role: str = "halt"
    recipients: tuple[Recipient, ...] = ()
    attestation: str = "none"

    def may(self, mode: str) -> bool:
        """Whether this key's role allows an order of `mode`; an unknown mode is never allowed."""
        return self.role in _ROLES_FOR.get(mode, ())

    @property
    def credential_id(self) -> bytes:
        """The id that the key knows this credential by."""
        length = int.from_bytes(self.credential[_AAGUID_END:_LENGTH_END], "big")
        return self.credential[_LENGTH_END : _LENGTH_END + length]

    @property
    def public_key(self) -> str:
        """The public key as PEM, as `openssl dgst -verify` reads it; raises ValueError."""
        return _pem(self.credential)

    @property
    def sandbox(self) -> bool:
        """True for a software key: it never authorises anything outside the sandbox."""
        return self.rp_id == SANDBOX_RP_ID or self.credential[:_AAGUID_END] == SANDBOX_AAGUID


@dataclass(frozen=True, slots=True)
class KeyRing:
    """The enrolled keys, in the order of their enrolment, and the recipient kept on paper."""

    keys: tuple[EnrolledKey, ...] = ()
    recovery: Recipient | None = None

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read the ring at `path`; raises ConfigError when it cannot be trusted or understood."""
        try:
            raw = read_guarded(path, what="key ring")
        except FileNotFoundError:
            raise ConfigError(
                f"there is no key ring at {path}",
                hint="enrol a security key: killswitch keys enroll",
            ) from None
        return _parse(raw, path)

    def save(self, path: Path) -> None:
        """Replace the file at `path` in one step, readable by its owner only."""
        content = msgspec.json.encode(
            _File(schema=SCHEMA, keys=self.keys, recovery=self.recovery), order="deterministic"
        )
        write_private(path, msgspec.json.format(content) + b"\n")

    def find(self, credential_id: bytes) -> EnrolledKey | None:
        """Return the key that knows `credential_id`, if it is enrolled."""
        return next((key for key in self.keys if key.credential_id == credential_id), None)

    def add(self, key: EnrolledKey) -> "KeyRing":
        """Return the ring with `key`; raises UsageError for a label or credential it has."""
        self.check_new(key.label, key.operator, key.role)
        if self.find(key.credential_id):
            raise UsageError(
                "this security key is already enrolled", effect=UNCHANGED, hint="use another key"
            )
        self._check_recipients(key)
        return replace(self, keys=(*self.keys, key))

    def check_new(self, label: str, operator: str, role: str = "halt") -> None:
        """Raise UsageError unless a new key may have this label, operator and role."""
        for name in (label, operator):
            if not _is_name(name):
                raise UsageError(
                    f"{name!r} cannot name a key or its operator",
                    effect=UNCHANGED,
                    hint=f"use 1 to {_LONGEST_NAME} printable characters, no space at either end",
                )
        if role not in ROLES:
            raise UsageError(
                f'there is no role "{role}"',
                effect=UNCHANGED,
                hint=f"choose one of {', '.join(ROLES)}",
            )
        if any(key.label == label for key in self.keys):
            raise UsageError(
                f'a key with the label "{label}" is already enrolled',
                effect=UNCHANGED,
                hint=f"choose another label, or first: killswitch keys remove {label}",
            )

    def remove(self, label: str) -> "KeyRing":
        """Return the ring without the key of this label; raises UsageError when there is none."""
        left = tuple(key for key in self.keys if key.label != label)
        if len(left) == len(self.keys):
            raise UsageError(
                f'no key has the label "{label}"',
                effect=UNCHANGED,
                hint="see the labels: killswitch keys list",
            )
        return replace(self, keys=left)

    def recipients(self, *, uv_only: bool = False) -> tuple[Recipient, ...]:
        """Return what a secret is sealed to: every key's recipients, then the one on paper.

        With `uv_only` the keys open it with their PIN only; paper has none, so it always counts.
        """
        keys = (one for key in self.keys for one in key.recipients if one.uv or not uv_only)
        return (*keys, self.recovery) if self.recovery else tuple(keys)

    def with_counter(self, credential_id: bytes, counter: int) -> "KeyRing":
        """Return the ring with the counter of one key raised; it never goes down.

        A key whose counter once went backwards stays suspicious until it is enrolled anew.
        """
        return replace(
            self,
            keys=tuple(
                replace(key, counter=max(key.counter, counter))
                if key.credential_id == credential_id
                else key
                for key in self.keys
            ),
        )

    def _check_recipients(self, key: EnrolledKey) -> None:
        known = {one.public_key for one in self.recipients()}
        if any(one.public_key in known for one in key.recipients):
            raise UsageError(
                "another key opens the same secrets with the same recipient",
                effect=UNCHANGED,
                hint="use another key: no two real ones share a recipient",
            )


def update(path: Path, change: Callable[[KeyRing], KeyRing]) -> KeyRing:
    """Load, change and save the ring at `path` as one step between processes.

    A missing file counts as an empty ring. Returns the ring that was saved.
    """
    with locked(path):
        ring = change(KeyRing.load(path) if path.exists() else KeyRing())
        ring.save(path)
        return ring


@dataclass(frozen=True, slots=True)
class _File:
    schema: int
    keys: tuple[EnrolledKey, ...]
    recovery: Recipient | None = None


@dataclass(frozen=True, slots=True)
class _Header:
    schema: int


def _parse(raw: bytes, path: Path) -> KeyRing:
    hint = "restore the file from a copy, or enrol the keys anew: killswitch keys enroll"
    try:
        schema = msgspec.json.decode(raw, type=_Header).schema
        if schema != SCHEMA:
            raise ConfigError(
                f"the key ring {path} has schema {schema}, this killswitch reads {SCHEMA}",
                hint="use the version of killswitch that wrote it",
            )
        file = msgspec.json.decode(raw, type=_File)
        trouble = _unknown(msgspec.json.decode(raw), msgspec.to_builtins(file)) or _trouble(file)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"the key ring {path} is damaged: {error}", hint=hint) from None
    if trouble:
        raise ConfigError(f"the key ring {path} is damaged: {trouble}", hint=hint)
    return KeyRing(file.keys, file.recovery)


def _unknown(raw: object, known: object) -> str:
    """Name the first field of the file that nothing here reads: saving would lose it."""
    if isinstance(raw, dict) and isinstance(known, dict):
        lost = (f'it has an unknown field "{name}"' for name in raw if name not in known)
        inside = (_unknown(raw[name], known[name]) for name in raw if name in known)
        return next((found for found in (*lost, *inside) if found), "")
    if isinstance(raw, list) and isinstance(known, list | tuple):
        return next(filter(None, map(_unknown, raw, known)), "")
    return ""


def _trouble(file: _File) -> str:
    keys = file.keys
    for number, key in enumerate(keys, 1):
        if not (_is_name(key.label) and _is_name(key.operator)):
            return f"key {number} has no printable label and operator"
        if not key.credential_id or key.credential[:_AAGUID_END].hex() != key.aaguid:
            return f"key {number} has no whole credential"
        if key.role not in ROLES or key.attestation not in _ATTESTATIONS:
            return f"key {number} has an unknown role or attestation"
    recipients = KeyRing(keys, file.recovery).recipients()
    for what, number in (
        ("label", len({key.label for key in keys})),
        ("credential", len({key.credential_id for key in keys})),
    ):
        if number < len(keys):
            return f"two keys have the same {what}"
    if len({one.public_key for one in recipients}) < len(recipients):
        return "two keys have the same recipient"
    return ""


def _is_name(text: str) -> bool:
    # Names are shown on a terminal: an escape sequence in one could rewrite the screen.
    return 0 < len(text) <= _LONGEST_NAME and text.isprintable() and text == text.strip()


def _pem(credential: bytes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 (slow)
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415 (slow)
        Encoding,
        PublicFormat,
    )
    from fido2.cose import ES256  # noqa: PLC0415 (slow, and only this needs it)
    from fido2.webauthn import AttestedCredentialData  # noqa: PLC0415 (slow)

    cose = AttestedCredentialData(credential).public_key
    if not isinstance(cose, ES256):
        raise ValueError("the credential is not ES256")  # noqa: TRY004 (its value, not its type)
    x, y = (int.from_bytes(cose[coordinate], "big") for coordinate in (-2, -3))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
