"""Several calls to Vault side by side, each bounded, none waited for for ever."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from killswitch.errors import UnreachableError, VendorError

THREADS: Final = 8

P = TypeVar("P")
T = TypeVar("T")


class NotBegunError(UnreachableError):
    """There was no time left for it."""


def each(
    do: Callable[[P], T], items: Sequence[P], *, seconds: float = float("inf")
) -> list[T | VendorError]:
    """Return what `do` gives or raises for each item, in order; `THREADS` work side by side.

    After an UnreachableError, or after `seconds`, nothing more is begun: what was not is a
    NotBegunError. Daemons: a hung one never blocks the exit.
    """
    results: list[T | VendorError] = [NotBegunError("vault did not answer")] * len(items)
    todo, lock = iter(range(len(items))), threading.Lock()
    stop: list[Exception] = []
    end = time.monotonic() + seconds

    def work() -> None:
        while not stop and time.monotonic() < end:
            with lock:
                index = next(todo, None)
            if index is None:
                return
            try:
                results[index] = do(items[index])
            except VendorError as error:
                results[index] = error
                stop.extend([error] if isinstance(error, UnreachableError) else [])
            except Exception as error:  # noqa: BLE001  (a bug: raised again in the caller)
                stop.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(THREADS, len(items)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in stop:
        if not isinstance(error, VendorError):
            raise error
    return results
