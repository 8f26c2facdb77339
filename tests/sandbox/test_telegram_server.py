"""The small Telegram checks what the Bot API checks, in its words."""

from collections.abc import Iterator

import httpx
import pytest

from killswitch.sandbox.telegram import COMPLIANCE, OPS, TelegramServer
from killswitch.sandbox.telegram_html import MarkupError, parse_html


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    server = TelegramServer()
    server.start()
    yield server
    server.stop()


def call(server: TelegramServer, method: str, **fields: object) -> httpx.Response:
    url = f"{server.base_url}{server.token}/{method}"
    return httpx.post(url, data=fields, trust_env=False, timeout=2)


def refusal(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["ok"] is False
    assert body["error_code"] == answer.status_code
    return answer.status_code, body["description"]


def test_it_knows_its_bot_and_its_chats(server: TelegramServer) -> None:
    assert call(server, "getMe").json()["result"]["is_bot"] is True
    assert call(server, "getChat", chat_id=OPS).json()["result"]["title"] == "ops"
    assert call(server, "getchat", chat_id="@ops_desk").json()["result"]["id"] == OPS
    assert call(server, "getChat", chat_id=COMPLIANCE).json()["result"]["first_name"] == (
        "compliance"
    )
    assert server.writes == []
    assert server.live() == []


def test_a_delivered_message_reads_as_its_markup_says(server: TelegramServer) -> None:
    text = "<b>HALT &amp; tell</b>\nQ&A &lt;now&gt;"
    answer = call(server, "sendMessage", chat_id=OPS, text=text, parse_mode="HTML")
    assert answer.json()["result"]["message_id"] == 1
    assert server.messages[0].text == "HALT & tell\nQ&A <now>"
    assert len(server.writes) == 1


def test_a_malformed_token_is_404_and_a_wrong_one_401(server: TelegramServer) -> None:
    malformed = httpx.post(f"{server.base_url}123:x/getMe", trust_env=False)
    assert refusal(malformed) == (404, "Not Found")
    wrong = httpx.post(f"{server.base_url}7012345678:{'x' * 35}/getMe", trust_env=False)
    assert refusal(wrong) == (401, "Unauthorized")
    assert refusal(call(server, "flyToTheMoon")) == (404, "Not Found")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": "x"}, "chat_id is empty"),
        ({"chat_id": 1, "text": "x"}, "chat not found"),
        ({"chat_id": OPS, "text": ""}, "message text is empty"),
        ({"chat_id": OPS, "text": "<b></b>", "parse_mode": "HTML"}, "message text is empty"),
        ({"chat_id": OPS, "text": "x" * 4097}, "message is too long"),
        ({"chat_id": OPS, "text": "\N{BOMB}" * 2049}, "message is too long"),
        ({"chat_id": OPS, "text": "x", "message_thread_id": 18}, "message thread not found"),
        ({"chat_id": COMPLIANCE, "text": "x", "message_thread_id": 17}, "thread not found"),
        ({"chat_id": OPS, "text": "<x>", "parse_mode": "html"}, "can't parse entities"),
    ],
)
def test_a_message_of_a_wrong_form_is_a_400(
    server: TelegramServer, fields: dict[str, object], words: str
) -> None:
    status, text = refusal(call(server, "sendMessage", **fields))
    assert status == 400
    assert text.startswith("Bad Request: ")
    assert words in text
    assert server.messages == []


def test_markup_does_not_count_towards_the_length(server: TelegramServer) -> None:
    text = "<b>" + "&amp;" * 4096 + "</b>"
    assert call(server, "sendMessage", chat_id=OPS, text=text, parse_mode="HTML").is_success


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a <table>", 'Unsupported start tag "table" at byte offset 2'),
        ("a < b", 'Unsupported start tag "" at byte offset 2'),
        ("<b>x", 'Can\'t find end tag corresponding to start tag "b"'),
        ("x</b>", "Unexpected end tag at byte offset 1"),
        ("<b><i>x</b></i>", 'Unmatched end tag at byte offset 7, expected "</i>", found "</b>"'),
    ],
)
def test_markup_is_refused_in_the_words_of_the_bot_api(text: str, words: str) -> None:
    with pytest.raises(MarkupError) as caught:
        parse_html(text)
    assert str(caught.value) == words


def test_a_migrated_chat_names_its_new_id_and_takes_messages_there(
    server: TelegramServer,
) -> None:
    server.traps.add("migrated")
    first, second = (call(server, "sendMessage", chat_id=OPS, text="x") for _ in range(2))
    new_id = first.json()["parameters"]["migrate_to_chat_id"]
    assert (first.status_code, first.json()) == (400, second.json())
    assert call(server, "sendMessage", chat_id=new_id, text="x").is_success


def test_a_chat_takes_one_message_a_second_when_asked_to_be_strict() -> None:
    now = [1000.0]
    server = TelegramServer(per_chat_s=1.0, clock=lambda: now[0])
    server.start()
    assert call(server, "sendMessage", chat_id=OPS, text="1").is_success
    answer = call(server, "sendMessage", chat_id=OPS, text="2")
    assert answer.json()["parameters"] == {"retry_after": 1}
    assert call(server, "sendMessage", chat_id=COMPLIANCE, text="2").is_success
    now[0] += 1
    assert call(server, "sendMessage", chat_id=OPS, text="2").is_success
    server.stop()


def test_the_traps_answer_what_they_promise(server: TelegramServer) -> None:
    codes = {"flood": 429, "long-flood": 429, "blocked": 403, "chat-missing": 400}
    codes |= {"bad-token": 401, "bad-gateway": 502, "redirect": 302}
    for trap, code in codes.items():
        server.traps = {trap}
        assert call(server, "sendMessage", chat_id=OPS, text="x").status_code == code
    server.traps = {"flood", "lost-reply"}
    with pytest.raises(httpx.RemoteProtocolError):
        call(server, "sendMessage", chat_id=OPS, text="x")
    assert len(server.messages) == 1
    assert call(server, "sendMessage", chat_id=OPS, text="x").is_success
