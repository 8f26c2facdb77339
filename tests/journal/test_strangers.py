"""Strangers verify our evidence with programs that are not ours, by the page docs/evidence.md."""

import base64
import hashlib
import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from fido2 import cbor
from fido2.utils import websafe_decode, websafe_encode

from killswitch.journal.check import check
from killswitch.journal.store import GENESIS, Journal, chained
from killswitch.journal.verify import Finding
from killswitch.model import ORDER_DOMAIN
from tests.journal.desk import Desk
from tests.journal.strangers import CHECKS, PACKAGES, Stranger, demand, section, touched
from tests.worlds import killswitch, running_world

Body = dict[str, Any]
HALT, ENROLMENT, NOTE = 2, 0, 1  # where the events of `halted` stand


@pytest.fixture(autouse=True)
def judges() -> None:
    for tool in PACKAGES:
        demand(tool)


def halted(folder: Path, *, prf: bool = False, pin: bool = False) -> Desk:
    """Return a desk whose journal has an enrolment, a note, and an order to halt."""
    desk = Desk(folder / "kept.db")
    desk.enrol("blue")
    desk.write("n1", "note.written", {"loss": 5_000_000})
    order = desk.order()
    desk.record(order, touched(desk, order, prf=prf, pin=pin))
    return desk


def accepted(stranger: Stranger) -> dict[str, str]:
    """Do all that the page says; return what each check answered."""
    listed = stranger.does("List")
    assert (listed.code, listed.err) == (0, ""), listed
    assert "halt.ordered" in listed.out
    taken = stranger.does("Extract")
    assert (taken.code, taken.err) == (0, ""), taken
    said = {}
    for name, heading in CHECKS.items():
        ran = stranger.does(heading)
        assert ran.code == 0, f"{name}: {ran}"
        said[name] = ran.out.strip()
    return said


def test_a_halt_of_the_product_is_verified_by_openssl_libfido2_and_webauthn(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path, sealed=True) as world:
        config = ["--config", str(world.config_file)]
        ran = killswitch(["--revoke", "--yes", "--reason", "dégagé", *config], tmp_path)
        assert ran.code == 0, ran.err + ran.out
    stranger = Stranger.with_copy(tmp_path / "journal.db", tmp_path / "stranger")
    said = accepted(stranger)
    assert said["the order"] == "this order was signed"
    assert said["OpenSSL"] == "Verified OK"
    assert said["libfido2"] == "touched"
    assert re.fullmatch(r"verified, counter \d+, without PIN", said["webauthn"])
    assert said["what stood before"] == "2 events stood before it, and none was changed since"
    assert (stranger.proof / "fido2-assert.options").read_text() == "-p -h\n", "it opened secrets"
    order = json.loads((stranger.proof / "order.json").read_text())
    assert (order["mode"], order["reason"]) == ("live", "dégagé")


@pytest.mark.parametrize("prf", [False, True], ids=["", "prf"])
@pytest.mark.parametrize("pin", [False, True], ids=["", "pin"])
def test_an_order_with_and_without_pin_and_sealed_secrets_is_verified(
    tmp_path: Path, *, prf: bool, pin: bool
) -> None:
    desk = halted(tmp_path, prf=prf, pin=pin)
    stranger = Stranger.with_copy(desk.journal.path, tmp_path / "stranger")
    said = accepted(stranger)
    assert said["webauthn"].endswith("with PIN" if pin else "without PIN")
    options = (stranger.proof / "fido2-assert.options").read_text()
    assert options == f"-p{' -h' if prf else ''}{' -v' if pin else ''}\n"


def test_the_key_that_opens_the_files_is_the_one_that_the_product_keeps(tmp_path: Path) -> None:
    desk = halted(tmp_path)
    stranger = Stranger.with_copy(desk.journal.path, tmp_path / "stranger")
    accepted(stranger)
    assert (stranger.proof / "public-key.pem").read_text() == desk.keys["blue"].public_key


def test_libfido2_demands_a_pin_and_refuses_an_answer_that_was_not_demanded(
    tmp_path: Path,
) -> None:
    desk = halted(tmp_path, prf=True)
    stranger = Stranger.with_copy(desk.journal.path, tmp_path / "stranger")
    accepted(stranger)
    command = "fido2-assert -V {} -i fido2-assert.txt public-key.pem es256"
    for options, code in (("-p -h", 0), ("-p -h -v", 1), ("-p", 1)):
        assert stranger.runs(command.format(options), stranger.proof).code == code, options


# Forgers: they change an event and make the whole chain fit again.


def heads(raw: list[bytes]) -> list[bytes]:
    """Return the hash of each event of a chain over `raw`, after the one before the first."""
    hashes_: list[bytes] = [GENESIS]
    for one in raw:
        hashes_.append(chained(hashes_[-1], one))
    return hashes_


def forge(path: Path, alter: Callable[[list[Body]], None]) -> None:
    """Change what stands in a journal, and write it all down anew."""
    bodies = [json.loads(event.raw) for event in Journal(path).events()]
    alter(bodies)
    raw = [rfc8785.dumps(body) for body in bodies]
    chain = heads(raw)
    path.unlink()
    with closing(sqlite3.connect(path, isolation_level=None)) as forged:
        forged.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, prev, body, hash)")
        rows = zip(range(1, len(raw) + 1), chain, raw, chain[1:], strict=False)
        forged.executemany("INSERT INTO events VALUES (?, ?, ?, ?)", rows)


def replace_in(field: str, change: Callable[[bytes], bytes]) -> Callable[[list[Body]], None]:
    """Return a forgery of one binary field of the halt's proof."""

    def alter(bodies: list[Body]) -> None:
        proof = bodies[HALT]["data"]["proof"]
        proof[field] = websafe_encode(change(websafe_decode(proof[field])))

    return alter


def other_order(bodies: list[Body]) -> None:
    data = bodies[HALT]["data"]
    data["order"] = data["order"].replace("Drawdown", "Practice")


def other_challenge(client_data: bytes) -> bytes:
    fields = json.loads(client_data)
    return json.dumps(fields | {"challenge": websafe_encode(bytes(32))}).encode()


def give_key(bodies: list[Body], key: ec.EllipticCurvePrivateKey) -> None:
    """Put another public key under the enrolled credential's id."""
    enrolled = bodies[ENROLMENT]["data"]["key"]
    old = base64.b64decode(enrolled["credential"])
    public = key.public_key().public_numbers()
    x, y = (coordinate.to_bytes(32) for coordinate in (public.x, public.y))
    cose = cbor.encode({1: 2, 3: -7, -1: 1, -2: x, -3: y})
    enrolled["credential"] = base64.b64encode(old[: -len(cose)] + cose).decode()


def other_key(bodies: list[Body]) -> None:
    give_key(bodies, ec.generate_private_key(ec.SECP256R1()))


def other_relying_party(bodies: list[Body]) -> None:
    bodies[ENROLMENT]["data"]["key"]["rp_id"] = "other.example"


def other_note(bodies: list[Body]) -> None:
    bodies[NOTE]["data"]["loss"] = 50


def made_up_key(bodies: list[Body]) -> None:
    """Write the whole journal anew around a key of one's own, which was never touched."""
    key = ec.generate_private_key(ec.SECP256R1())
    give_key(bodies, key)
    data = bodies[HALT]["data"]
    head = heads([rfc8785.dumps(body) for body in bodies[:HALT]])[-1].hex()
    order = rfc8785.dumps(json.loads(data["order"]) | {"journal_head": head})
    challenge = websafe_encode(hashlib.sha256(ORDER_DOMAIN + order).digest())
    proof = data["proof"]
    client_data = json.dumps(
        json.loads(websafe_decode(proof["client_data_json"])) | {"challenge": challenge}
    ).encode()
    says = bytearray(websafe_decode(proof["authenticator_data"]))
    says[32] = 0  # flags: neither touched nor verified
    signed = bytes(says) + hashlib.sha256(client_data).digest()
    data["order"] = order.decode()
    proof |= {
        "client_data_json": websafe_encode(client_data),
        "authenticator_data": websafe_encode(bytes(says)),
        "signature": websafe_encode(key.sign(signed, ec.ECDSA(hashes.SHA256()))),
    }


FORGERIES: dict[str, Callable[[list[Body]], None]] = {
    "the order": other_order,
    "the signature": replace_in("signature", lambda it: it[:-1] + bytes([it[-1] ^ 1])),
    "the authenticator data": replace_in(
        "authenticator_data", lambda it: it[:36] + bytes([it[36] ^ 1]) + it[37:]
    ),
    "the challenge in the client data": replace_in("client_data_json", other_challenge),
    "the public key of the enrolment": other_key,
    "the relying party of the enrolment": other_relying_party,
    "an event before the order": other_note,
    "no touch: signed by a made-up key that claims none": made_up_key,
}


def told() -> dict[str, set[str]]:
    """Return what the page says of each forgery: who refuses it."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section("What each of them finds").splitlines()
        if line.startswith("|")
    ]
    _, *names = rows[0]
    assert names == list(CHECKS)
    return {
        what: {name for name, cell in zip(names, cells, strict=True) if cell == "refuses"}
        for what, *cells in rows[2:]
    }


def test_the_page_tells_of_every_forgery_that_is_tried() -> None:
    assert told().keys() == FORGERIES.keys()


@pytest.mark.parametrize("what", FORGERIES)
def test_a_forgery_is_refused_by_those_whom_the_page_names(tmp_path: Path, what: str) -> None:
    desk = halted(tmp_path)
    copy = tmp_path / "forged.db"
    shutil.copy(desk.journal.path, copy)
    forge(copy, FORGERIES[what])
    assert check(Journal(copy).events()).verdict.finding is Finding.TAMPERED
    stranger = Stranger.with_copy(copy, tmp_path / "stranger")
    assert stranger.does("Extract").code == 0
    refused = stranger.refusals()
    assert refused == told()[what]
    assert refused & {"the order", "webauthn", "what stood before"}


def test_a_journal_written_anew_without_a_change_is_accepted(tmp_path: Path) -> None:
    desk = halted(tmp_path)
    forge(desk.journal.path, lambda _: None)
    accepted(Stranger.with_copy(desk.journal.path, tmp_path / "stranger"))
