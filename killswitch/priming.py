"""Making the types of all messages known before two threads can meet one for the first time.

msgspec 0.22 collects what it knows of a type at that type's first use. Two threads that do so at
once crash the process: the second one reads what the first has not finished.
"""

from collections.abc import Iterator

import msgspec


def prime() -> None:
    """Prepare every message type of killswitch that is imported by now; call it in one thread."""
    for shape in below(msgspec.Struct):
        if shape.__module__.startswith("killswitch."):
            msgspec.json.Decoder(shape)


def below(shape: type[msgspec.Struct]) -> Iterator[type[msgspec.Struct]]:
    """Yield every type that is derived from `shape`, at any depth."""
    for child in shape.__subclasses__():
        yield child
        yield from below(child)
