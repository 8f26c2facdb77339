"""A small Telegram: one bot, some chats, and the Bot API's own checks of what it is sent."""

import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from werkzeug.wrappers import Request, Response

from killswitch.sandbox.server import VendorServer
from killswitch.sandbox.telegram_html import MarkupError, parse_html

TOKEN: Final = "7012345678:AAF3xk9QmZr1TnVb5cWy8LdHs2PgKj4Ue6o"
OPS: Final = -1002233445566
COMPLIANCE: Final = 55512345
LIMIT_UNITS: Final = 4096
TOO_LONG_TO_WAIT_S: Final = 3600


@dataclass(slots=True)
class SandboxChat:
    """A chat that the bot is in; `threads` are the topics of a forum."""

    id: int
    title: str
    type: str = "supergroup"
    username: str = ""
    threads: frozenset[int] = frozenset()
    moved_to: int = 0


@dataclass(frozen=True, slots=True)
class Delivered:
    """One message that arrived: `text` is what people read, after the markup was parsed."""

    message_id: int
    chat_id: int
    thread_id: int | None
    text: str
    parse_mode: str


class TelegramServer(VendorServer):
    """The Bot API for one bot: getMe, getChat and sendMessage.

    Edit `chats` like the real thing; `messages` is what people got, oldest first.
    With `per_chat_s` above 0, a chat takes one message in that many seconds.
    """

    name: ClassVar[str] = "telegram"
    TRAPS: ClassVar[Mapping[str, str]] = {
        "flood": "answers 429 once and asks to wait a second",
        "long-flood": "answers 429 to every message and asks to wait an hour",
        "blocked": "the bot was kicked out of every chat",
        "chat-missing": "knows none of the chats",
        "parse-error": "cannot parse any message in HTML",
        "thread-missing": "knows none of the topics",
        "migrated": "the first chat that is written to becomes a supergroup with another id",
        "bad-token": "answers 401: the token was revoked",
        "bad-gateway": "answers 502 with a page of HTML",
        "lost-reply": "delivers the next message and cuts the connection before it says so",
        "redirect": "sends every call to another host with 302",
    }

    def __init__(
        self,
        *,
        token: str = TOKEN,
        chats: Iterable[SandboxChat] | None = None,
        per_chat_s: float = 0.0,
        traps: Iterable[str] = (),
        port: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(traps=traps, port=port, clock=clock)
        self.token = token
        seeded = _two_chats() if chats is None else chats
        self.chats = {chat.id: chat for chat in seeded}
        self.per_chat_s = per_chat_s
        self.messages: list[Delivered] = []
        self._last_s: dict[int, float] = {}
        self._sprung: set[str] = set()

    @property
    def base_url(self) -> str:
        """The address that a client is configured with; the token follows it directly."""
        return f"{self.url}/bot"

    def live(self) -> list[str]:
        """Return nothing: there is nothing to halt in a chat."""
        return []

    def is_write(self, request: Request) -> bool:
        """Whether people would see something: the library sends its questions by POST too."""
        return request.path.lower().endswith("/sendmessage")

    def respond(self, request: Request) -> Response:
        """Answer as the Bot API does: the token first, then the method, then its fields."""
        with self.lock:
            try:
                return self._trap_before() or self._route(request)
            except _RefusalError as refusal:
                return refusal.response

    def _trap_before(self) -> Response | None:
        if "bad-gateway" in self.traps:
            return Response("<html>502 Bad Gateway</html>", status=502, mimetype="text/html")
        if "redirect" in self.traps:
            return Response("", 302, {"Location": "https://elsewhere.example/"})
        if "bad-token" in self.traps:
            raise _RefusalError(401, "Unauthorized")
        return None

    def _route(self, request: Request) -> Response:
        bot, _, method = request.path.strip("/").partition("/")
        token = bot.removeprefix("bot")
        number, colon, rest = token.partition(":")
        if not bot.startswith("bot") or token != self.token:
            well_formed = number.isdigit() and colon and len(rest) >= 30
            raise (
                _RefusalError(401, "Unauthorized")
                if well_formed
                else _RefusalError(404, "Not Found")
            )
        fields = {**request.args.to_dict(), **request.form.to_dict()}
        match method.lower():
            case "getme":
                me = {"id": int(number), "is_bot": True, "first_name": "killswitch"}
                return _result({**me, "username": "killswitch_bot"})
            case "getchat":
                return self._get_chat(fields)
            case "sendmessage":
                return self._send_message(request, fields)
            case _:
                raise _RefusalError(404, "Not Found")

    def _get_chat(self, fields: Mapping[str, str]) -> Response:
        chat = self._find(fields)
        known = {"accent_color_id": 0, "max_reaction_count": 11}
        gifts = ("unlimited_gifts", "limited_gifts", "unique_gifts", "premium_subscription")
        taken = dict.fromkeys((*gifts, "gifts_from_channels"), False)
        return _result({**_chat_row(chat), **known, "accepted_gift_types": taken})

    def _send_message(self, request: Request, fields: Mapping[str, str]) -> Response:
        chat = self._find(fields)
        self._slow_down(chat)
        if chat.moved_to:
            text = "Bad Request: group chat was upgraded to a supergroup chat"
            raise _RefusalError(400, text, migrate_to_chat_id=chat.moved_to)
        mode = fields.get("parse_mode", "")
        message = Delivered(
            message_id=len(self.messages) + 1,
            chat_id=chat.id,
            thread_id=self._topic(chat, fields.get("message_thread_id", "")),
            text=self._parsed(fields.get("text", ""), mode).strip(),
            parse_mode=mode,
        )
        if not message.text:
            raise _RefusalError(400, "Bad Request: message text is empty")
        if len(message.text.encode("utf-16-le")) > 2 * LIMIT_UNITS:
            raise _RefusalError(400, "Bad Request: message is too long")
        return self._deliver(request, chat, message)

    def _deliver(self, request: Request, chat: SandboxChat, message: Delivered) -> Response:
        self.messages.append(message)
        self._last_s[chat.id] = self.clock()
        if "lost-reply" in self.traps and self._once("lost-reply"):
            self.cut(request)
        row = {"message_id": message.message_id, "date": int(self.clock())}
        return _result({**row, "chat": _chat_row(chat), "text": message.text})

    def _topic(self, chat: SandboxChat, thread: str) -> int | None:
        if not thread:
            return None
        known = thread.isdigit() and int(thread) in chat.threads
        if not known or "thread-missing" in self.traps:
            raise _RefusalError(400, "Bad Request: message thread not found")
        return int(thread)

    def _parsed(self, text: str, mode: str) -> str:
        if mode.lower() != "html":
            return text
        problem = 'Unsupported start tag "b" at byte offset 0'
        if "parse-error" not in self.traps:
            try:
                return parse_html(text)
            except MarkupError as error:
                problem = str(error)
        raise _RefusalError(400, f"Bad Request: can't parse entities: {problem}")

    def _find(self, fields: Mapping[str, str]) -> SandboxChat:
        name = fields.get("chat_id", "")
        if not name:
            raise _RefusalError(400, "Bad Request: chat_id is empty")
        found = [
            chat
            for chat in self.chats.values()
            if name == str(chat.id) or (chat.username and name == f"@{chat.username}")
        ]
        if not found or "chat-missing" in self.traps:
            raise _RefusalError(400, "Bad Request: chat not found")
        if "blocked" in self.traps:
            raise _RefusalError(403, f"Forbidden: bot was kicked from the {found[0].type} chat")
        return found[0]

    def _slow_down(self, chat: SandboxChat) -> None:
        if "migrated" in self.traps and self._once("migrated"):
            chat.moved_to = -1009900000000 - abs(chat.id) % 1000
            self.chats[chat.moved_to] = SandboxChat(chat.moved_to, chat.title, threads=chat.threads)
        since_s = self.clock() - self._last_s.get(chat.id, float("-inf"))
        if "long-flood" in self.traps:
            wait_s = TOO_LONG_TO_WAIT_S
        elif since_s < self.per_chat_s or ("flood" in self.traps and self._once("flood")):
            wait_s = 1
        else:
            return
        text = f"Too Many Requests: retry after {wait_s}"
        raise _RefusalError(429, text, retry_after=wait_s)

    def _once(self, trap: str) -> bool:
        fresh = trap not in self._sprung
        self._sprung.add(trap)
        return fresh


def _two_chats() -> list[SandboxChat]:
    return [
        SandboxChat(OPS, "ops", username="ops_desk", threads=frozenset({17})),
        SandboxChat(COMPLIANCE, "compliance", type="private"),
    ]


def _chat_row(chat: SandboxChat) -> dict[str, object]:
    private = chat.type == "private"
    row: dict[str, object] = {"id": chat.id, "type": chat.type}
    row["first_name" if private else "title"] = chat.title
    if chat.username:
        row["username"] = chat.username
    if chat.threads:
        row["is_forum"] = True
    return row


def _result(result: object) -> Response:
    body = json.dumps({"ok": True, "result": result})
    return Response(body, mimetype="application/json")


class _RefusalError(Exception):
    """An answer that is not ok."""

    def __init__(self, status: int, description: str, **parameters: int) -> None:
        super().__init__(description)
        body: dict[str, object] = {"ok": False, "error_code": status, "description": description}
        if parameters:
            body["parameters"] = parameters
        self.response = Response(json.dumps(body), status=status, mimetype="application/json")
