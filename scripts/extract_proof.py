"""Takes one signed order out of a journal, in the formats that other programs verify.

It verifies nothing itself: docs/evidence.md has the commands that do. It needs Python 3.11 or
newer, no other package and no killswitch, so this one file can be copied anywhere.

    python3 extract_proof.py JOURNAL                 lists every order that a key signed
    python3 extract_proof.py JOURNAL ORDER FOLDER    writes one of them into a new folder

ORDER is the id of an order or of its event, or "halt" for the newest halt.
"""

import base64
import hashlib
import json
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

LARGEST_EVENT: Final = 16 << 20
LARGEST_FIELD: Final = 64 << 10
LONGEST_NAME: Final = 253  # of a host
MOST_EVENTS: Final = 1_000_000
USAGE: Final = "usage: extract_proof.py JOURNAL [ORDER FOLDER]"

# Authenticator data (WebAuthn 6.1): hash of the relying party's id, flags, counter, extensions.
FLAGS_AT: Final = 32
SHORTEST_DATA: Final = 37
USER_VERIFIED: Final = 0x04
HMAC_SECRET: Final = b"\x6bhmac-secret"  # as a key of the extensions' CBOR map
# An ES256 key in COSE, canonical CBOR (RFC 9053): its two coordinates stand where `..` is.
COSE: Final = (bytes.fromhex("a5010203262001215820"), bytes.fromhex("225820"))
COORDINATE: Final = 32
ONE_BYTE: Final = 255
# The same key as SubjectPublicKeyInfo in DER (RFC 5480), up to its coordinates.
SPKI: Final = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d03010703420004")


class NonsenseError(Exception):
    """The journal or the command line is not what it should be; the text says how."""


@dataclass(frozen=True, slots=True)
class Signed:
    """An event with an order and the touch on it, and the key enrolled for that touch then."""

    seq: int
    id: str
    type: str
    time: str
    order: str
    proof: dict[str, Any]
    key: dict[str, Any] | None
    key_seq: int

    @property
    def order_id(self) -> str:
        """The id that the order itself bears."""
        try:
            parsed = json.loads(self.order)
        except (ValueError, RecursionError):
            return ""
        return str(parsed.get("id", "")) if isinstance(parsed, dict) else ""


def main(arguments: list[str]) -> int:
    """List or extract; return the exit code."""
    try:
        match arguments:
            case [journal]:
                show(list(signed(Path(journal))))
            case [journal, order, folder]:
                extract(chosen(list(signed(Path(journal))), order), Path(folder))
            case _:
                print(USAGE, file=sys.stderr)
                return 2
    except (NonsenseError, sqlite3.Error, OSError) as error:
        print(plain(f"extract_proof: {error}"), file=sys.stderr)
        return 1
    return 0


def signed(journal: Path) -> Iterator[Signed]:
    """Yield every event of a journal that holds an order and a touch, oldest first."""
    enrolled: dict[bytes, tuple[int, dict[str, Any]]] = {}
    for seq, body in events(journal):
        data = body.get("data")
        data = data if isinstance(data, dict) else {}
        key, proof, order = data.get("key"), data.get("proof"), data.get("order")
        if body.get("type") == "key.enrolled" and isinstance(key, dict):
            enrolled[credential_id(key, seq)] = (seq, key)
        if isinstance(proof, dict) and isinstance(order, str):
            by = from_base64(proof.get("credential_id"), f"event {seq}: credential_id")
            key_seq, known = enrolled.get(by, (0, None))
            id_, type_, time = (str(body.get(name, "")) for name in ("id", "type", "time"))
            yield Signed(seq, id_, type_, time, order, proof, known, key_seq)
        if body.get("type") == "key.removed" and isinstance(key, dict):
            enrolled.pop(credential_id(key, seq), None)


def events(journal: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number and the parsed body of every event; the file is only read."""
    if not journal.is_file():
        raise NonsenseError(f"there is no file {journal}")
    with closing(sqlite3.connect(f"{journal.resolve().as_uri()}?mode=ro", uri=True)) as opened:
        rows = opened.execute("SELECT seq, body FROM events ORDER BY seq LIMIT ?", (MOST_EVENTS,))
        for seq, raw in rows:
            if not isinstance(raw, bytes) or len(raw) > LARGEST_EVENT:
                raise NonsenseError(f"event {seq} is no event: it is no bytes, or too many")
            try:
                body = json.loads(raw)
            except (ValueError, RecursionError):
                raise NonsenseError(f"event {seq} is not JSON") from None
            if not isinstance(body, dict):
                raise NonsenseError(f"event {seq} is not a JSON object")
            yield seq, body


def show(found: list[Signed]) -> None:
    """Print one line for each signed order."""
    for one in found:
        who = f'"{one.proof.get("key_label")}" of {one.proof.get("operator")}'
        print(plain(f"{one.seq:>6}  {one.time}  {one.id}  {one.type}  {who}"))
    print(f"{len(found)} signed orders")


def chosen(found: list[Signed], name: str) -> Signed:
    """Return the one signed order that `name` means."""
    if name == "halt":
        halts = [one for one in found if one.type == "halt.ordered"]
        if not halts:
            raise NonsenseError("no halt stands in this journal")
        return halts[-1]
    meant = [one for one in found if name in {one.id, one.order_id}]
    if len(meant) > 1:
        which = ", ".join(f"{one.id} (event {one.seq})" for one in meant)
        raise NonsenseError(plain(f"{len(meant)} events are of {name}: {which}"))
    if not meant:
        raise NonsenseError(plain(f"no signed order {name} stands in this journal"))
    return meant[0]


def extract(one: Signed, folder: Path) -> None:
    """Write the proof into a new folder, and print what was written."""
    if one.key is None:
        by = plain(str(one.proof.get("key_label")))
        raise NonsenseError(
            f'event {one.seq} was signed by a key ("{by}") that this journal did not enrol before'
        )
    files = proof_files(one, one.key)
    folder.mkdir(mode=0o700)
    print(plain(f"event {one.seq}: {one.type} {one.id} at {one.time}"))
    label, operator = one.key.get("label"), one.key.get("operator")
    print(plain(f'key "{label}" of {operator}, enrolled in event {one.key_seq}'))
    for name, content in files.items():
        (folder / name).write_bytes(content)
        print(f"wrote {folder / name}: {len(content)} bytes")


def proof_files(one: Signed, key: dict[str, Any]) -> dict[str, bytes]:
    """Return the files of one proof by their names."""
    fields = {
        name: from_base64(one.proof.get(name), f"event {one.seq}: {name}")
        for name in ("credential_id", "client_data_json", "authenticator_data", "signature")
    }
    data, client_data = fields["authenticator_data"], fields["client_data_json"]
    if len(data) < SHORTEST_DATA:
        raise NonsenseError(f"event {one.seq}: authenticator_data is too short")
    cose = cose_key(key, one.key_seq)
    rp_id = str(key.get("rp_id"))
    if not rp_id.isprintable() or not rp_id.isascii() or len(rp_id) > LONGEST_NAME:
        raise NonsenseError(f"event {one.key_seq}: rp_id is no relying party's id")
    try:
        order = one.order.encode()
    except UnicodeEncodeError:  # half a character: nobody could have signed that
        raise NonsenseError(f"event {one.seq}: its order is no text") from None
    return {
        "order.json": order,
        "client-data.json": client_data,
        "authenticator-data.bin": data,
        "signature.der": fields["signature"],
        "rp-id.txt": rp_id.encode(),
        "public-key.pem": pem(cose),
        "public-key.cose": cose,
        "fido2-assert.txt": for_libfido2(client_data, rp_id, data, fields["signature"]),
        "fido2-assert.options": options(data),
        "webauthn.json": for_webauthn(fields),
    }


def credential_id(key: dict[str, Any], seq: int) -> bytes:
    """Return the id of a key's credential: it stands in the data that the key attested to."""
    raw = from_base64(key.get("credential"), f"event {seq}: credential")
    return raw[18 : 18 + int.from_bytes(raw[16:18], "big")]  # WebAuthn 6.5.1


def cose_key(key: dict[str, Any], seq: int) -> bytes:
    """Return the public key of a credential as the security key gave it out."""
    raw = from_base64(key.get("credential"), f"event {seq}: credential")
    cose = raw[18 + int.from_bytes(raw[16:18], "big") :]
    x, y = coordinates(cose)
    if cose != COSE[0] + x + COSE[1] + y:
        raise NonsenseError(f"event {seq}: its credential holds no ES256 public key")
    return cose


def coordinates(cose: bytes) -> tuple[bytes, bytes]:
    """Return x and y of an ES256 key."""
    at = len(COSE[0])
    return cose[at : at + COORDINATE], cose[-COORDINATE:]


def pem(cose: bytes) -> bytes:
    """Return an ES256 key as OpenSSL reads it."""
    der = SPKI + b"".join(coordinates(cose))
    text = encoded(der)
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{lines}\n-----END PUBLIC KEY-----\n".encode()


def for_libfido2(client_data: bytes, rp_id: str, data: bytes, signature: bytes) -> bytes:
    """Return what `fido2-assert -V` reads: its authenticator data is a CBOR byte string."""
    size = len(data)
    head = b"\x58" + size.to_bytes(1) if size <= ONE_BYTE else b"\x59" + size.to_bytes(2)
    digest = hashlib.sha256(client_data).digest()
    lines = (encoded(digest), rp_id, encoded(head + data), encoded(signature))
    return "".join(f"{line}\n" for line in lines).encode()


def options(data: bytes) -> bytes:
    """Return what `fido2-assert -V` is to demand: a touch, and what else the key says it did.

    It refuses a signed extension that it was not told of, and the other way round.
    """
    wanted = ["-p"]
    if HMAC_SECRET in data[SHORTEST_DATA:]:
        wanted.append("-h")
    if data[FLAGS_AT] & USER_VERIFIED:
        wanted.append("-v")
    return f"{' '.join(wanted)}\n".encode()


def for_webauthn(fields: dict[str, bytes]) -> bytes:
    """Return a WebAuthn AuthenticationResponseJSON, as a browser would have sent it."""
    name = {
        "client_data_json": "clientDataJSON",
        "authenticator_data": "authenticatorData",
        "signature": "signature",
    }
    by = url_safe(fields["credential_id"])
    response = {name[field]: url_safe(fields[field]) for field in name}
    document = {"id": by, "rawId": by, "type": "public-key", "response": response}
    return json.dumps(document, indent=2).encode() + b"\n"


def from_base64(text: object, what: str) -> bytes:
    """Return the bytes of base64 or base64url, with or without its padding."""
    if not isinstance(text, str) or not text or len(text) > LARGEST_FIELD:
        raise NonsenseError(f"{what} is missing, or too long")
    try:
        padded = text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4)
        return base64.b64decode(padded, validate=True)
    except ValueError:
        raise NonsenseError(f"{what} is not base64") from None


def encoded(raw: bytes) -> str:
    """Return base64."""
    return base64.b64encode(raw).decode()


def url_safe(raw: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def plain(text: str) -> str:
    """Return a line that cannot rewrite the screen, whoever wrote it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
