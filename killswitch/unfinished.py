"""Calls that must not be cut off: the process outlasts them, and none is begun a second time."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

LONGEST_S: Final = 900.0
"""How long such a call is waited for."""
_REST_S: Final = 0.1


@dataclass(slots=True)
class Call:
    """One such call; `told` is what it does, in words: "Vault is still erasing trading/"."""

    name: str
    told: str
    begun: float
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None
    ended: float = 0.0

    @property
    def took_s(self) -> float:
        """How long it took, or has taken until now."""
        return (self.ended or time.monotonic()) - self.begun


class Unfinished:
    """The calls of this process that are under way."""

    def __init__(self) -> None:
        self._calls: dict[str, Call] = {}
        self._lock = threading.Lock()

    def run(self, name: str, told: str, work: Callable[[], object]) -> None:
        """Do `work`, or wait for the one of the same name that is under way, and share its end."""
        with self._lock:
            call = self._calls.get(name)
            mine = call is None
            if call is None:
                call = self._calls[name] = Call(name, told, time.monotonic())
        if not mine:
            call.done.wait()
            if call.error is not None:
                raise call.error
            return
        try:
            work()
        except Exception as error:
            call.error = error
            raise
        finally:
            call.ended = time.monotonic()
            with self._lock:
                del self._calls[name]
            call.done.set()

    def under_way(self) -> tuple[Call, ...]:
        """Return the calls that have not come back."""
        with self._lock:
            return tuple(self._calls.values())


def outlast(calls: tuple[Call, ...], seconds: float, stop: Callable[[], bool]) -> None:
    """Wait until all `calls` have come back, at most so long, or until `stop` says so."""
    end = time.monotonic() + seconds
    for call in calls:
        while not call.done.wait(_REST_S) and time.monotonic() < end and not stop():
            continue


UNFINISHED: Final = Unfinished()
"""The registry of this process."""
