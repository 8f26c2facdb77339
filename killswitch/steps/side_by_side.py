"""Many calls of one look at once, and what each answered."""

import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from killswitch.errors import UnreachableError, VendorError

WIDTH: Final = 8
ENOUGH_S: Final = 4.0
"""After this no further call of a look is begun: what was not asked is blind."""
K = TypeVar("K")
T = TypeVar("T")


def keep(into: dict[K, T | VendorError], key: K, read: Callable[[], T]) -> Callable[[], None]:
    """Return a call that puts what `read` returns, or the VendorError it raises, `into`.

    Until it is made, an error stands there.
    """
    into[key] = UnreachableError("not asked: the answers before it took too long")

    def call() -> None:
        try:
            into[key] = read()
        except VendorError as error:
            into[key] = error

    return call


def side_by_side(
    calls: Sequence[Callable[[], None]], width: int = WIDTH, *, enough_s: float = ENOUGH_S
) -> None:
    """Make `calls` in their order, at most `width` at once, and begin none after `enough_s`.

    Their own time-outs bound each. The caller's thread works along, so that no other need start.
    """
    end = time.monotonic() + enough_s
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    broken: list[Exception] = []
    for call in calls:
        waiting.put(call)

    def work() -> None:
        try:
            while not broken and time.monotonic() < end:
                waiting.get_nowait()()
        except queue.Empty:
            return
        except Exception as error:  # noqa: BLE001 (raised again below, in the caller's thread)
            broken.append(error)

    threads = []
    for _ in calls[1:width]:
        thread = threading.Thread(target=work, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads
            break
        threads.append(thread)
    work()
    for thread in threads:
        thread.join()
    if broken:
        raise broken[0]
