"""Verification: whatever was done to the journal, the first event that does not fit is named."""

import contextlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.journal.check import check
from killswitch.journal.store import GENESIS, Event, Journal, NewEvent, chained
from killswitch.journal.verify import Finding, verify

SIZE = 6
EXCHANGE = """
UPDATE events SET seq = -seq WHERE seq IN (2, 3);
UPDATE events SET seq = seq + 5 WHERE seq < 0
"""


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    journal = Journal(tmp_path / "journal.db")
    for number in range(1, SIZE + 1):
        journal.append(
            NewEvent(f"e{number}", "test.written", "2026-11-21T03:14:07Z", {"number": number})
        )
    return journal


def chain(bodies: Sequence[bytes]) -> list[Event]:
    """Return a well-made chain over any bodies: what a careful forger would write."""
    events: list[Event] = []
    prev = GENESIS
    for seq, raw in enumerate(bodies, start=1):
        events.append(Event(seq, prev, raw, chained(prev, raw)))
        prev = events[-1].hash
    return events


@contextlib.contextmanager
def unguarded(journal: Journal) -> Iterator[sqlite3.Connection]:
    """Open the file as a forger does, who simply drops the triggers."""
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as connection:
        for trigger in ("no_update", "no_delete", "next_seq", "chained"):
            connection.execute(f"DROP TRIGGER events_{trigger}")
        yield connection


def test_an_empty_journal_is_intact() -> None:
    verdict = verify([])
    assert (verdict.finding, verdict.size, verdict.head) == (Finding.INTACT, 0, "0" * 64)


def test_an_untouched_journal_is_intact(journal: Journal) -> None:
    events = journal.events()
    verdict = verify(events)
    assert verdict.finding is Finding.INTACT
    assert (verdict.size, verdict.head) == (SIZE, events[-1].hash.hex())
    assert (verdict.bad_seq, verdict.problem) == (None, "")


@pytest.mark.parametrize(
    ("statement", "bad", "words"),
    [
        (
            "UPDATE events SET body = CAST(replace(body, ':3}', ':9}') AS BLOB) WHERE seq = 3",
            3,
            "expected hash",
        ),
        ("UPDATE events SET hash = zeroblob(32) WHERE seq = 2", 2, "expected hash"),
        ("UPDATE events SET prev = zeroblob(32) WHERE seq = 4", 4, "expected previous hash"),
        ("DELETE FROM events WHERE seq = 1", 2, "expected event 1, found event 2"),
        ("DELETE FROM events WHERE seq IN (3, 4)", 5, "expected event 3, found event 5"),
        (
            "DELETE FROM events WHERE seq = 3; UPDATE events SET seq = seq - 1 WHERE seq > 3",
            3,
            "expected previous hash",
        ),
        (
            EXCHANGE,
            2,
            "expected previous hash",
        ),
        (
            "UPDATE events SET body = CAST(CAST(body AS TEXT) || ' ' AS BLOB) WHERE seq = 5",
            5,
            "expected hash",
        ),
        (
            "INSERT INTO events SELECT 7, hash, body, hash FROM events WHERE seq = 6",
            7,
            "expected hash",
        ),
    ],
    ids=[
        "body",
        "hash",
        "previous hash",
        "first gone",
        "middle gone",
        "middle gone, renumbered",
        "two exchanged",
        "one byte more",
        "one more at the end",
    ],
)
def test_what_was_changed_is_named_by_its_first_event(
    journal: Journal, statement: str, bad: int, words: str
) -> None:
    with unguarded(journal) as connection:
        connection.executescript(statement)
    verdict = verify(journal.events())
    assert verdict.finding is Finding.TAMPERED
    assert verdict.bad_seq == bad
    assert words in verdict.problem


@pytest.mark.parametrize(
    "dumps",
    [
        json.dumps,
        lambda body: json.dumps(body, separators=(",", ":"), sort_keys=True) + "\n",
        lambda body: json.dumps(dict(reversed(body.items())), separators=(",", ":")),
    ],
    ids=["with spaces", "with an end of line", "in another order"],
)
def test_bytes_that_were_serialised_again_are_found_even_if_the_chain_was_mended(
    journal: Journal, dumps: Callable[[dict[str, object]], str]
) -> None:
    bodies = [event.raw for event in journal.events()]
    bodies[3] = dumps(json.loads(bodies[3])).encode()
    verdict = verify(chain(bodies))
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, 4)
    assert verdict.problem == "its bytes are not in canonical form"


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b"\xff\xfe",
        b'{"v":1}',
        b'{"data":[],"id":"x","time":"","type":"x","v":1}',
        b'{"data":{"a":1e999},"id":"x","time":"","type":"x","v":1}',
        b'{"data":{"a":9007199254740993},"id":"x","time":"","type":"x","v":1}',
        b'{"data":{"a":"\\ud800"},"id":"x","time":"","type":"x","v":1}',
        b"[" * 100_000,
        b"9" * 10_000,
    ],
    ids=[
        "empty",
        "list",
        "nothing in it",
        "null",
        "no text",
        "no id",
        "data is no table",
        "infinite",
        "too exact",
        "half a character",
        "too deep",
        "too long a number",
    ],
)
def test_bytes_that_are_no_event_are_found_and_are_not_a_crash(junk: bytes) -> None:
    good = NewEvent("e1", "test.written", "2026-11-21T03:14:07Z", {}).to_bytes()
    verdict, touches, *_ = check(chain([good, junk, good]))
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, 2)
    assert verdict.problem == "its bytes are not an event"
    assert touches == 0


def test_a_tail_that_was_cut_off_shows_only_against_a_head_kept_elsewhere(
    journal: Journal,
) -> None:
    kept = verify(journal.events())
    with unguarded(journal) as connection:
        connection.execute("DELETE FROM events WHERE seq > 4")
    now = verify(journal.events())
    assert now.finding is Finding.INTACT, "the chain alone cannot know"
    assert (now.size, now.head) != (kept.size, kept.head)


def test_a_head_kept_elsewhere_finds_what_the_chain_cannot(journal: Journal) -> None:
    events = journal.events()
    digest = events[3].hash.hex()
    for anchor in ("", f"4:{digest}", f"4:{digest[:16].upper()}", "0:00"):
        assert check(events, anchor=anchor)[0].finding is Finding.INTACT
    for anchor, problem in (
        (f"3:{digest}", "event 3 is another one than was seen elsewhere"),
        (f"9:{digest}", "9 events were seen elsewhere, 6 are left"),
        ("4:", "'4:' is not a head: SIZE:HASH"),
        (digest, f"'{digest}' is not a head: SIZE:HASH"),
        (f"-1:{digest}", f"'-1:{digest}' is not a head: SIZE:HASH"),
    ):
        verdict, *_ = check(events, anchor=anchor)
        assert (verdict.finding, verdict.problem) == (Finding.TAMPERED, problem)
    assert check(events[1:], anchor=f"4:{digest}")[0].bad_seq == 2, "the chain comes first"


def test_what_the_check_of_touches_finds_counts_like_the_chain(journal: Journal) -> None:
    seen: list[int] = []

    def third_is_bad(event: Event) -> str:
        seen.append(event.seq)
        return "no good touch" if event.seq == 3 else ""

    verdict = verify(journal.events(), third_is_bad)
    assert (verdict.bad_seq, verdict.problem) == (3, "no good touch")
    assert seen == [1, 2, 3]


@given(st.data())
def test_any_one_changed_byte_anywhere_is_found(data: st.DataObject) -> None:
    events = chain(
        [
            NewEvent(f"e{number}", "test.written", "2026-11-21T03:14:07Z", {}).to_bytes()
            for number in range(1, SIZE + 1)
        ]
    )
    at = data.draw(st.integers(0, SIZE - 1))
    part = data.draw(st.sampled_from(["prev", "raw", "hash"]))
    whole: bytes = getattr(events[at], part)
    byte = data.draw(st.integers(0, len(whole) - 1))
    other = whole[byte] ^ data.draw(st.integers(1, 255))
    changed = whole[:byte] + bytes([other]) + whole[byte + 1 :]
    events[at] = replace(events[at], **{part: changed})  # type: ignore[arg-type]  # all bytes
    verdict = verify(events)
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, at + 1)


@given(st.permutations(range(SIZE)), st.integers(0, SIZE))
def test_no_other_order_and_no_gap_is_intact(order: list[int], kept: int) -> None:
    events = chain(
        [
            NewEvent(f"e{number}", "test.written", "2026-11-21T03:14:07Z", {}).to_bytes()
            for number in range(SIZE)
        ]
    )
    shown = [events[at] for at in order[:kept]]
    is_start = order[:kept] == list(range(kept))
    assert (verify(shown).finding is Finding.INTACT) is is_start
