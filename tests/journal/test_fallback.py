"""The fallback file: where an event goes when the journal cannot take it."""

import contextlib
import os
import resource
import stat
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from killswitch.errors import UnreachableError
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.store import NewEvent
from killswitch.secret import Secret

NOW = datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC)


def event(name: str, text: str = "") -> NewEvent:
    return NewEvent(name, "test.written", "2026-11-21T03:14:07Z", {"text": text})


def ids(log: FallbackLog) -> list[str]:
    return [msgspec.json.decode(line)["id"] for line in log.lines()]


@pytest.fixture
def log(tmp_path: Path) -> FallbackLog:
    return FallbackLog(tmp_path / "data" / "fallback.jsonl")


def test_without_a_file_nothing_waits(log: FallbackLog) -> None:
    assert log.lines() == []
    assert log.find("e1") is None


def test_an_event_is_one_line_and_is_read_back(log: FallbackLog) -> None:
    stored = log.append(event("e1", "two\nlines\r\n and \u2028 more"))
    log.append(event("e2"))
    assert stored.seq == 0
    assert ids(log) == ["e1", "e2"]
    assert log.find("e1") == stored
    assert log.find("e3") is None


def test_the_file_is_private_and_so_is_a_folder_made_for_it(log: FallbackLog) -> None:
    log.append(event("e1"))
    assert stat.S_IMODE(log.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.path.parent.stat().st_mode) == 0o700


def test_no_known_secret_reaches_the_file(log: FallbackLog) -> None:
    Secret("fallback-secret-92")
    log.append(event("e1", "token=fallback-secret-92"))
    assert b"fallback-secret-92" not in log.path.read_bytes()


def test_a_line_that_a_crash_cut_off_costs_itself_alone(log: FallbackLog) -> None:
    log.append(event("e1"))
    log.append(event("e2"))
    os.truncate(log.path, log.path.stat().st_size - 10)
    assert log.find("e2") is None, "half a line is not an event"
    log.append(event("e3"))
    assert log.find("e1") is not None
    assert log.find("e3") is not None
    assert len(log.lines()) == 3


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """Make the next write a short one, as on a full disk (Python ignores SIGXFSZ)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_and_the_next_event_stands_alone(log: FallbackLog) -> None:
    log.append(event("e1"))
    room = log.path.stat().st_size + 20
    with (
        files_no_larger_than(room),
        pytest.raises(UnreachableError, match="no room for all of it"),
    ):
        log.append(event("e2"))
    assert log.path.stat().st_size == room
    with files_no_larger_than(room), pytest.raises(UnreachableError, match="File too large"):
        log.append(event("e3"))
    log.append(event("e4"))
    assert [log.find(name) is not None for name in ("e1", "e2", "e3", "e4")] == [
        True,
        False,
        False,
        True,
    ]


def test_threads_that_append_at_once_lose_no_line(log: FallbackLog) -> None:
    def write(number: int) -> None:
        for part in range(10):
            log.append(event(f"t{number}-{part}", "x" * 500))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(log)) == sorted(f"t{t}-{p}" for t in range(4) for p in range(10))


def test_a_file_that_cannot_be_used_is_told_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    below = FallbackLog(tmp_path / "file" / "fallback.jsonl")
    for use in (below.lines, lambda: below.find("e1"), lambda: below.append(event("e1"))):
        with pytest.raises(UnreachableError, match=r"fallback file .*: (Not a|File exists)"):
            use()
    folder = FallbackLog(tmp_path)
    for use in (folder.lines, lambda: folder.append(event("e1"))):
        with pytest.raises(UnreachableError, match="Is a directory"):
            use()


def test_a_line_cut_off_by_a_crash_does_not_wait(log: FallbackLog) -> None:
    log.append(event("e1", "text"))
    log.append(event("e2"))
    os.truncate(log.path, log.path.stat().st_size - 10)
    assert log.waiting() == [event("e1", "text")]


def test_draining_hands_over_every_event_once_and_keeps_the_file(tmp_path: Path) -> None:
    log = FallbackLog(tmp_path / "fallback.jsonl")
    assert log.drain(NOW, lambda _event: None) == 0
    for number in range(2):
        log.append(NewEvent(f"id{number}", "t", "2026-11-21T03:14:07Z", {"n": number}))
    taken: list[NewEvent] = []
    assert log.drain(NOW, taken.append) == 2
    assert [event.id for event in taken] == ["id0", "id1"]
    assert log.waiting() == []
    assert len(list(tmp_path.glob("fallback.jsonl.merged-*"))) == 1


def test_what_could_not_be_taken_still_waits(tmp_path: Path) -> None:
    log = FallbackLog(tmp_path / "fallback.jsonl")
    log.append(NewEvent("id0", "t", "2026-11-21T03:14:07Z", {}))

    def refuse(_event: NewEvent) -> None:
        raise UnreachableError("the disk is full")

    with pytest.raises(UnreachableError, match="the disk is full"):
        log.drain(NOW, refuse)
    assert [event.id for event in log.waiting()] == ["id0"]
