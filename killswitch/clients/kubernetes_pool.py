"""Connections to one API server: TLS and proxy as the kubeconfig says, and no endless head.

The vendor's client wants keys as files, and takes proxies from the environment; so its pool is
replaced by this one.
"""

import ssl
import threading
from contextlib import suppress
from socket import SHUT_RDWR, socket
from typing import TYPE_CHECKING, Any

from killswitch.clients.kubeconfig import Access

if TYPE_CHECKING:
    from urllib3 import PoolManager


class CutError(Exception):
    """We stopped reading."""


def make_pool(access: Access, read_s: float) -> "PoolManager":
    """Return the pool for `access`; each answer's head must be there within `read_s`."""
    import urllib3
    from urllib3.util import make_headers

    more: dict[str, Any] = {"maxsize": 32, "retries": False}
    if access.tls is not None:
        more["ssl_context"] = access.tls
        if access.tls.verify_mode is ssl.CERT_NONE:  # loopback only; the library warns each time
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
    if access.tls_server_name:
        more["server_hostname"] = access.tls_server_name
    if access.proxy:
        headers = {}
        if access.proxy_user is not None:
            headers = make_headers(proxy_basic_auth=access.proxy_user.reveal())
        pool: PoolManager = urllib3.ProxyManager(access.proxy, proxy_headers=headers, **more)
    else:
        pool = urllib3.PoolManager(**more)
    pool.pool_classes_by_scheme = _classes(read_s)
    return pool


def _classes(read_s: float) -> dict[str, Any]:
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.response import HTTPResponse

    class Plain(HTTPConnection):
        def putheader(self, header: str | bytes, *values: Any) -> None:
            name = header if isinstance(header, str) else header.decode()
            # What stands after the mark tells values of the same name apart.
            super().putheader(name.partition("#")[0], *values)

        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as its base does
            with _Watch(self.sock, read_s):
                return super().getresponse()

    class Secure(Plain, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Watch:
    """Ends a connection whose answer's head is late: its own time-out begins anew at every byte."""

    def __init__(self, connection: socket | None, limit_s: float) -> None:
        self._connection = connection
        self._late = False
        # A little later than the socket's own, which says more exactly what happened.
        self._timer = threading.Timer(limit_s + 0.1, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._late:
            raise CutError("dripping in too slowly") from None

    def _cut(self) -> None:
        self._late = True
        if self._connection is not None:
            with suppress(OSError):
                # Not the TLS socket's own: it would have the reader go on in clear.
                socket.shutdown(self._connection, SHUT_RDWR)
