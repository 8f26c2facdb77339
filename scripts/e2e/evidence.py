"""The proof of a halt, taken out of the journal and checked by programs that are not ours."""

import base64
import hashlib
import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from fido2 import cbor
from runs import WrongError, answer

# SubjectPublicKeyInfo of an uncompressed P-256 point (RFC 5480), up to the point itself.
_SPKI_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
_ORDER_DOMAIN = b"killswitch/order/v1\n"
_EXTENSIONS = 0x80


@dataclass(frozen=True)
class Evidence:
    """What a stranger needs in order to check one halt."""

    order: bytes
    rp_id: str
    client_data: bytes
    authenticator_data: bytes
    signature: bytes
    public_key: str

    def demand_challenge(self) -> None:
        """Demand that the key signed this very order."""
        challenge = json.loads(self.client_data)["challenge"]
        if _bytes(challenge) != hashlib.sha256(_ORDER_DOMAIN + self.order).digest():
            raise WrongError("the challenge is not the order's digest")

    def check_with_openssl(self, folder: Path, *, code: int = 0) -> str:
        """Let `openssl dgst -verify` check the signature."""
        (folder / "key.pem").write_text(self.public_key)
        (folder / "signature").write_bytes(self.signature)
        (folder / "message").write_bytes(
            self.authenticator_data + hashlib.sha256(self.client_data).digest()
        )
        words: list[str | Path] = ["openssl", "dgst", "-sha256", "-verify", folder / "key.pem"]
        return answer([*words, "-signature", folder / "signature", folder / "message"], code=code)

    def check_with_libfido2(self, folder: Path, *, code: int = 0) -> str:
        """Let `fido2-assert -V` check the whole assertion, with the touch."""
        (folder / "key.pem").write_text(self.public_key)
        lines = (
            _base64(hashlib.sha256(self.client_data).digest()),
            self.rp_id,
            _base64(cbor.encode(self.authenticator_data)),
            _base64(self.signature),
        )
        (folder / "assertion").write_text("\n".join(lines) + "\n")
        extended = ["-h"] if self.authenticator_data[32] & _EXTENSIONS else []
        words: list[str | Path] = [
            "fido2-assert",
            "-V",
            "-p",
            *extended,
            "-i",
            folder / "assertion",
        ]
        return answer([*words, folder / "key.pem", "es256"], code=code)


def of_last_halt(journal: Path, ring: Path) -> Evidence:
    """Read the newest halt's order and proof, and the public key of whoever signed it."""
    with sqlite3.connect(journal) as connection:
        bodies = [json.loads(raw) for (raw,) in connection.execute("SELECT body FROM events")]
    ordered = [body for body in bodies if body["type"] == "halt.ordered"]
    if not ordered:
        raise WrongError("no halt.ordered event in the journal")
    data = ordered[-1]["data"]
    proof = data["proof"]
    keys = json.loads(ring.read_bytes())["keys"]
    key = next(key for key in keys if key["label"] == proof["key_label"])
    return Evidence(
        order=data["order"].encode(),
        rp_id=key["rp_id"],
        client_data=_bytes(proof["client_data_json"]),
        authenticator_data=_bytes(proof["authenticator_data"]),
        signature=_bytes(proof["signature"]),
        public_key=_pem(base64.b64decode(key["credential"])),
    )


def _pem(credential: bytes) -> str:
    length = int.from_bytes(credential[16:18], "big")
    cose, _ = cbor.decode_from(credential[18 + length :])
    point = b"\x04" + cose[-2] + cose[-3]
    body = base64.encodebytes(_SPKI_HEAD + point).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


def _bytes(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
