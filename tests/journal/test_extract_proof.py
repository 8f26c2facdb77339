"""scripts/extract_proof.py: what it takes out of a journal, and what it refuses with words."""

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.journal.desk import Desk
from tests.journal.strangers import SCRIPT
from tests.worlds import Ran


def extract(*arguments: str | Path) -> Ran:
    """Run the script with a Python that sees no installed package."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", SCRIPT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def assert_refused(ran: Ran, words: str) -> None:
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("extract_proof: ")
    assert words in ran.err
    assert ran.err.count("\n") == 1, "one line, no traceback"


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "journal.db")
    desk.enrol("blue")
    return desk


def write_events(path: Path, *bodies: object) -> Path:
    """Write a journal as somebody might who knows only its table."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE events(seq INTEGER PRIMARY KEY, body)")
        for body in bodies:
            connection.execute("INSERT INTO events(body) VALUES (?)", (body,))
    return path


def test_a_key_signs_only_between_its_enrolment_and_its_removal(desk: Desk, tmp_path: Path) -> None:
    before, after = desk.order(), desk.order()
    desk.record(before, desk.touch(before))
    desk.remove("blue")
    desk.record(after, desk.touch(after))
    path = desk.journal.path
    found = extract(path, before.id, tmp_path / "before")
    assert found.code == 0
    assert 'key "blue" of anna, enrolled in event 1' in found.out
    refused = extract(path, after.id, tmp_path / "after")
    assert_refused(refused, 'event 4 was signed by a key ("blue") that this journal did not enrol')
    assert not (tmp_path / "after").exists()


def test_an_enrolment_is_extracted_with_the_key_that_it_enrols(desk: Desk, tmp_path: Path) -> None:
    order, _ = desk.enrolments["blue"]
    ran = extract(desk.journal.path, order.id, tmp_path / "proof")
    assert ran.code == 0
    assert (tmp_path / "proof/public-key.pem").read_text() == desk.keys["blue"].public_key
    assert (tmp_path / "proof/order.json").read_bytes() == order.to_bytes()


def test_what_was_written_is_named_and_only_its_owner_may_look(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    folder = tmp_path / "proof"
    ran = extract(desk.journal.path, "halt", folder)
    named = {Path(line.split()[1].rstrip(":")) for line in ran.out.splitlines()[2:]}
    assert named == set(folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_there_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    assert_refused(extract(desk.journal.path, "halt", tmp_path), "File exists")


def test_the_newest_halt_is_meant_and_no_drill(desk: Desk, tmp_path: Path) -> None:
    assert_refused(extract(desk.journal.path, "halt", tmp_path / "p"), "no halt stands in this")
    halts = [desk.order(), desk.order()]
    for order in halts:
        desk.record(order, desk.touch(order))
    drill = desk.order()
    desk.record(drill, desk.touch(drill), "drill.ordered")
    assert extract(desk.journal.path, "halt", tmp_path / "p").code == 0
    assert json.loads((tmp_path / "p/order.json").read_bytes())["id"] == halts[-1].id


def test_an_id_that_means_several_events_is_asked_about(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    proof = desk.touch(order)
    desk.record(order, proof)
    desk.write(
        f"{order.id}.resealed", "secrets.resealed", {"order": order_text(desk), "proof": proof}
    )
    ran = extract(desk.journal.path, order.id, tmp_path / "p")
    assert_refused(ran, f"{order.id}.ordered (event 2), {order.id}.resealed (event 3)")
    assert extract(desk.journal.path, f"{order.id}.ordered", tmp_path / "p").code == 0


def order_text(desk: Desk) -> str:
    """Return the text of the newest order in the journal."""
    return str(desk.journal.events()[-1].body.data["order"])


def test_an_unknown_order_is_told(desk: Desk, tmp_path: Path) -> None:
    assert_refused(extract(desk.journal.path, "nobody", tmp_path / "p"), "no signed order nobody")


def test_a_name_cannot_rewrite_the_screen(tmp_path: Path) -> None:
    proof = {"credential_id": "AAAA", "key_label": "\x1b[2J\nblue", "operator": "anna"}
    body = {"id": "\x1b]0;x\x07", "type": "halt.ordered", "data": {"order": "{}", "proof": proof}}
    ran = extract(write_events(tmp_path / "j.db", json.dumps(body).encode()))
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 2


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"nonsense", "event 1 is not JSON"),
        (b"\xff", "event 1 is not JSON"),
        (b"[" * 100_000, "event 1 is not JSON"),
        (b"[]", "event 1 is not a JSON object"),
        ("{}", "event 1 is no event"),
        (None, "event 1 is no event"),
    ],
    ids=["no json", "no text", "deep", "a list", "text", "null"],
)
def test_an_event_that_is_none_is_refused(tmp_path: Path, raw: object, words: str) -> None:
    assert_refused(extract(write_events(tmp_path / "j.db", raw)), words)


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    assert_refused(extract(tmp_path / "missing.db"), "there is no file")
    assert_refused(extract(SCRIPT), "file is not a database")
    empty = tmp_path / "empty.db"
    empty.touch()
    assert_refused(extract(empty), "no such table: events")


def test_a_journal_is_only_read(desk: Desk) -> None:
    path = desk.journal.path
    before = path.read_bytes()
    path.chmod(0o400)
    assert extract(path).code == 0
    assert path.read_bytes() == before
    assert {it.name for it in path.parent.iterdir()} == {"journal.db"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": "?"}, "signature is not base64"),
        ({"signature": None}, "signature is missing"),
        ({"signature": "A" * 70_000}, "signature is missing, or too long"),
        ({"authenticator_data": "AAAA"}, "authenticator_data is too short"),
        ({"client_data_json": "é"}, "client_data_json is not base64"),
    ],
    ids=str,
)
def test_a_proof_that_cannot_be_read_is_refused(
    desk: Desk, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order) | changes)
    assert_refused(extract(desk.journal.path, "halt", tmp_path / "p"), f"event 2: {words}")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rp_id": "a\nb"}, "event 1: rp_id is no relying party's id"),
        ({"rp_id": "a" * 254}, "event 1: rp_id is no relying party's id"),
        ({"credential": "AAAA"}, "that this journal did not enrol before"),
        ({"credential": 7}, "event 1: credential is missing"),
    ],
    ids=["two lines", "long", "none", "a number"],
)
def test_an_enrolment_that_cannot_be_read_is_refused(
    desk: Desk, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    bodies = [json.loads(event.raw) for event in desk.journal.events()]
    bodies[0]["data"]["key"] |= changes
    forged = write_events(tmp_path / "j.db", *(json.dumps(body).encode() for body in bodies))
    assert_refused(extract(forged, "halt", tmp_path / "p"), words)


def test_another_kind_of_key_is_refused(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    bodies = [json.loads(event.raw) for event in desk.journal.events()]
    credential = bodies[0]["data"]["key"]["credential"]
    bodies[0]["data"]["key"]["credential"] = credential[:-8]
    forged = write_events(tmp_path / "j.db", *(json.dumps(body).encode() for body in bodies))
    assert_refused(extract(forged, "halt", tmp_path / "p"), "holds no ES256 public key")


def test_half_a_character_in_an_order_is_refused(desk: Desk, tmp_path: Path) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    bodies = [json.loads(event.raw) for event in desk.journal.events()]
    bodies[1]["data"]["order"] += "\ud800"
    forged = write_events(tmp_path / "j.db", *(json.dumps(body).encode() for body in bodies))
    assert_refused(extract(forged, "halt", tmp_path / "p"), "its order is no text")


def test_a_command_line_that_makes_no_sense_shows_the_usage() -> None:
    for arguments in ((), ("a", "b"), ("a", "b", "c", "d")):
        ran = extract(*arguments)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == "usage: extract_proof.py JOURNAL [ORDER FOLDER]\n"
