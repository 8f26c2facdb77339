"""The journal's file: append-only, chained, private, durable, and never in the way for long."""

import contextlib
import os
import random
import secrets
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from killswitch.errors import UnreachableError
from killswitch.journal.store import GENESIS, Head, Journal, NewEvent, chained
from killswitch.journal.verify import Finding, verify
from killswitch.secret import MASK, Secret

ROOT = Path(__file__).parents[2]
NOBODY = 65534
CHAINED = "hash, body, hash FROM events WHERE seq = 3"
WRITER = """
import sys
from pathlib import Path
from killswitch.journal.store import Journal, NewEvent
journal = Journal(Path(sys.argv[1]), busy_s=20)
for number in range(int(sys.argv[3])):
    name = f"{sys.argv[2]}-{number}"
    journal.append(NewEvent(name, "test.written", "2026-11-21T03:14:07Z", {"number": number}))
    print(name, flush=True)
"""
LOCKER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(f"BEGIN {sys.argv[2]}")
print("locked", flush=True)
sys.stdin.read()
"""


def event(number: int, data: dict[str, object] | None = None) -> NewEvent:
    return NewEvent(f"e{number}", "test.written", "2026-11-21T03:14:07Z", data or {"n": number})


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def ids(journal: Journal) -> list[str]:
    return [each.body.id for each in journal.events()]


@contextlib.contextmanager
def by_hand(path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Give up root's rights for a moment, if the tests have them: root may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    event(0).to_bytes()  # loads what nobody may not be allowed to read later
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "state" / "journal.db")


@pytest.fixture
def three(journal: Journal) -> Journal:
    for number in (1, 2, 3):
        journal.append(event(number))
    return journal


# One chain.


def test_a_journal_that_was_never_written_to_is_empty(journal: Journal) -> None:
    assert journal.events() == []
    assert journal.find("e1") is None
    assert journal.head() == Head(0, "0" * 64)
    assert not journal.path.exists(), "reading makes no file"


def test_a_crash_before_the_first_event_leaves_an_empty_journal(journal: Journal) -> None:
    journal.path.parent.mkdir()
    journal.path.touch()
    assert journal.events() == []
    assert journal.find("e1") is None
    assert journal.head() == Head(0, "0" * 64)
    assert journal.append(event(1)).seq == 1


def test_each_event_is_bound_to_the_one_before(journal: Journal) -> None:
    first, second = journal.append(event(1)), journal.append(event(2))
    assert (first.seq, first.prev) == (1, GENESIS)
    assert (second.seq, second.prev) == (2, first.hash)
    assert second.hash == chained(first.hash, second.raw)
    assert journal.events() == [first, second]
    assert journal.head() == Head(2, second.hash.hex())


def test_what_is_hashed_is_what_is_stored(journal: Journal) -> None:
    stored = journal.append(event(1, {"b": 1, "a": "é", "c": (True, None, 0.5)}))
    assert stored.raw.decode() == (
        '{"data":{"a":"é","b":1,"c":[true,null,0.5]},"id":"e1",'
        '"time":"2026-11-21T03:14:07Z","type":"test.written","v":1}'
    )
    assert stored.body.data == {"a": "é", "b": 1, "c": [True, None, 0.5]}


def test_an_event_is_found_by_its_id(three: Journal) -> None:
    found = three.find("e2")
    assert found is not None
    assert found.body.data == {"n": 2}
    assert three.find("e4") is None


def test_the_same_event_again_is_the_one_that_is_there(three: Journal) -> None:
    again = three.append(event(2, {"n": "another"}))
    assert (again.seq, again.body.data) == (2, {"n": 2})
    assert three.head().size == 3


def test_the_file_is_private_and_so_is_a_folder_made_for_it(three: Journal) -> None:
    assert stat.S_IMODE(three.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(three.path.parent.stat().st_mode) == 0o700


# Append-only.


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE events SET body = x'00' WHERE seq = 2", "append-only"),
        ("DELETE FROM events WHERE seq = 3", "append-only"),
        (f"INSERT OR REPLACE INTO events SELECT 2, {CHAINED}", "next sequence number only"),
        ("INSERT OR REPLACE INTO events VALUES (4, x'00', x'7b7d', x'00')", "wrong previous hash"),
        (f"INSERT INTO events SELECT 5, {CHAINED}", "next sequence number only"),
        (f"INSERT INTO events SELECT 0, {CHAINED}", "next sequence number only"),
        ("INSERT INTO events VALUES (4, zeroblob(32), x'7b7d', x'00')", "wrong previous hash"),
        ("UPDATE OR REPLACE events SET seq = 1 WHERE seq = 2", "append-only"),
        ("INSERT INTO events VALUES (4, 'text', 'text', 'text')", "append-only|cannot store TEXT"),
    ],
)
@pytest.mark.parametrize("recursive", ["ON", "OFF"])
def test_the_file_itself_refuses_all_but_the_next_event(
    three: Journal, statement: str, why: str, recursive: str
) -> None:
    before = three.events()
    with by_hand(three.path) as connection:
        connection.execute(f"PRAGMA recursive_triggers={recursive}")
        with pytest.raises(sqlite3.IntegrityError, match=why):
            connection.execute(statement)
    assert three.events() == before


def test_the_right_next_event_by_other_hands_is_taken(three: Journal) -> None:
    last = three.events()[-1]
    raw = event(4).to_bytes()
    with by_hand(three.path) as connection:
        connection.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?)", (4, last.hash, raw, chained(last.hash, raw))
        )
    assert verify(three.events()).finding is Finding.INTACT
    assert three.append(event(5)).seq == 5


# No secret.


def test_no_known_secret_reaches_the_file(journal: Journal) -> None:
    Secret("journal-secret-91")
    data: dict[str, object] = {
        "text": "token=journal-secret-91",
        "journal-secret-91": 1,
        "deep": [{"journal-secret-91": ["x journal-secret-91"]}, ("journal-secret-91",)],
    }
    stored = journal.append(event(1, data))
    assert b"journal-secret-91" not in journal.path.read_bytes()
    assert stored.body.data["text"] == f"token={MASK}"
    assert verify(journal.events()).finding is Finding.INTACT


def test_half_a_character_in_an_answer_does_not_cost_the_event(journal: Journal) -> None:
    stored = journal.append(event(1, {"answer\ud800": "broken \udcff answer"}))
    assert stored.body.data == {"answer?": "broken ? answer"}


# When the file cannot be used.


@pytest.fixture
def locked(three: Journal, request: pytest.FixtureRequest) -> Iterator[Journal]:
    with start(LOCKER, three.path, request.param) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield Journal(three.path, busy_s=0.2)
        process.kill()


@pytest.mark.parametrize("locked", ["IMMEDIATE", "EXCLUSIVE"], indirect=True)
def test_a_locked_journal_costs_its_busy_time_and_no_more(locked: Journal) -> None:
    began = time.monotonic()
    with pytest.raises(UnreachableError, match=r"journal .*: database is locked"):
        locked.append(event(4))
    assert 0.1 < time.monotonic() - began < 0.8


@pytest.mark.parametrize("locked", ["EXCLUSIVE"], indirect=True)
def test_reading_a_locked_journal_costs_its_busy_time_and_no_more(locked: Journal) -> None:
    for read in (locked.events, locked.head, lambda: locked.find("e1")):
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="is locked"):
            read()
        assert 0.1 < time.monotonic() - began < 0.8


@pytest.mark.parametrize("locked", ["IMMEDIATE"], indirect=True)
def test_a_journal_that_another_writes_to_can_be_read(locked: Journal) -> None:
    assert ids(locked) == ["e1", "e2", "e3"]


@pytest.fixture
def readonly() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old = Journal(folder / "journal.db")
        old.append(event(1))
        old.path.chmod(0o444)
        folder.chmod(0o555)
        with as_nobody():
            yield folder
        folder.chmod(0o755)


def test_a_read_only_folder_takes_no_event_and_says_so(readonly: Path) -> None:
    with pytest.raises(UnreachableError, match="Permission denied"):
        Journal(readonly / "new.db").append(event(1))
    with pytest.raises(UnreachableError, match="Permission denied"):
        Journal(readonly / "new" / "journal.db").append(event(1))
    with pytest.raises(UnreachableError, match="Permission denied"):
        Journal(readonly / "journal.db").append(event(2))


def test_a_journal_in_a_read_only_folder_can_still_be_read(readonly: Path) -> None:
    assert ids(Journal(readonly / "journal.db")) == ["e1"]


def test_a_folder_that_may_not_be_entered_is_told_in_words(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    journal = Journal(closed / "journal.db")
    with as_nobody():
        for use in (journal.events, journal.head, lambda: journal.append(event(1))):
            with pytest.raises(UnreachableError, match="Permission denied"):
                use()


@pytest.mark.parametrize(
    ("where", "why"),
    [("file/journal.db", "Not a directory|File exists"), ("x" * 5000, "File name too long")],
    ids=["below a file", "too long"],
)
def test_a_path_that_cannot_be_is_told_in_words(tmp_path: Path, where: str, why: str) -> None:
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / where)
    for use in (
        journal.events,
        journal.head,
        lambda: journal.find("e1"),
        lambda: journal.append(event(1)),
    ):
        with pytest.raises(UnreachableError, match=why):
            use()


def test_a_file_that_is_no_journal_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, " * 100)
    journal = Journal(path)
    for use in (journal.events, journal.head, lambda: journal.append(event(1))):
        with pytest.raises(UnreachableError, match="file is not a database"):
            use()


def test_a_database_of_others_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with by_hand(path) as connection:
        connection.execute("CREATE TABLE other(x)")
    with pytest.raises(UnreachableError, match="no such table: events"):
        Journal(path).events()


def test_a_forged_table_with_other_types_is_read_and_found_out(journal: Journal) -> None:
    journal.path.parent.mkdir()
    with by_hand(journal.path) as connection:
        connection.execute("CREATE TABLE events(seq, prev, body, hash)")
        connection.execute("INSERT INTO events VALUES (1, zeroblob(32), '{}', NULL)")
    assert journal.events()[0].raw == b"{}"
    assert journal.head() == Head(1, b"None".hex())
    assert verify(journal.events()).bad_seq == 1


# Many writers, and a plug that is pulled.


def test_four_processes_at_once_make_one_intact_chain(journal: Journal) -> None:
    writers = [start(WRITER, journal.path, f"w{number}", 15) for number in range(4)]
    for writer in writers:
        with writer:
            writer.communicate(timeout=60)
        assert writer.returncode == 0
    events = journal.events()
    assert verify(events).finding is Finding.INTACT
    assert sorted(ids(journal)) == sorted(f"w{w}-{n}" for w in range(4) for n in range(15))
    assert [each.seq for each in events] == list(range(1, 61))


def test_threads_that_append_the_same_event_append_it_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db", busy_s=20)
    threads = [
        threading.Thread(target=lambda: [journal.append(event(number)) for number in range(5)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(journal)) == [f"e{number}" for number in range(5)]
    assert verify(journal.events()).finding is Finding.INTACT


def test_a_kill_in_the_middle_loses_no_acknowledged_event(journal: Journal) -> None:
    seed = secrets.randbelow(2**32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    acknowledged: list[str] = []
    for kill in range(10):
        with start(WRITER, journal.path, f"k{kill}", 100_000) as writer:
            assert writer.stdout is not None
            acknowledged.append(writer.stdout.readline().strip())
            time.sleep(rng.random() * 0.05)
            writer.kill()
            # The last line may be cut off by the kill: then nobody was told.
            rest = writer.stdout.read()
            acknowledged += rest.splitlines() if rest.endswith("\n") else rest.splitlines()[:-1]
        events = journal.events()
        assert verify(events).finding is Finding.INTACT
        stored = [each.body.id for each in events]
        assert [each for each in stored if each in set(acknowledged)] == acknowledged
        assert len(stored) <= len(acknowledged) + kill + 1
    assert len(acknowledged) >= 10
