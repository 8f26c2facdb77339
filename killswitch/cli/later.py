"""Writing in a thread of its own, in order: whoever puts something there never waits."""

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

PATIENCE_S: Final = 2.0
_POLL_S: Final = 0.02
_MOST: Final = 2000


class Later:
    """A queue of writes and the daemon thread that does them."""

    def __init__(self) -> None:
        self._writes: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._put = 0
        self._done = 0
        threading.Thread(target=self._work, name="screen", daemon=True).start()

    def put(self, write: Callable[[], object]) -> None:
        """Have `write` called later; dropped when the screen has been held for very long."""
        if self._put - self._done < _MOST:
            self._put += 1
            self._writes.put(write)

    def drain(self, patience_s: float = PATIENCE_S) -> None:
        """Wait until all is written, but not past `patience_s` without any progress."""
        done, since = self._done, time.monotonic()
        while self._done < self._put:
            time.sleep(_POLL_S)
            if self._done != done:
                done, since = self._done, time.monotonic()
            elif time.monotonic() - since > patience_s:
                return

    def _work(self) -> None:
        while True:
            write = self._writes.get()
            with suppress(Exception):  # a line that cannot be written costs itself alone
                write()
            self._done += 1
