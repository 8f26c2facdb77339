"""Waiting for a call that may never return, for a bounded time."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

from killswitch.errors import UnreachableError

T = TypeVar("T")


def within(seconds: float, what: str, call: Callable[[], T]) -> T:
    """Return what `call` returns, or raise what it raises; run in a daemon thread of its own.

    Raises:
        UnreachableError: nothing came back in time. The call goes on, and nobody waits for it.
    """
    answers: queue.SimpleQueue[tuple[list[T], Exception | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(([call()], None))
        except Exception as error:  # noqa: BLE001 (handed to whoever waits)
            answers.put(([], error))

    threading.Thread(target=run, name=what, daemon=True).start()
    try:
        values, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise UnreachableError(f"{what}: no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return values[0]
