"""Importing the vendors' packages, one thread at a time.

They import each other in circles: two threads in the middle of it at once see half a module. The
types of the messages are prepared here, too, before two threads can use one at once.
"""

import importlib
import threading
from collections.abc import Mapping
from typing import Final

from killswitch.clients.telegram_wire import library
from killswitch.priming import prime

_TURN: Final = threading.Lock()
_KUBERNETES: Final = ("kubernetes.client.api_client", "kubernetes.client.configuration")
_MODULES: Final[Mapping[str, tuple[str, ...]]] = {
    "kubernetes": _KUBERNETES,
    "synced-secrets": _KUBERNETES,
    "bybit": ("pybit.unified_trading",),
    "kakunin": ("httpx",),
    "vault": ("requests", "hvac"),
    "telegram": ("httpx",),
}


def load(kind: str) -> None:
    """Import everything that the client of `kind` will import; raises ImportError.

    The client's own module is imported already: whoever calls this has made the client.
    """
    with _TURN:
        for name in _MODULES.get(kind, ()):
            importlib.import_module(name)
        if kind == "telegram":
            library()  # sets what the library reads from the environment as it is imported
        prime()
