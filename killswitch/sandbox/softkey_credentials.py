"""The software key's credentials: each id carries its own private key, wrapped by the master."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from fido2.cose import ES256

_NONCE_BYTES: Final = 12
_SCALAR_BYTES: Final = 32
_RESIDENT: Final = 0x80

Chain = tuple[ec.EllipticCurvePrivateKey, Sequence[bytes]]
"""The private key of an attestation certificate, and the chain from it upwards in DER."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of this key; `protection` is the level of credProtect (section 12.1)."""

    id: bytes
    scalar: bytes = field(repr=False)
    resident: bool = False
    protection: int = 1

    @property
    def private(self) -> ec.EllipticCurvePrivateKey:
        """The private key of the credential."""
        return ec.derive_private_key(int.from_bytes(self.scalar, "big"), ec.SECP256R1())

    @property
    def public_key(self) -> ES256:
        """The public key, as COSE writes it."""
        public: ES256 = ES256.from_cryptography_key(self.private.public_key())  # type: ignore[no-untyped-call]  # upstream's
        return public

    def sign(self, message: bytes) -> bytes:
        """Sign with ECDSA over SHA-256."""
        return self.private.sign(message, ec.ECDSA(hashes.SHA256()))

    def random(self, *, uv: bool) -> bytes:
        """Return CredRandomWithUV or CredRandomWithoutUV of hmac-secret (section 12.5)."""
        info = b"CredRandomWithUV" if uv else b"CredRandomWithoutUV"
        return HKDF(hashes.SHA256(), 32, salt=None, info=info).derive(self.scalar)


def make(master: bytes, rp_id: str, *, resident: bool = False, protection: int = 1) -> Credential:
    """Make a new credential for one relying party."""
    private = ec.generate_private_key(ec.SECP256R1())
    scalar = private.private_numbers().private_value.to_bytes(_SCALAR_BYTES, "big")
    nonce = os.urandom(_NONCE_BYTES)
    flags = bytes([protection | (_RESIDENT if resident else 0)])
    wrapped = AESGCM(master).encrypt(nonce, scalar + flags, _rp_hash(rp_id))
    return Credential(nonce + wrapped, scalar, resident=resident, protection=protection)


def recognise(master: bytes, rp_id: str, credential_id: bytes) -> Credential | None:
    """Return the credential of an id, or None if this key did not make it for `rp_id`."""
    nonce, wrapped = credential_id[:_NONCE_BYTES], credential_id[_NONCE_BYTES:]
    try:
        opened = AESGCM(master).decrypt(nonce, wrapped, _rp_hash(rp_id))
    except (InvalidTag, ValueError):
        return None
    scalar, flags = opened[:_SCALAR_BYTES], (opened[_SCALAR_BYTES:] or b"\x01")[0]
    return Credential(
        credential_id, scalar, resident=bool(flags & _RESIDENT), protection=flags & ~_RESIDENT
    )


def attest(credential: Credential, signed: bytes, chain: Chain | None) -> dict[str, object]:
    """Return a packed statement: by the chain's key, or by the credential itself."""
    if chain is None:
        return {"alg": ES256.ALGORITHM, "sig": credential.sign(signed)}
    private, certificates = chain
    signature = private.sign(signed, ec.ECDSA(hashes.SHA256()))
    return {"alg": ES256.ALGORITHM, "sig": signature, "x5c": list(certificates)}


def _rp_hash(rp_id: str) -> bytes:
    return sha256(rp_id.encode()).digest()
