"""Where another system may be: behind https, or on this very machine."""

import ipaddress
from urllib.parse import SplitResult, urlsplit


def is_loopback(host: str) -> bool:
    """Return True for a host that can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Return the host that `url` names, "" for none; ValueError if it cannot be told."""
    return _split(url).hostname or ""


def checked_url(url: str) -> str:
    """Return `url` without its last slash, if a credential may be sent there.

    Raises:
        ValueError: it is not https (or http to this machine), or holds more than host and path;
            the text names the host at most, because the rest may hold a password.
    """
    parts = _split(url)
    host = parts.hostname or ""
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise ValueError(f"https is required except for loopback: {host or 'no host'}")
    # Others read a backslash as a slash: the host they reach would not be the one seen here.
    if "@" in url or "?" in url or "#" in url or "\\" in url:
        raise ValueError(f"an address has no user, query, fragment or backslash: {host}")
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    # The parser drops line breaks in silence and quotes what it cannot read, passwords and all.
    try:
        parts = urlsplit(url)
        if url.isprintable() and " " not in url and parts.port != 0:
            return parts
    except ValueError:
        pass
    raise ValueError("this cannot be read as an address like https://host:443")
