"""Telegram's small HTML: which tags it takes, and what it says about all others."""

import html
import re
from typing import Final

TAGS: Final = frozenset(
    {"b", "strong", "i", "em", "u", "ins", "s", "strike", "del", "code", "pre", "a"}
    | {"span", "tg-spoiler", "tg-emoji", "blockquote"}
)
_TAG = re.compile(r"<(/?)([^\s<>/]*)([^<>]*)>")
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|#\d+|#x[0-9a-fA-F]+);")


class MarkupError(Exception):
    """What the Bot API says after "can't parse entities: "."""


def parse_html(text: str) -> str:
    """Return what people read; raises MarkupError unless every tag is known, closed and nested."""
    shown: list[str] = []
    open_tags: list[str] = []
    at = 0
    while at < len(text):
        start = text.find("<", at)
        if start < 0:
            break
        shown.append(_unescape(text[at:start]))
        offset = len(text[:start].encode())
        found = _TAG.match(text, start)
        if found is None:
            raise MarkupError(f'Unsupported start tag "" at byte offset {offset}')
        _follow(found, open_tags, offset)
        at = found.end()
    if open_tags:
        raise MarkupError(f'Can\'t find end tag corresponding to start tag "{open_tags[-1]}"')
    return "".join(shown) + _unescape(text[at:])


def _follow(found: re.Match[str], open_tags: list[str], offset: int) -> None:
    """Open or close one tag."""
    closing, tag = found[1] == "/", found[2].lower()
    if not closing:
        if tag not in TAGS:
            raise MarkupError(f'Unsupported start tag "{tag}" at byte offset {offset}')
        open_tags.append(tag)
        return
    if not open_tags:
        raise MarkupError(f"Unexpected end tag at byte offset {offset}")
    expected = open_tags.pop()
    if tag != expected:
        raise MarkupError(
            f'Unmatched end tag at byte offset {offset}, expected "</{expected}>", found "</{tag}>"'
        )


def _unescape(text: str) -> str:
    """Resolve the few entities that Telegram knows; any other "&" stands for itself."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)
