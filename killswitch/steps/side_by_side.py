"""Many calls of one look at once, and what each answered."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, TypeVar

from killswitch.errors import UnreachableError, VendorError

WIDTH: Final = 8
ENOUGH_S: Final = 9.0
"""After this no further call of a look is begun: what was not asked is blind."""
ENOUGH_FAILING_S: Final = 4.0
"""The same where a call went unanswered: the others would wait as long."""
K = TypeVar("K")
T = TypeVar("T")


def keep(into: dict[K, T | VendorError], key: K, read: Callable[[], T]) -> Callable[[], bool]:
    """Return a call that puts what `read` returns, or the VendorError it raises, `into`.

    Until it is made, an error stands there. It returns False when nobody answered.
    """
    into[key] = UnreachableError("not asked: the answers before it took too long")

    def call() -> bool:
        try:
            into[key] = read()
        except VendorError as error:
            into[key] = error
            return not isinstance(error, UnreachableError)
        return True

    return call


def side_by_side(
    calls: Sequence[Callable[[], bool]], width: int = WIDTH, *, enough_s: float = ENOUGH_S
) -> None:
    """Make `calls` in their order, at most `width` at once, and begin none after `enough_s`.

    Their own time-outs bound each. The caller's thread works along, so that no other need start.
    """
    start = time.monotonic()
    end = start + enough_s
    waiting: queue.SimpleQueue[Callable[[], bool]] = queue.SimpleQueue()
    broken: list[Exception] = []
    for call in calls:
        waiting.put(call)

    def work() -> None:
        nonlocal end
        try:
            while not broken and time.monotonic() < end:
                if not waiting.get_nowait()():
                    end = min(end, start + ENOUGH_FAILING_S)
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001 (raised again below, in the caller's thread)
            broken.append(error)

    threads = _started(work, len(calls[1:width]))
    work()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]


def _started(work: Callable[[], None], number: int) -> list[threading.Thread]:
    threads: list[threading.Thread] = []
    with suppress(RuntimeError):  # no more threads: those that run do it all
        for _ in range(number):
            thread = threading.Thread(target=work, daemon=True)
            thread.start()
            threads.append(thread)
    return threads
