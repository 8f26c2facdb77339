"""Many calls of one look at once, and what each answered."""

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from killswitch.errors import VendorError

WIDTH: Final = 8
K = TypeVar("K")
T = TypeVar("T")


def keep(into: dict[K, T | VendorError], key: K, read: Callable[[], T]) -> Callable[[], None]:
    """Return a call that puts what `read` returns, or the VendorError it raises, `into`."""

    def call() -> None:
        try:
            into[key] = read()
        except VendorError as error:
            into[key] = error

    return call


def side_by_side(calls: Sequence[Callable[[], None]], width: int = WIDTH) -> None:
    """Make `calls`, at most `width` at once; their own time-outs bound them.

    The caller's thread works along, so that no other need start.
    """
    waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
    broken: list[Exception] = []
    for call in calls:
        waiting.put(call)

    def work() -> None:
        try:
            while not broken:
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
