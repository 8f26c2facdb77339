"""Making the types of all messages known before two threads can meet one for the first time.

msgspec 0.22 collects what it knows of a type at that type's first use. Two threads that do so at
once crash the process: the second one reads what the first has not finished.
"""

import threading
from collections.abc import Iterator
from typing import Final

import msgspec

_TURN: Final = threading.Lock()


def prime() -> None:
    """Prepare every message type of killswitch that is imported by now.

    To be called after the imports and before the first thread; again after a later import.
    """
    with _TURN:
        for shape in below(msgspec.Struct):
            if shape.__module__.startswith("killswitch."):
                msgspec.json.Decoder(shape)


def below(shape: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Yield every type that is derived from `shape`, at any depth."""
    for child in shape.__subclasses__():
        yield child
        yield from below(child)
