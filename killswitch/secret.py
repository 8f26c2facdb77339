"""Secrets that cannot be printed, and the last line of defence for those that vendors print."""

import base64
import json
import re
import threading
from typing import Final
from urllib.parse import quote

MASK: Final = "[secret]"

_known: set[str] = set()
_lock = threading.Lock()
# A Telegram bot token, wherever it comes from: it stands in every URL of that API.
_TELEGRAM_TOKEN = re.compile(r"\d{6,}:[A-Za-z0-9_-]{30,}")
# A shorter one would mask ordinary words, in signed texts too, and protects nothing.
_SHORTEST = 6


class Secret:
    """A credential: shown as ``[secret]`` everywhere, read only through `reveal`.

    Making one also teaches `redact` to mask its value in any text.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value
        _remember(value)

    def reveal(self) -> str:
        """Return the value, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a secret is never pickled")


def redact(text: str) -> str:
    """Return `text` with every known secret, in its usual encodings, replaced by a mask."""
    with _lock:
        known = sorted(_known, key=len, reverse=True)
    for value in known:
        text = text.replace(value, MASK)
    return _TELEGRAM_TOKEN.sub(MASK, text)


def _remember(value: str) -> None:
    stripped = value.strip()
    if len(stripped) < _SHORTEST:
        return
    raw = stripped.encode(errors="surrogatepass")
    forms = {
        stripped,
        quote(raw, safe=""),
        json.dumps(stripped)[1:-1],
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }
    with _lock:
        _known.update(forms)
