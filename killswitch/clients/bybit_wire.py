"""How Bybit is spoken to: pybit without its traps, and its errors in our words."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import redact
from killswitch.steps.bybit_port import DeadKeyError

T = TypeVar("T")
MAX_BODY: Final = 4 * 1024 * 1024
MAX_PAGES: Final = 20
CLOCK: Final = 10002
DEAD: Final = {10003, -2015}
BUSY: Final[Mapping[int, str]] = {
    10000: "server time-out",
    CLOCK: "the clocks differ",
    10006: "rate limited",
    10016: "server error",
    10018: "rate limited",
    10429: "rate limited",
}
REFUSED: Final[Mapping[int, str]] = {
    10001: "a parameter is wrong",
    10004: "wrong secret, the signature does not match",
    10005: "permission denied, the key lacks this right",
    10007: "authentication failed",
    10008: "the account is banned",
    10009: "this address is banned",
    10010: "THIS ADDRESS IS NOT ON THE KEY'S IP LIST",
    10017: "no such route",
    10024: "compliance rules forbid it",
    10027: "trading is banned on this account",
    10028: "only for unified accounts",
    33004: "the key has expired",
    81007: "keys cannot be managed by API in this region",
}
# Bybit repeats what was signed in this message, key id and payload included.
_ECHOES: Final = {CLOCK, 10004}
# Bybit percent-encodes cursors; whatever would be encoded again would break the signature.
_SAFE_CURSOR: Final = re.compile(r"[A-Za-z0-9%+/=_.:,~-]+")


class ClockError(UnreachableError):
    """The server's clock and ours differ by more than the window (10002)."""


class _Envelope(msgspec.Struct):
    retCode: int  # noqa: N815 (Bybit's name)
    result: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer; `trace` is Bybit's own id of the request."""

    result: Any
    trace: str

    def parse(self, shape: type[T]) -> T:
        """Return the result as `shape`, or raise GarbledError."""
        try:
            return msgspec.convert(self.result, type=shape, strict=False)
        except msgspec.ValidationError as error:
            problem = f"bybit answered in another shape: {redact(str(error))}"
        raise GarbledError(problem)


def safe_cursor(cursor: str) -> str:
    """Return a page's cursor, or raise GarbledError if it could not be signed."""
    if not _SAFE_CURSOR.fullmatch(cursor):
        raise GarbledError("bybit's cursor holds characters that cannot be signed")
    return cursor


def new_transport() -> Any:
    """Return the connection pool for all sessions: bounds bodies, refuses redirects.

    A body is read as it comes in, because a longer read is not bounded by any time-out: each byte
    that drips in begins it anew.
    """
    from requests import Response
    from requests.adapters import HTTPAdapter

    class Transport(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Response:
            response = super().send(request, *args, **{**options, "stream": True})
            if 300 <= response.status_code < 400:
                response.close()
                raise RefusedError(f"bybit answered a redirect ({response.status_code})")
            body, end = bytearray(), time.monotonic() + sum(options["timeout"])
            while chunk := response.raw.read1(64 * 1024, decode_content=True):
                body += chunk
                if len(body) > MAX_BODY:
                    response.close()
                    raise GarbledError(f"bybit answered more than {MAX_BODY} bytes")
                if time.monotonic() > end:
                    response.close()
                    raise UnreachableError("bybit's answer drips too slowly")
            response._content = bytes(body)  # noqa: SLF001 (requests has no other way in)
            return response

    return Transport(pool_maxsize=512)


def new_session(
    transport: Any,
    *,
    endpoint: str,
    ca_file: str | None,
    offset_ms: Callable[[], int],
    **options: Any,
) -> Any:
    """Return a pybit session that neither retries, prints, follows nor shows its secret."""
    from pybit.unified_trading import HTTP

    class Session(HTTP):  # type: ignore[misc]  # pybit carries no types
        def _prepare_headers(
            self, payload: str, recv_window: int, content_type: str = "application/json"
        ) -> dict[str, str]:
            timestamp = int(time.time() * 1000) + offset_ms()
            return {
                "Content-Type": content_type,
                "X-BAPI-API-KEY": self.api_key,
                "X-BAPI-SIGN": self._auth(payload, recv_window, timestamp),
                "X-BAPI-SIGN-TYPE": "2",
                "X-BAPI-TIMESTAMP": str(timestamp),
                "X-BAPI-RECV-WINDOW": str(recv_window),
            }

        def __repr__(self) -> str:
            return f"<bybit session for {self.endpoint}>"

    logger = logging.getLogger("pybit._http_manager")
    before = logger.handlers[:]
    # An empty set of retry codes would restore pybit's own, whose waits can fail or never end.
    session = Session(retry_codes={-1}, return_response_headers=True, **options)
    logger.handlers[:] = before  # pybit adds one that prints with every session
    logger.disabled = True
    session.endpoint = endpoint
    session.client.trust_env = False
    session.client.max_redirects = 0
    session.client.verify = ca_file or True
    session.client.mount("https://", transport)
    session.client.mount("http://", transport)
    return session


def call(method: Callable[..., Any], parameters: Mapping[str, object]) -> Reply:
    """Call one method of a pybit session; every failure is a VendorError without a secret."""
    try:
        body, _, headers = method(**parameters)
        envelope = msgspec.convert(body, type=_Envelope)
        return Reply(envelope.result, str(headers.get("Traceid", "")))
    except Exception as error:  # noqa: BLE001 (pybit's errors have no common base)
        failure = _translated(error)
    # Raised out here so that no vendor's text, which may echo a key, hangs on to it.
    raise failure


def evidence(replies: Iterable[Reply]) -> dict[str, str]:
    """Return what is worth keeping of successful answers."""
    traces = " ".join(reply.trace for reply in replies if reply.trace)
    return {"retCode": "0"} | ({"traceId": traces} if traces else {})


def _translated(error: Exception) -> VendorError:
    from pybit.exceptions import FailedRequestError, InvalidRequestError
    from requests import exceptions
    from urllib3 import exceptions as raw

    if isinstance(error, VendorError):
        return error
    if isinstance(error, InvalidRequestError):
        return _of_code(error.status_code, str(error.message))
    if isinstance(error, FailedRequestError):
        return _of_status(error.status_code, local=error.resp_headers is None)
    failure: VendorError
    match error:
        case exceptions.TooManyRedirects():
            failure = RefusedError("bybit answered a redirect")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            failure = RefusedError("bybit's certificate is not trusted")
        case exceptions.Timeout() | raw.ReadTimeoutError():
            failure = UnreachableError("bybit did not answer in time")
        case raw.ProtocolError() | raw.DecodeError():
            failure = GarbledError("bybit's answer was cut off")
        case exceptions.RequestException():
            failure = UnreachableError(f"no connection to bybit ({type(error).__name__})")
        case _:
            failure = GarbledError(f"bybit's answer is not understood ({type(error).__name__})")
    return failure


def _of_code(code: object, message: str) -> VendorError:
    try:
        number = int(str(code))
    except ValueError:
        return GarbledError("bybit answered with a code that is no number")
    said = "" if number in _ECHOES else " ".join(redact(message).split())[:120]
    quoted = f"bybit answered {number}" + (f' "{said}"' if said else "")
    if number in DEAD:
        return DeadKeyError(f"answers {number}: the key is dead")
    if number == CLOCK:
        return ClockError(f"{quoted}: {BUSY[number]}")
    if number in BUSY:
        return UnreachableError(f"{quoted}: {BUSY[number]}")
    if number in REFUSED:
        return RefusedError(f"{quoted}: {REFUSED[number]}")
    return GarbledError(quoted)


def _of_status(status: int, *, local: bool) -> VendorError:
    if local:
        return GarbledError("bybit's answer is not JSON")
    if status == 401:
        return DeadKeyError("answers HTTP 401: the key is dead")
    if status == 429 or status >= 500:
        return UnreachableError(f"bybit answered HTTP {status}")
    hint = " (address limit or region)" if status == 403 else ""
    return RefusedError(f"bybit answered HTTP {status}{hint}")
