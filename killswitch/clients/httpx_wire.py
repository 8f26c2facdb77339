"""What the clients over httpx share: trust, quiet, and a vendor's words made safe to show."""

import logging
import ssl
from pathlib import Path

from killswitch.errors import RefusedError
from killswitch.secret import redact

MAX_BODY_BYTES = 4 * 1024 * 1024


def trust(ca_file: str | Path | None) -> ssl.SSLContext:
    """Return a context that verifies against `ca_file` alone, or else against the public CAs."""
    import httpx

    try:
        if ca_file:
            return ssl.create_default_context(cafile=str(ca_file))
        return httpx.create_ssl_context(trust_env=False)
    except OSError as error:
        problem = one_line(str(error.strerror or error))
    raise RefusedError(f"the ca_file cannot be used: {problem}")


def quieten(*names: str) -> None:
    """Keep vendors' loggers from naming URLs (with a token in them) and from writing to stderr."""
    for name in names:
        logger = logging.getLogger(name)
        logger.setLevel(logging.WARNING)
        if not logger.handlers:
            logger.addHandler(logging.NullHandler())


def one_line(text: str, limit: int = 200) -> str:
    """Return a vendor's text as one printable line, without any known secret."""
    line = " ".join(redact(text).split())
    return "".join(char if char.isprintable() else "?" for char in line)[:limit]


def describe(error: Exception, vendor: str) -> str:
    """Say what failed by the error's kind: the text of some kinds quotes the request's header."""
    import httpx

    match error:
        case httpx.ConnectTimeout() | httpx.PoolTimeout():
            return f"{vendor}: no connection in time"
        case httpx.TimeoutException():
            return f"{vendor}: no answer in time"
        case httpx.ConnectError():
            return f"{vendor}: no connection: {one_line(str(error))}"
        case _:
            return f"{vendor}: the connection failed ({type(error).__name__})"
