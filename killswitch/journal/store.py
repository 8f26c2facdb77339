"""The journal: one SQLite file of events, each bound to the one before by its hash.

hash = SHA-256(previous hash || body), body = the RFC 8785 bytes of the event, stored as they were
hashed. The triggers stop accidents, `INSERT OR REPLACE` among them; what stops a forger is the
chain together with a head that is kept elsewhere.
"""

import hashlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import rfc8785

from killswitch.errors import UnreachableError
from killswitch.secret import redact

GENESIS: Final = bytes(32)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS events(
  seq INTEGER PRIMARY KEY, prev BLOB NOT NULL, body BLOB NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS events_by_id ON events(json_extract(CAST(body AS TEXT), '$.id'));
CREATE TRIGGER IF NOT EXISTS events_no_update BEFORE UPDATE ON events
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_no_delete BEFORE DELETE ON events
  BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER IF NOT EXISTS events_next_seq BEFORE INSERT ON events
  WHEN NEW.seq IS NOT (SELECT coalesce(max(seq), 0) + 1 FROM events)
  BEGIN SELECT RAISE(ABORT, 'append-only: next sequence number only'); END;
CREATE TRIGGER IF NOT EXISTS events_chained BEFORE INSERT ON events
  WHEN NEW.prev IS NOT coalesce(
    (SELECT hash FROM events ORDER BY seq DESC LIMIT 1), zeroblob(32))
  BEGIN SELECT RAISE(ABORT, 'append-only: wrong previous hash'); END;
"""
_ALL: Final = "SELECT seq, prev, body, hash FROM events ORDER BY seq"
_NEWEST: Final = "SELECT seq, prev, body, hash FROM events ORDER BY seq DESC LIMIT 1"
_BY_ID: Final = """
SELECT seq, prev, body, hash FROM events WHERE json_extract(CAST(body AS TEXT), '$.id') = ?
"""


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to be appended. `time` is RFC 3339 UTC; `data` is JSON without secrets."""

    id: str
    type: str
    time: str
    data: Mapping[str, object]

    def to_bytes(self) -> bytes:
        """Return the RFC 8785 bytes; text in `data` passes `redact` as a last defence.

        The order does not: it was redacted before it was signed, and must stay as it was signed.
        """
        body = {"v": 1, "id": self.id, "type": self.type, "time": self.time, "data": self.data}
        plain = msgspec.to_builtins(body)
        signed = plain["data"].get("order")
        redacted = _redacted(plain)
        if isinstance(signed, str):
            redacted["data"]["order"] = signed
        return rfc8785.dumps(redacted)


class Body(msgspec.Struct, frozen=True):
    """A stored event's body, parsed."""

    v: int
    id: str
    type: str
    time: str
    data: dict[str, object]


@dataclass(frozen=True, slots=True)
class Event:
    """A stored event: its place in the chain and its exact bytes."""

    seq: int
    prev: bytes
    raw: bytes
    hash: bytes

    @property
    def body(self) -> Body:
        """The parsed body; raises msgspec.DecodeError when the bytes are not an event."""
        return msgspec.json.decode(self.raw, type=Body)


@dataclass(frozen=True, slots=True)
class Head:
    """Where the journal ends: how many events, and the newest hash in hex."""

    size: int
    hash: str


def chained(prev: bytes, raw: bytes) -> bytes:
    """Return the hash of an event with body `raw` after an event with hash `prev`."""
    return hashlib.sha256(prev + raw).digest()


class Journal:
    """One journal file; every call opens it anew, so any thread and process may use it.

    Args:
        path: created with mode 0600 at the first append, its folder with 0700.
        busy_s: how long to wait for another process that is writing.

    Raises, from every method: UnreachableError when the file cannot be read or written.
    """

    def __init__(self, path: Path, *, busy_s: float = 0.2) -> None:
        self.path = path
        self._busy_s = busy_s

    def append(self, event: NewEvent) -> Event:
        """Append durably and return the stored event; an event already there is returned."""
        raw = event.to_bytes()
        self._make_file()
        with self._open() as connection:
            connection.executescript(_SCHEMA)
            connection.execute("BEGIN IMMEDIATE")
            found = next(iter(_select(connection, _BY_ID, event.id)), None)
            if found is None:
                last = next(iter(_select(connection, _NEWEST)), None)
                prev = last.hash if last else GENESIS
                seq = last.seq + 1 if last else 1
                found = Event(seq, prev, raw, chained(prev, raw))
                connection.execute(
                    "INSERT INTO events(seq, prev, body, hash) VALUES (?, ?, ?, ?)",
                    (found.seq, found.prev, found.raw, found.hash),
                )
            connection.execute("COMMIT")
            return found

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, read from the file, or None."""
        return next(iter(self._read(_BY_ID, event_id)), None)

    def events(self) -> list[Event]:
        """Return all events in order; none when there is no journal yet."""
        return self._read(_ALL)

    def head(self) -> Head:
        """Return the size and the newest hash."""
        last = next(iter(self._read(_NEWEST)), None)
        return Head(last.seq, last.hash.hex()) if last else Head(0, GENESIS.hex())

    def _read(self, query: str, *arguments: str) -> list[Event]:
        try:
            self.path.stat()
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnreachableError(f"journal {self.path}: {error.strerror}") from error
        with self._open() as connection:
            if connection.execute("SELECT 1 FROM sqlite_master").fetchone() is None:
                return []  # a crash came between making the file and its first event
            return _select(connection, query, *arguments)

    def _make_file(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise UnreachableError(f"journal {self.path}: {error.strerror}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        try:
            # isolation_level None: transactions are begun and ended by our own words only.
            opened = sqlite3.connect(self.path, timeout=self._busy_s, isolation_level=None)
            with closing(opened) as connection:
                connection.execute("PRAGMA journal_mode=DELETE")
                connection.execute("PRAGMA synchronous=EXTRA")
                connection.execute("PRAGMA fullfsync=ON")
                connection.execute("PRAGMA recursive_triggers=ON")
                yield connection
        except sqlite3.Error as error:
            raise UnreachableError(f"journal {self.path}: {error}") from error


def _select(connection: sqlite3.Connection, query: str, *arguments: str) -> list[Event]:
    return [_event(row) for row in connection.execute(query, arguments)]


def _event(row: tuple[int, object, object, object]) -> Event:
    seq, prev, raw, digest = row
    return Event(seq, _bytes(prev), _bytes(raw), _bytes(digest))


def _bytes(stored: object) -> bytes:
    # A forger's table may hold other types: then the chain does not fit, and `verify` says so.
    return stored if isinstance(stored, bytes) else str(stored).encode()


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return _text(value)
        case dict():
            return {_text(str(key)): _redacted(item) for key, item in value.items()}
        case list() | tuple():
            return [_redacted(item) for item in value]
        case _:
            return value


def _text(value: str) -> str:
    # Half a character, as some answers hold, must not cost the whole event.
    return redact(value.encode(errors="replace").decode())
