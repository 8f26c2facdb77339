"""How Bybit is spoken to: pybit without its traps, its errors in our words, pacing, shapes."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.secret import redact
from killswitch.steps.bybit import DeadKeyError

S = TypeVar("S")
T = TypeVar("T")
MAX_BODY: Final = 4 * 1024 * 1024
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


class ClockError(UnreachableError):
    """The server's clock and ours differ by more than the window (10002)."""


class _Envelope(msgspec.Struct):
    retCode: int  # noqa: N815 (Bybit's name, as all of these)
    result: Any


class UserKey(msgspec.Struct):
    """The calling key as query-api tells it."""

    apiKey: str  # noqa: N815
    userID: int | str  # noqa: N815
    isMaster: bool  # noqa: N815
    readOnly: int  # noqa: N815
    permissions: dict[str, list[str] | None]

    @property
    def trades(self) -> bool:
        """Whether it may place and cancel orders."""
        rights = {right for rights in self.permissions.values() for right in rights or ()}
        return bool(rights & {"Order", "SpotTrade", "OptionsTrade", "DerivativesTrade"})

    @property
    def manages(self) -> bool:
        """Whether it may delete keys: for Bybit that is any right to move funds."""
        return bool(
            {"AccountTransfer", "SubMemberTransfer", "Withdraw"}
            & set(self.permissions.get("Wallet") or ())
        )


class ServerTime(msgspec.Struct):
    """The server's clock, in nanoseconds."""

    timeNano: str  # noqa: N815


class _Sub(msgspec.Struct):
    uid: str


class SubMembers(msgspec.Struct):
    """One answer of query-sub-members or submembers; the last page's cursor is "0"."""

    subMembers: list[_Sub] | None  # noqa: N815
    nextCursor: str = "0"  # noqa: N815


class _Key(msgspec.Struct):
    apiKey: str  # noqa: N815


class SubKeys(msgspec.Struct):
    """One answer of sub-apikeys."""

    result: list[_Key] | None
    nextPageCursor: str = ""  # noqa: N815


class _Symbol(msgspec.Struct):
    symbol: str


class OrderPage(msgspec.Struct):
    """One page of open orders."""

    list: list[_Symbol] | None
    nextPageCursor: str = ""  # noqa: N815


class _Position(msgspec.Struct):
    symbol: str
    side: str
    size: str

    @property
    def text(self) -> str:
        """The position in words: "BTCUSDT long 0.40"."""
        return f"{self.symbol} {'long' if self.side == 'Buy' else 'short'} {self.size}"


class PositionPage(msgspec.Struct):
    """One page of positions."""

    list: list[_Position] | None

    @property
    def open(self) -> tuple[_Position, ...]:
        """The positions that are open: an empty one has no side."""
        return tuple(position for position in self.list or () if position.side in {"Buy", "Sell"})


class Cancelled(msgspec.Struct):
    """What cancel-all acknowledges: "0" is a no."""

    success: str = "1"


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


class Pace:
    """Lets at most `per_second` calls start in any second; a wait beyond `longest_s` is refused."""

    def __init__(self, per_second: int, *, longest_s: float = 10.0) -> None:
        self._starts: deque[float] = deque(maxlen=per_second)
        self._longest_s = longest_s
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for a turn."""
        with self._lock:
            now = time.monotonic()
            full = len(self._starts) == self._starts.maxlen
            start = max(now, self._starts[0] + 1.0) if full else now
            if start - now > self._longest_s:
                raise UnreachableError("too many calls are waiting for bybit's rate limit")
            self._starts.append(start)
        time.sleep(start - now)


def side_by_side(look: Callable[[S], T], items: Iterable[S], *, at_once: int = 8) -> list[T]:
    """Return look(item) of every item in order, made in up to `at_once` daemon threads."""
    todo = deque(enumerate(items))
    done: dict[int, T] = {}
    failed: list[BaseException] = []

    def work() -> None:
        while not failed:
            try:
                number, item = todo.popleft()
            except IndexError:
                return
            try:
                done[number] = look(item)
            except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
                failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(todo)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [done[number] for number in sorted(done)]


def new_transport() -> Any:
    """Return the connection pool for all sessions: bounds bodies, refuses redirects."""
    from requests import Response
    from requests.adapters import HTTPAdapter

    class Transport(HTTPAdapter):
        def send(self, request: Any, *args: Any, **options: Any) -> Response:
            response = super().send(request, *args, **{**options, "stream": True})
            if 300 <= response.status_code < 400:
                response.close()
                raise RefusedError(f"bybit answered a redirect ({response.status_code})")
            body = bytearray()
            for chunk in response.iter_content(64 * 1024):
                body += chunk
                if len(body) > MAX_BODY:
                    response.close()
                    raise GarbledError(f"bybit answered more than {MAX_BODY} bytes")
            response._content = bytes(body)  # noqa: SLF001 (requests has no other way in)
            return response

    return Transport(pool_maxsize=64)


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


def _translated(error: Exception) -> VendorError:
    from pybit.exceptions import FailedRequestError, InvalidRequestError
    from requests import exceptions

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
        case exceptions.Timeout():
            failure = UnreachableError("bybit did not answer in time")
        case exceptions.ChunkedEncodingError() | exceptions.ContentDecodingError():
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
