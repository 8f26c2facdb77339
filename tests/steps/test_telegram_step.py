"""A message is live until it has an id, and it always fits, whatever is in it."""

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from killswitch.model import Clear, Plan, Receipt, Step
from killswitch.sandbox.telegram_html import parse_html
from killswitch.secret import Secret
from killswitch.steps.telegram import CUT_HERE, LIMIT_UNITS, Message, SendAlert


class FakeMessenger:
    """Keeps what was sent, like a client does."""

    def __init__(self) -> None:
        self.delivered: dict[str, int] = {}
        self.rehearsed = 0

    def sent(self, key: str) -> int | None:
        return self.delivered.get(key)

    def send(self, message: Message) -> Receipt:
        self.delivered[message.key] = 7 + len(self.delivered)
        return Receipt("sent")

    def rehearse(self) -> Receipt:
        self.rehearsed += 1
        return Receipt("the bot knows the chat")


def units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def test_a_message_is_live_until_this_run_holds_its_id() -> None:
    messenger = FakeMessenger()
    step: Step = SendAlert(messenger, "ops", Message("TRIGGERED", ("halt of prod",)))
    assert (step.name, step.system, step.evidence) == ("telegram", "ops", True)
    (action,) = step.plan().live
    assert (action.verb, action.target, action.phase) == ("send", "triggered", 1)
    action.perform()
    assert step.plan() == Plan(clear=(Clear("triggered", "triggered, message 7"),))


def test_two_messages_of_one_run_do_not_stand_for_each_other() -> None:
    messenger = FakeMessenger()
    first = SendAlert(messenger, "ops", Message("TRIGGERED", ()))
    last = SendAlert(messenger, "ops", Message("RESULT", (), key="result"))
    first.plan().live[0].perform()
    assert [action.target for action in last.plan().live] == ["result"]
    last.plan().live[0].perform()
    assert last.plan().clear == (Clear("result", "result, message 8"),)


def test_a_rehearsal_sends_nothing() -> None:
    messenger = FakeMessenger()
    step = SendAlert(messenger, "ops", Message("TRIGGERED", ()))
    step.plan().live[0].rehearse()
    assert (messenger.delivered, messenger.rehearsed) == ({}, 1)


def test_the_title_is_bold_and_every_word_is_escaped() -> None:
    message = Message("HALT <now> & here", ('"a" < b', "</b><a href='x'>y</a>"))
    assert message.html == (
        "<b>HALT &lt;now&gt; &amp; here</b>\n\"a\" &lt; b\n&lt;/b&gt;&lt;a href='x'&gt;y&lt;/a&gt;"
    )
    assert message.plain == "HALT <now> & here\n\"a\" < b\n</b><a href='x'>y</a>"


@pytest.mark.parametrize("filling", ["x", "&", "<b>", "\N{BOMB}", "word "])
def test_a_long_message_is_cut_and_says_so(filling: str) -> None:
    message = Message("RESULT", tuple(filling * 90 for _ in range(100)))
    read = parse_html(message.html)
    assert LIMIT_UNITS - 8 <= units(read) <= LIMIT_UNITS
    assert read.splitlines()[-1] == CUT_HERE
    assert read == message.plain


def test_one_endless_title_still_leaves_room_for_the_lines() -> None:
    read = parse_html(Message("T" * 9000, ("the line",)).html)
    assert read.splitlines()[1] == "the line"


def test_a_message_that_just_fits_is_not_cut() -> None:
    message = Message("T", ("x" * (LIMIT_UNITS - 2),))
    assert units(message.plain) == LIMIT_UNITS
    assert CUT_HERE not in message.plain
    assert CUT_HERE in Message("T", ("x" * (LIMIT_UNITS - 1),)).plain


def test_a_line_cannot_pretend_to_be_several_or_hide_its_end() -> None:
    message = Message("T", ("one\nHALTED\r\x1b[2Jtwo\u202egnp", "  indented"))
    assert message.plain.splitlines() == ["T", "one HALTED  [2Jtwo gnp", "  indented"]


def test_an_empty_message_still_says_which_one_it_is() -> None:
    assert Message(" ", ()).html == "<b>triggered</b>"


def test_no_secret_gets_into_a_message() -> None:
    Secret("s3cr3t-of-the-bot")
    message = Message("T", ("error: key s3cr3t-of-the-bot refused",))
    assert "s3cr3t" not in message.html + message.plain


@given(title=st.text(), lines=st.lists(st.text(st.characters(), max_size=3000), max_size=8))
def test_any_message_fits_and_parses(title: str, lines: list[str]) -> None:
    message = Message(title, tuple(lines))
    read = parse_html(message.html)
    assert 0 < units(read) <= LIMIT_UNITS
    assert read == message.plain
    read.encode()
    assert re.sub(r"</?b>", "", message.html) == html.escape(message.plain, quote=False)
