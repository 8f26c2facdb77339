"""Where an event goes when the journal cannot take it: a plain file, appended and synced."""

import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec

from killswitch.errors import UnreachableError
from killswitch.journal.store import GENESIS, Body, Event, NewEvent, chained


class FallbackLog:
    """One JSON event a line, mode 0600; the journal's own methods, without a chain."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, event: NewEvent) -> Event:
        """Append one line and force it to the disk."""
        raw = event.to_bytes()
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "r+b", buffering=0) as file:
                line = (b"\n" if _is_cut_off(handle) else b"") + raw + b"\n"
                if file.write(line) != len(line):
                    raise UnreachableError(f"fallback file {self.path}: no room for all of it")
                os.fsync(handle)
        except OSError as error:
            raise UnreachableError(f"fallback file {self.path}: {error.strerror}") from error
        return Event(0, GENESIS, raw, chained(GENESIS, raw))

    def find(self, event_id: str) -> Event | None:
        """Return the event with this id, read back from the file, or None."""
        for raw in self.lines():
            try:
                body = msgspec.json.decode(raw, type=Body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue  # a line cut off by a crash is not the event we look for
            if body.id == event_id:
                return Event(0, GENESIS, raw, chained(GENESIS, raw))
        return None

    def lines(self) -> list[bytes]:
        """Return what is waiting to be merged into the journal."""
        try:
            if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
                raise UnreachableError(f"fallback file {self.path}: not a plain file")
            # A line is empty where one thread took another's line, half written, for cut off.
            return [line for line in self.path.read_bytes().splitlines() if line]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise UnreachableError(f"fallback file {self.path}: {error.strerror}") from error

    def waiting(self) -> list[NewEvent]:
        """Return the events that wait to be merged; a line cut off by a crash is left out."""
        events = []
        for raw in self.lines():
            try:
                body = msgspec.json.decode(raw, type=Body)
            except (msgspec.DecodeError, ValueError, RecursionError):
                continue
            events.append(NewEvent(body.id, body.type, body.time, body.data))
        return events

    def drain(self, now: datetime, take: Callable[[NewEvent], object]) -> int:
        """Hand every waiting event to `take`, put the file aside, and return how many there were.

        The file is put aside first, so that nothing written meanwhile is lost, and never deleted.
        What was not taken is written back before the error of `take` goes on.
        """
        aside = self.path.with_name(f"{self.path.name}.merged-{now:%Y%m%dT%H%M%S.%f}")
        try:
            self.path.rename(aside)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise UnreachableError(f"fallback file {self.path}: {error.strerror}") from error
        events = FallbackLog(aside).waiting()
        taken = 0
        try:
            for event in events:
                take(event)
                taken += 1
        except BaseException:
            for event in events[taken:]:
                self.append(event)
            raise
        return len(events)


def _is_cut_off(handle: int) -> bool:
    """Return True when a crash left the last line without its end."""
    size = os.fstat(handle).st_size
    return size > 0 and os.pread(handle, 1, size - 1) != b"\n"
