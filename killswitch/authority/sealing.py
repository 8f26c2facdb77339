"""Sealing: whoever knows a recipient's public key can seal to it, only its identity can open.

HPKE (RFC 9180, base mode): DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM. What is sealed is
the 32 bytes of the encapsulated key, then the ciphertext with its tag of 16 bytes.
"""

import base64
import binascii
import hashlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from killswitch.secret import Secret

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.hpke import Suite

PRF_SALT: Final = b"killswitch/prf/v1"
"""What goes into WebAuthn's PRF as `eval.first`: one salt for all, for halt and drill alike."""

OVERHEAD_BYTES: Final = 32 + 16
"""How much longer the sealed form is than the plaintext."""

PAD_BYTES: Final = 64
"""A secret is padded to a multiple of this, so that its sealed length tells little."""

LONGEST_SECRET_BYTES: Final = 64 * 1024

_PAD_START: Final = b"\x80"
_IDENTITY_INFO: Final = b"killswitch/identity/v1\n"
_KEY_BYTES: Final = 32
_ID_DIGITS: Final = 16


class SealError(Exception):
    """Something could not be sealed or opened.

    Args:
        problem: what is wrong, one line, lower case, without any secret.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a secret can be sealed to; nothing of it is secret.

    `public_key` is X25519's 32 bytes as 64 hex digits. `uv` is True when the identity comes from
    the output that the security key gives after verifying its user (PIN or fingerprint): a key has
    two outputs, and which one it gives follows its settings. Raises ValueError for another shape.
    """

    public_key: str
    uv: bool

    def __post_init__(self) -> None:
        digits = self.public_key
        if len(digits) != 2 * _KEY_BYTES or not set(digits) <= set("0123456789abcdef"):
            raise ValueError("a recipient's public key is not 64 hex digits")

    @property
    def id(self) -> str:
        """The first 16 hex digits of the public key's SHA-256."""
        return hashlib.sha256(bytes.fromhex(self.public_key)).hexdigest()[:_ID_DIGITS]


class Identity:
    """The private half of a recipient: it lives in memory only and shows nothing of itself."""

    __slots__ = ("_private", "recipient")

    _private: "X25519PrivateKey"
    recipient: Recipient

    @classmethod
    def from_prf(cls, output: bytes, *, credential_id: bytes, uv: bool) -> "Identity":
        """Return the identity that a security key's PRF output stands for; raises SealError.

        `output` is `prf.results.first`, 32 bytes. `uv` is the flag of the same assertion.
        """
        if len(output) != _KEY_BYTES:
            raise SealError(f"the key's PRF output has {len(output)} bytes, not {_KEY_BYTES}")
        return cls.derived(output, info=_IDENTITY_INFO + credential_id + bytes([uv]), uv=uv)

    @classmethod
    def derived(cls, material: bytes, *, info: bytes, uv: bool) -> "Identity":
        """Return the identity whose X25519 key is HKDF-SHA256 of `material`, for one use `info`."""
        from cryptography.hazmat.primitives.asymmetric.x25519 import (  # noqa: PLC0415 (slow)
            X25519PrivateKey,
        )
        from cryptography.hazmat.primitives.hashes import SHA256  # noqa: PLC0415 (slow)
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415 (slow)

        seed = HKDF(SHA256(), _KEY_BYTES, salt=None, info=info).derive(material)
        identity = cls()
        identity._private = X25519PrivateKey.from_private_bytes(seed)
        public = identity._private.public_key().public_bytes_raw()
        identity.recipient = Recipient(public.hex(), uv=uv)
        return identity

    def open(self, sealed: bytes, *, info: bytes) -> bytes:
        """Return what was sealed to this identity under the same `info`; raises SealError."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 (slow)

        if len(sealed) < OVERHEAD_BYTES:
            raise SealError("it is cut off")
        try:
            return _suite().decrypt(sealed, self._private, info=info)
        except (InvalidTag, ValueError):
            text = "it was altered, or sealed to another key or under another name"
            raise SealError(text) from None

    def __repr__(self) -> str:
        return f"Identity({self.recipient.id}, uv={self.recipient.uv})"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an identity is never pickled")


def seal(plaintext: bytes, recipient: Recipient, *, info: bytes) -> bytes:
    """Return `plaintext` sealed so that only the recipient's identity opens it, with this `info`.

    Raises SealError when the public key is none that anybody could have.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import (  # noqa: PLC0415 (slow)
        X25519PublicKey,
    )

    public = X25519PublicKey.from_public_bytes(bytes.fromhex(recipient.public_key))
    try:
        return _suite().encrypt(plaintext, public, info=info)
    except ValueError:
        # A point of low order: the shared key would be known to everybody.
        raise SealError(f"recipient {recipient.id} has no usable public key") from None


def seal_secret(secret: Secret, recipient: Recipient, *, info: bytes) -> str:
    """Return exactly this value, padded and sealed, as base64; raises SealError."""
    padded = _padded(secret.reveal())
    return base64.b64encode(seal(padded, recipient, info=info)).decode()


def open_secret(sealed: str, identity: Identity, *, info: bytes) -> Secret:
    """Return what `seal_secret` sealed to this identity; raises SealError."""
    try:
        raw = base64.b64decode(sealed, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if base64.b64encode(raw).decode() != sealed:
        raise SealError("it is not base64")
    if len(raw) <= OVERHEAD_BYTES or (len(raw) - OVERHEAD_BYTES) % PAD_BYTES:
        raise SealError("it is cut off")
    return _unpadded(identity.open(raw, info=info))


def _padded(text: str) -> bytes:
    # ISO/IEC 7816-4: one byte 0x80, then zeros; so at least one byte, and never ambiguous.
    value = text.encode(errors="replace")
    if value.decode() != text:
        # Encoding it strictly would put the whole value into the error.
        raise SealError("it is not text")
    if not value:
        raise SealError("it is empty")
    if len(value) > LONGEST_SECRET_BYTES:
        raise SealError(f"it is longer than {LONGEST_SECRET_BYTES} bytes")
    marked = value + _PAD_START
    return marked + bytes(-len(marked) % PAD_BYTES)


def _unpadded(padded: bytes) -> Secret:
    marked = padded.rstrip(b"\0")
    value = marked.removesuffix(_PAD_START)
    text = value.decode(errors="replace")
    # Decoding it strictly would put the whole value into the error.
    if len(value) == len(marked) or not value or text.encode() != value:
        raise SealError("what it holds was not sealed by killswitch")
    return Secret(text)


@cache
def _suite() -> "Suite":
    from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite  # noqa: PLC0415 (slow)

    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
