"""Tell people: one message to one chat, in the words of the screen."""

import html
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Final, Protocol

from killswitch.model import Action, Clear, Plan, Receipt
from killswitch.secret import redact

# Telegram counts UTF-16 units, after it has parsed the markup.
LIMIT_UNITS: Final = 4096
TITLE_UNITS: Final = 256
CUT_HERE: Final = "(cut here: the whole text is in the report)"


@dataclass(frozen=True, slots=True)
class Message:
    """What is told: a bold title and plain lines. `key` says which message of the run it is."""

    title: str
    lines: tuple[str, ...]
    key: str = "triggered"

    def fitted(self) -> tuple[str, str]:
        """Return title and body as they fit into one message, cut before any escaping."""
        title = _clip(_tidy(self.title).strip() or self.key, TITLE_UNITS).rstrip()
        body = "\n".join(_tidy(line) for line in self.lines).strip()
        room = LIMIT_UNITS - _units(title) - 1
        if _units(body) > room:
            body = f"{_clip(body, room - _units(CUT_HERE) - 1).rstrip()}\n{CUT_HERE}"
        return title, body

    @property
    def html(self) -> str:
        """The message in Telegram's HTML, every word of it escaped."""
        title, body = (html.escape(part, quote=False) for part in self.fitted())
        return f"<b>{title}</b>\n{body}".strip()

    @property
    def plain(self) -> str:
        """The same message without any markup."""
        return "\n".join(self.fitted()).strip()


class Messenger(Protocol):
    """All that this step needs from one chat."""

    def sent(self, key: str) -> int | None:
        """Return the id of the message that this run delivered under `key`, if it did."""

    def send(self, message: Message) -> Receipt:
        """Deliver the message; a second copy is better than none."""

    def rehearse(self) -> Receipt:
        """Show that the bot knows the chat, without writing to it."""


@dataclass(frozen=True, slots=True)
class SendAlert:
    """The message has an id in the chat, which is named `system` in the configuration."""

    messenger: Messenger
    system: str
    message: Message
    name: ClassVar[str] = "telegram"
    evidence: ClassVar[bool] = True

    def plan(self) -> Plan:
        """Count the message as live until this run holds its id: a chat cannot be read back."""
        key = self.message.key
        message_id = self.messenger.sent(key)
        if message_id is not None:
            return Plan(clear=(Clear(key, f"{key}, message {message_id}"),))
        perform = partial(self.messenger.send, self.message)
        return Plan(live=(Action("send", key, perform, self.messenger.rehearse),))


def _tidy(text: str) -> str:
    """Return `text` as one line that Telegram accepts, without any known secret."""
    line = " ".join(redact(text).splitlines())
    whole = line.encode("utf-16-le", "replace").decode("utf-16-le")
    return "".join(char if char.isprintable() else " " for char in whole).rstrip()


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


def _clip(text: str, units: int) -> str:
    """Cut `text` to `units`, never through the middle of a character."""
    return text.encode("utf-16-le")[: 2 * units].decode("utf-16-le", "ignore")
