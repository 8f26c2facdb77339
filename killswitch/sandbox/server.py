"""One loopback HTTP server per vendor: what they share. Each subclass speaks one wire format."""

import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from werkzeug.exceptions import HTTPException
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

COMMON_TRAPS: Mapping[str, str] = {
    "hang": "takes every request and never answers",
    "drop": "cuts every connection in the middle of the reply",
    "garbage": "answers 200 with a page that is not the API's",
    "down": "answers 503 to everything",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived: what tests hold a client to."""

    method: str
    path: str
    query: str
    status: int
    write: bool


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log(self, type: str, message: str, *args: object) -> None:  # noqa: A002 (the base's name)
        """Print nothing: the sandbox keeps its own log in `VendorServer.seen`."""


class VendorServer:
    """A small, stateful stand-in for one vendor, on 127.0.0.1 only.

    Subclasses set `name`, `TRAPS` (name to one sentence), implement `respond` and `live`, and
    guard their state with `self.lock`. `traps` may be changed while the server runs.
    """

    name: ClassVar[str]
    TRAPS: ClassVar[Mapping[str, str]] = {}

    def __init__(
        self, *, traps: Iterable[str] = (), port: int = 0, clock: Callable[[], float] = time.time
    ) -> None:
        unknown = set(traps) - set(self.all_traps())
        if unknown:
            raise ValueError(f"{self.name} has no trap {sorted(unknown)}")
        self.traps = set(traps)
        self.clock = clock
        self.lock = threading.RLock()
        self.seen: list[Seen] = []
        self._closing = threading.Event()
        self._server = make_server(
            "127.0.0.1", port, self._wsgi, threaded=True, request_handler=_Handler
        )
        self._server.daemon_threads = True  # type: ignore[attr-defined]  # ThreadingMixIn's own
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )

    @classmethod
    def all_traps(cls) -> dict[str, str]:
        """Return every trap this server knows, with what it does."""
        return {**COMMON_TRAPS, **cls.TRAPS}

    def start(self) -> None:
        """Serve in the background."""
        self._thread.start()

    def stop(self) -> None:
        """Release hanging requests and close the port."""
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()

    def respond(self, request: Request) -> Response:
        """Answer one request as the vendor would. May raise werkzeug's HTTPException."""
        raise NotImplementedError

    def is_write(self, request: Request) -> bool:
        """Whether this request would change the vendor's state."""
        return request.method not in {"GET", "HEAD", "LIST", "OPTIONS"}

    def live(self) -> list[str]:
        """Name everything in scope of a halt that is live by the server's own books."""
        raise NotImplementedError

    def hang(self, seconds: float | None = None) -> None:
        """Hold the calling request until `stop`, or for at most `seconds`."""
        self._closing.wait(seconds)

    def cut(self, request: Request) -> None:
        """Cut the connection of the calling request without an answer."""
        connection: socket.socket = request.environ["werkzeug.socket"]
        connection.shutdown(socket.SHUT_RDWR)

    @property
    def writes(self) -> list[Seen]:
        """The requests so far that would change state."""
        return [seen for seen in self.seen if seen.write]

    def _wsgi(self, environ: dict[str, object], start_response: object) -> Iterable[bytes]:
        request = Request(environ)
        try:
            response = self._trapped(request) or self.respond(request)
        except HTTPException as error:
            response = Response(error.description, status=error.code)
        self.seen.append(
            Seen(
                method=request.method,
                path=request.path,
                query=request.query_string.decode(),
                status=response.status_code,
                write=self.is_write(request),
            )
        )
        return response(environ, start_response)  # type: ignore[arg-type]  # WSGI's own types

    def _trapped(self, request: Request) -> Response | None:
        if "hang" in self.traps:
            self.hang()
            self.cut(request)
        if "drop" in self.traps:
            self.cut(request)
        if "garbage" in self.traps:
            return Response("<html>welcome</html>", mimetype="text/html")
        if "down" in self.traps:
            return Response("upstream unavailable", status=503, mimetype="text/plain")
        return None
