"""Which line of a TOML text a key or table stands in: tomllib does not say."""

import re
from collections.abc import Iterator, Mapping

Place = tuple[str | int, ...]
"""A path into the parsed text: names of tables and keys, and numbers within arrays of tables."""

_KEY = r"""(?:[A-Za-z0-9_\-]+|"[^"]*"|'[^']*')"""
_ASSIGNMENT = re.compile(rf"^\s*({_KEY}(?:\s*\.\s*{_KEY})*)\s*=")
_HEADER = re.compile(r"^\s*(\[\[?)\s*([A-Za-z0-9_.\-\"' ]+?)\s*\]\]?\s*(?:#.*)?$")


def line_of(text: str, where: Place) -> int:
    """Return the line (from 1) of a key or table; the nearest table above it when unsure."""
    best = 1
    for number, place in _places(text):
        if place[: len(where)] == where:  # itself, or the first thing within it
            return number
        if place == where[: len(place)]:
            best = number
    return best


def _places(text: str) -> Iterator[tuple[int, Place]]:
    """Yield each line that opens a table or sets a key, with its place in the file."""
    counts: dict[tuple[str, ...], int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            names = _names(header[2])
            if header[1] == "[[":
                counts[names] = counts.get(names, -1) + 1
                inner = [deep for deep in counts if len(deep) > len(names)]
                for deep in inner:
                    if deep[: len(names)] == names:
                        del counts[deep]
            table = _numbered(names, counts)
            yield number, table
        elif assignment := _ASSIGNMENT.match(line):
            yield number, (*table, *_names(assignment[1]))


def _names(dotted: str) -> tuple[str, ...]:
    return tuple(part.strip("\"' ") for part in dotted.split("."))


def _numbered(names: tuple[str, ...], counts: Mapping[tuple[str, ...], int]) -> Place:
    place: list[str | int] = []
    for depth, name in enumerate(names, start=1):
        place.append(name)
        if names[:depth] in counts:
            place.append(counts[names[:depth]])
    return tuple(place)
