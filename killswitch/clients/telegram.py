"""One Telegram chat over python-telegram-bot: no polling, no initialize, no `ext`."""

import asyncio
import ssl
import string
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import urlsplit

from killswitch.address import checked_url
from killswitch.clients.httpx_wire import describe, one_line, trust
from killswitch.clients.telegram_wire import exchange, library, seconds
from killswitch.errors import RefusedError, UnreachableError
from killswitch.model import Receipt
from killswitch.secret import Secret
from killswitch.steps.telegram import Message

if TYPE_CHECKING:
    import telegram

WAIT_BUDGET_S: Final = 2.0
TRIES: Final = 4
_TOKEN_CHARS: Final = frozenset(string.ascii_letters + string.digits + "_-:")
_T = TypeVar("_T")


class TelegramClient:
    """One bot in one chat; remembers which messages of this run have arrived.

    Args:
        chat_id: the chat's number, or ``@name`` of a public one.
        thread_id: the topic of a forum, if any.
        base_url: what stands before the token in every address.
        timeout_s: seconds to connect, and to wait for an answer.
        ca_file: PEM file of the only CAs to trust, instead of the public ones.
    """

    def __init__(
        self,
        *,
        chat_id: int | str,
        thread_id: int | None,
        base_url: str = "https://api.telegram.org/bot",
        timeout_s: tuple[float, float] = (3.0, 5.0),
        ca_file: str | Path | None = None,
    ) -> None:
        self._base_url = checked_url(base_url)
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._place = _Place(chat_id, thread_id)
        self._token: Secret | None = None
        self._may_write = False
        self._trust: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._sent: dict[str, int] = {}

    def __repr__(self) -> str:
        return f"TelegramClient(chat_id={self._place.chat_id!r}, base_url={self._base_url!r})"

    def warm(self) -> str:
        """Import the library and reach the host without a token; return which one answered."""
        import httpx

        library()
        parts = urlsplit(self._base_url)
        connect_s, read_s = self._timeout_s
        timeout = httpx.Timeout(read_s, connect=connect_s)
        verify = self._trusted()
        try:
            with (
                httpx.Client(verify=verify, timeout=timeout, trust_env=False) as client,
                client.stream("GET", f"{parts.scheme}://{parts.netloc}/") as response,
            ):
                return f"{parts.hostname} answers ({response.status_code})"
        except httpx.HTTPError as error:
            problem = describe(error, "telegram")
        raise UnreachableError(problem)

    def login(self, *, token: Secret, may_write: bool) -> None:
        """Take the bot's token; without `may_write` nothing is sent to the chat."""
        self._token = token
        self._may_write = may_write

    def sent(self, key: str) -> int | None:
        """Return the id of the message that this client delivered under `key`, if it did."""
        with self._lock:
            return self._sent.get(key)

    def send(self, message: Message) -> Receipt:
        """Deliver `message`, in a plainer form if the chat wants it; only once per key."""
        self._checked_token()
        if not self._may_write:
            raise RefusedError("this client may only read: it will not send a message")
        earlier = self.sent(message.key)
        if earlier is not None:
            return Receipt(f"sent before, message {earlier}")
        delivered = self._run(lambda bot: self._deliver(bot, message))
        with self._lock:
            self._sent[message.key] = delivered.message_id
            self._place = replace(self._place, chat_id=delivered.place.chat_id)
        return delivered.receipt()

    def rehearse(self) -> Receipt:
        """Ask whether the bot knows the chat: that it may write there is not shown by it."""
        place = self._place

        async def ask(bot: "telegram.Bot") -> str:
            chat = await bot.get_chat(place.chat_id)
            return one_line(chat.title or chat.username or chat.first_name or str(chat.id), 60)

        name = self._run(ask)
        return Receipt(f'the bot knows the chat "{name}"; that it may write there was not tried')

    async def _deliver(self, bot: "telegram.Bot", message: Message) -> "_Delivered":
        """Send, and send again in the form that each refusal asks for."""
        from telegram.error import BadRequest, ChatMigrated, RetryAfter

        place, waited_s = self._place, 0.0
        for _ in range(TRIES):
            try:
                return await _send(bot, place, message)
            except ChatMigrated as moved:
                place = place.moved_to(moved.new_chat_id)
            except RetryAfter as error:
                waited_s += seconds(error.retry_after)
                if waited_s > WAIT_BUDGET_S:
                    raise
                await asyncio.sleep(seconds(error.retry_after))
            except BadRequest as error:
                plainer = place.plainer(error.message.lower())
                if plainer is None:
                    raise
                place = plainer
        raise UnreachableError(f"telegram took none of {TRIES} forms of the message")

    def _run(self, use: "Callable[[telegram.Bot], Awaitable[_T]]") -> _T:
        return exchange(
            use,
            token=self._checked_token(),
            base_url=self._base_url,
            verify=self._trusted(),
            timeout_s=self._timeout_s,
            limit_s=sum(self._timeout_s) + WAIT_BUDGET_S,
        )

    def _checked_token(self) -> str:
        if self._token is None:
            raise RuntimeError("login comes first")
        token = self._token.reveal().strip()
        if not token or not set(token) <= _TOKEN_CHARS:
            raise RefusedError("the telegram token is not of the form 123456:ABC…")
        return token

    def _trusted(self) -> ssl.SSLContext:
        with self._lock:
            if self._trust is None:
                self._trust = trust(self._ca_file)
            return self._trust


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a message goes and in which form; `why` tells what was given up and for what."""

    chat_id: int | str
    thread_id: int | None
    marked_up: bool = True
    why: tuple[str, ...] = ()

    def moved_to(self, chat_id: int) -> "_Place":
        """Return the same place after its chat got a new id."""
        said = f"the chat moved, its id is now {chat_id}"
        return replace(self, chat_id=chat_id, why=(*self.why, said))

    def plainer(self, problem: str) -> "_Place | None":
        """Return a plainer form of what was refused, or None if that cannot help."""
        if "chat not found" in problem:
            return None
        if "thread" in problem and self.thread_id is not None:
            said = "its topic was not found: sent to the chat itself"
            return replace(self, thread_id=None, why=(*self.why, said))
        if self.marked_up:
            said = f"sent as plain text: {one_line(problem, 80)}"
            return replace(self, marked_up=False, why=(*self.why, said))
        if self.thread_id is not None:
            return replace(self, thread_id=None, why=(*self.why, "sent to the chat itself"))
        return None


@dataclass(frozen=True, slots=True)
class _Delivered:
    """A message as Telegram acknowledged it."""

    message_id: int
    date: str
    place: _Place

    def receipt(self) -> Receipt:
        """Return it as a receipt, Telegram's own time with it."""
        evidence = {"message_id": str(self.message_id), "date": self.date}
        summary = "; ".join((f"message {self.message_id}", *self.place.why))
        return Receipt(summary, {**evidence, "chat_id": str(self.place.chat_id)})


async def _send(bot: "telegram.Bot", place: _Place, message: Message) -> _Delivered:
    import telegram

    answer = await bot.send_message(
        place.chat_id,
        message.html if place.marked_up else message.plain,
        parse_mode="HTML" if place.marked_up else None,
        message_thread_id=place.thread_id,
        link_preview_options=telegram.LinkPreviewOptions(is_disabled=True),
        protect_content=True,
    )
    return _Delivered(int(answer.message_id), answer.date.isoformat(), place)
