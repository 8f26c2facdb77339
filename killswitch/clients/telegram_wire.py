"""One exchange with Telegram: a loop of its own, bounded, and errors that tell no token."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import timedelta
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from killswitch.clients.httpx_wire import MAX_BODY_BYTES, describe, one_line, quieten
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError

if TYPE_CHECKING:
    import httpx
    import telegram

_T = TypeVar("_T")


def library() -> ModuleType:
    """Import python-telegram-bot, its loggers quiet: at INFO they name addresses with the token."""
    # Without it the library warns at every reading of a 429.
    os.environ.setdefault("PTB_TIMEDELTA", "1")
    quieten("httpx", "httpcore", "telegram")
    import telegram

    return telegram


def exchange(
    use: "Callable[[telegram.Bot], Awaitable[_T]]",
    *,
    token: str,
    base_url: str,
    verify: ssl.SSLContext,
    timeout_s: tuple[float, float],
    limit_s: float,
) -> _T:
    """Run `use` with a bot within `limit_s`, DNS included; raises nothing but VendorError."""
    error: Exception
    try:
        return _bounded(
            _exchange(use, token=token, base_url=base_url, verify=verify, timeout_s=timeout_s),
            limit_s,
        )
    except VendorError:
        raise
    except Exception as caught:  # noqa: BLE001 (whatever the library raises becomes ours)
        error = caught
    # Raised out here, so that the library's error and its request are not in the chain.
    raise _translated(error)


def seconds(wait: float | timedelta) -> float:
    """Return what a 429 asks to wait for."""
    return wait.total_seconds() if isinstance(wait, timedelta) else float(wait)


def _bounded(work: Coroutine[object, object, _T], limit_s: float) -> _T:
    # Not asyncio.run: that one waits for the thread that is stuck in DNS, however long it takes.
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(asyncio.wait_for(work, limit_s))
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _exchange(
    use: "Callable[[telegram.Bot], Awaitable[_T]]",
    *,
    token: str,
    base_url: str,
    verify: ssl.SSLContext,
    timeout_s: tuple[float, float],
) -> _T:
    telegram = library()
    from telegram.request import HTTPXRequest

    connect_s, read_s = timeout_s
    request = HTTPXRequest(
        connection_pool_size=1,
        connect_timeout=connect_s,
        read_timeout=read_s,
        write_timeout=read_s,
        pool_timeout=connect_s,
        httpx_kwargs={
            "trust_env": False,
            "verify": verify,
            "headers": {"Accept-Encoding": "identity"},
            "event_hooks": {"response": [_guard]},
        },
    )
    try:
        bot = telegram.Bot(token, base_url=base_url, request=request, get_updates_request=request)
        return await use(bot)
    finally:
        await request.shutdown()


async def _guard(response: "httpx.Response") -> None:
    """Refuse redirects, and cap the body before anyone reads it."""
    import httpx

    if 300 <= response.status_code < 400:
        where = one_line(response.headers.get("location", "nowhere"), 120)
        raise RefusedError(f"telegram answered {response.status_code}, a redirect to {where}")
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _capped(response.stream)


def _capped(whole: "httpx.AsyncByteStream") -> "httpx.AsyncByteStream":
    import httpx

    class Capped(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for part in whole:
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise GarbledError("telegram's answer is too large")
                yield part

        async def aclose(self) -> None:
            await whole.aclose()

    return Capped()


def _translated(error: Exception) -> VendorError:
    """Return what a failure of the library means, without its cause and without the token."""
    import httpx
    from telegram import error as kinds

    cause = error.__cause__
    # The library appends a body that it could not parse, and we do not want it.
    said = one_line(str(error).partition(". Parsing the server response")[0])
    unsent = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
    found: VendorError
    match error:
        case kinds.NetworkError() if isinstance(cause, VendorError):
            found = type(cause)(cause.problem)
        case kinds.InvalidToken():
            found = RefusedError(f"telegram does not know this bot: {said} (or base_url is wrong)")
        case kinds.RetryAfter():
            wait_s = seconds(error.retry_after)
            found = UnreachableError(f"telegram answered 429 and asks to wait {wait_s:.0f} s")
        case kinds.Forbidden() | kinds.BadRequest() | kinds.ChatMigrated():
            found = RefusedError(f"telegram answered: {said}")
        case kinds.NetworkError() if isinstance(cause, unsent):
            found = UnreachableError(describe(cause, "telegram"))
        case kinds.NetworkError() if isinstance(cause, httpx.HTTPError):
            found = UnreachableError(f"{describe(cause, 'telegram')}; it may have been delivered")
        case kinds.NetworkError():
            found = UnreachableError(f"telegram answered: {said}")
        case TimeoutError():
            found = UnreachableError("telegram: no answer in time; it may have been delivered")
        case kinds.TelegramError():
            found = GarbledError(f"telegram's answer cannot be read: {said}")
        case _:
            kind = type(error).__name__
            found = GarbledError(f"telegram's answer is not what its API promises ({kind})")
    return found
