"""The Telegram client gets the message through if anything can, and never tells the token."""

import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator

import pytest
from werkzeug.wrappers import Request, Response

from killswitch.clients.telegram import TelegramClient
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.sandbox.telegram import COMPLIANCE, OPS, TOKEN, TelegramServer
from killswitch.secret import Secret
from killswitch.steps.telegram import Message, SendAlert

ALERT = Message("TRIGGERED <prod>", ("halt 20261121-0314-k7q2", "touched by anna & ben"))
READS = "TRIGGERED <prod>\nhalt 20261121-0314-k7q2\ntouched by anna & ben"


@pytest.fixture
def server() -> Iterator[TelegramServer]:
    server = TelegramServer()
    server.start()
    yield server
    server.stop()


def client_of(
    server: TelegramServer,
    *,
    chat_id: int | str = OPS,
    thread_id: int | None = None,
    token: str = TOKEN,
    may_write: bool = True,
) -> TelegramClient:
    client = TelegramClient(
        chat_id=chat_id, thread_id=thread_id, base_url=server.base_url, timeout_s=(0.5, 0.5)
    )
    client.login(token=Secret(token), may_write=may_write)
    return client


def test_plain_http_is_for_loopback_only() -> None:
    with pytest.raises(ValueError, match="https is required"):
        TelegramClient(chat_id=1, thread_id=None, base_url="http://telegram.example/bot")


def test_warming_up_reaches_the_host_without_a_token(server: TelegramServer) -> None:
    client = TelegramClient(chat_id=1, thread_id=None, base_url=server.base_url)
    assert client.warm() == "127.0.0.1 answers (404)"
    assert [seen.path for seen in server.seen] == ["/"]
    server.traps = {"drop"}
    with pytest.raises(UnreachableError, match="connection failed"):
        client.warm()


def test_nothing_is_sent_before_login(server: TelegramServer) -> None:
    client = TelegramClient(chat_id=1, thread_id=None, base_url=server.base_url)
    with pytest.raises(RuntimeError):
        client.send(ALERT)
    with pytest.raises(RuntimeError):
        client.rehearse()
    assert server.seen == []


def test_a_message_arrives_once_and_its_id_is_kept(server: TelegramServer) -> None:
    client = client_of(server, thread_id=17)
    assert client.sent("triggered") is None
    receipt = client.send(ALERT)
    assert receipt.summary == "message 1"
    assert receipt.evidence["message_id"] == "1"
    assert receipt.evidence["date"].endswith("+00:00")
    assert client.sent("triggered") == 1
    assert client.send(ALERT).summary == "sent before, message 1"
    (message,) = server.messages
    assert (message.text, message.thread_id, message.parse_mode) == (READS, 17, "HTML")
    assert len(server.seen) == 1


def test_the_step_converges_on_the_real_client(server: TelegramServer) -> None:
    step = SendAlert(client_of(server, chat_id="@ops_desk"), "ops", ALERT)
    step.plan().live[0].rehearse()
    assert server.writes == []
    step.plan().live[0].perform()
    assert step.plan().clear[0].saw == "triggered, message 1"


def test_threads_may_send_side_by_side(server: TelegramServer) -> None:
    client = client_of(server)
    messages = [Message("T", (), key=f"message {n}") for n in range(6)]
    threads = [threading.Thread(target=client.send, args=(one,), daemon=True) for one in messages]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(client.sent(one.key) or 0 for one in messages) == [1, 2, 3, 4, 5, 6]


def test_a_rehearsal_asks_for_the_chat_and_writes_nothing(server: TelegramServer) -> None:
    client = client_of(server, may_write=False)
    assert client.rehearse().summary.startswith('the bot knows the chat "ops"')
    private = client_of(server, chat_id=COMPLIANCE, may_write=False)
    assert '"compliance"' in private.rehearse().summary
    with pytest.raises(RefusedError, match="this client may only read"):
        client.send(ALERT)
    assert server.writes == []


def test_markup_that_cannot_be_parsed_goes_as_plain_text(server: TelegramServer) -> None:
    server.traps = {"parse-error"}
    receipt = client_of(server).send(ALERT)
    assert "sent as plain text" in receipt.summary
    assert (server.messages[0].text, server.messages[0].parse_mode) == (READS, "")


def test_a_missing_topic_costs_only_the_topic(server: TelegramServer) -> None:
    receipt = client_of(server, thread_id=99).send(ALERT)
    assert receipt.summary == "message 1; its topic was not found: sent to the chat itself"
    assert (server.messages[0].text, server.messages[0].thread_id) == (READS, None)


def test_a_chat_that_moved_is_followed_and_named(server: TelegramServer) -> None:
    server.traps = {"migrated"}
    client = client_of(server)
    receipt = client.send(ALERT)
    new_id = server.messages[0].chat_id
    assert receipt.summary == f"message 1; the chat moved, its id is now {new_id}"
    assert receipt.evidence["chat_id"] == str(new_id)
    client.send(Message("RESULT", (), key="result"))
    assert server.messages[1].chat_id == new_id
    assert len(server.writes) == 3


def test_everything_wrong_at_once_still_gets_through(server: TelegramServer) -> None:
    server.traps = {"migrated", "parse-error", "thread-missing"}
    receipt = client_of(server, thread_id=17).send(ALERT)
    assert server.messages[0].text == READS
    assert receipt.summary.count(";") == 3


def test_a_short_flood_is_waited_for(server: TelegramServer) -> None:
    server.traps = {"flood"}
    started = time.monotonic()
    client_of(server).send(ALERT)
    assert 1 <= time.monotonic() - started < 2
    assert len(server.messages) == 1


def test_a_lost_reply_leads_to_a_second_copy_and_not_to_silence(server: TelegramServer) -> None:
    server.traps = {"lost-reply"}
    client = client_of(server)
    with pytest.raises(UnreachableError, match="may have been delivered"):
        client.send(ALERT)
    assert client.sent("triggered") is None
    assert client.send(ALERT).summary == "message 2"
    assert [message.text for message in server.messages] == [READS, READS]


FAULTS = [
    ("bad-token", RefusedError, r"does not know this bot: Unauthorized"),
    ("blocked", RefusedError, r"Forbidden: bot was kicked"),
    ("chat-missing", RefusedError, r"telegram answered: Chat not found"),
    ("redirect", RefusedError, r"answered 302, a redirect to https://elsewhere\.example"),
    ("long-flood", UnreachableError, r"429 and asks to wait 3600 s"),
    ("bad-gateway", UnreachableError, r"Bad Gateway"),
    ("down", UnreachableError, r"Service Unavailable"),
    ("drop", UnreachableError, r"may have been delivered"),
    ("hang", UnreachableError, r"no answer in time; it may have been delivered"),
    ("garbage", GarbledError, r"cannot be read"),
]


@pytest.mark.parametrize(("trap", "kind", "words"), FAULTS)
def test_each_fault_is_said_as_what_it_is(
    server: TelegramServer, trap: str, kind: type[VendorError], words: str
) -> None:
    server.traps = {trap}
    started = time.monotonic()
    client = client_of(server)
    with pytest.raises(kind, match=words):
        client.send(ALERT)
    if trap != "long-flood":  # which holds messages back, and only those
        with pytest.raises(kind):
            client.rehearse()
    assert time.monotonic() - started < 5
    assert client.sent("triggered") is None
    # A cut connection leaves it open whether people got the message.
    assert server.messages == [] or trap == "drop"


@pytest.mark.parametrize("trap", [trap for trap, _, _ in FAULTS])
def test_no_fault_shows_the_token(
    server: TelegramServer,
    trap: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    server.traps = {trap}
    client = client_of(server)
    with pytest.raises(VendorError) as caught:
        client.send(ALERT)
    error = caught.value
    told = "".join(traceback.format_exception(error)) + caplog.text + "".join(capfd.readouterr())
    half = TOKEN.split(":")[1]
    assert half not in told + str(error) + repr(error) + repr(client)
    assert error.__cause__ is None
    assert error.__context__ is None


def test_a_good_message_shows_no_token_in_any_log(
    server: TelegramServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client_of(server).send(ALERT)
    assert TOKEN.split(":")[1] not in caplog.text


@pytest.mark.parametrize("token", ["", "123456:a/b", "123456:a b", "12\n34", "{token}", "../x"])
def test_a_token_of_another_form_is_refused_unseen(server: TelegramServer, token: str) -> None:
    with pytest.raises(RefusedError) as caught:
        client_of(server, token=token).send(ALERT)
    assert str(caught.value) == "the telegram token is not of the form 123456:ABC…"
    assert server.seen == []


def test_an_unknown_token_is_refused(server: TelegramServer) -> None:
    with pytest.raises(RefusedError, match="does not know this bot: Not Found"):
        client_of(server, token="123456:short").send(ALERT)


@pytest.mark.parametrize(
    "body", [b"{}", b"[]", b'{"ok":true,"result":true}', b'{"ok":true,"result":{}}', b"\xff", b""]
)
def test_an_answer_of_another_shape_is_garbled(body: bytes) -> None:
    class Odd(TelegramServer):
        def respond(self, request: Request) -> Response:
            assert request.path
            return Response(body, mimetype="application/json")

    server = Odd()
    server.start()
    client = client_of(server)
    with pytest.raises(GarbledError):
        client.send(ALERT)
    with pytest.raises(GarbledError):
        client.rehearse()
    server.stop()


class Flood(TelegramServer):
    """Answers more than anyone wants to read, or never quite finishes."""

    drip_s = 0.0

    def respond(self, request: Request) -> Response:
        assert request.path
        return Response(self._parts(), mimetype="application/json")

    def _parts(self) -> Iterator[bytes]:
        for _ in range(100):
            yield b" " if self.drip_s else b" " * 65536
            self.hang(self.drip_s)


@pytest.mark.parametrize(
    ("drip_s", "kind", "words"),
    [(0.0, GarbledError, "too large"), (0.2, UnreachableError, "no answer in time")],
)
def test_an_answer_without_end_is_cut_short(
    drip_s: float, kind: type[VendorError], words: str
) -> None:
    server = Flood()
    server.drip_s = drip_s
    server.start()
    started = time.monotonic()
    with pytest.raises(kind, match=words):
        client_of(server).send(ALERT)
    assert time.monotonic() - started < 4
    server.stop()


def test_a_stall_in_dns_does_not_hold_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def stall(*_: object, **__: object) -> list[object]:
        released.wait(10)
        raise socket.gaierror(socket.EAI_AGAIN, "try again")

    monkeypatch.setattr(socket, "getaddrinfo", stall)
    client = TelegramClient(
        chat_id=OPS, thread_id=None, base_url="https://stalled.example/bot", timeout_s=(0.2, 0.2)
    )
    client.login(token=Secret(TOKEN), may_write=True)
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"no (answer|connection) in time"):
        client.send(ALERT)
    assert time.monotonic() - started < 4
    released.set()


def test_the_environment_cannot_send_the_token_through_a_proxy(
    server: TelegramServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert client_of(server).send(ALERT).summary == "message 1"


def test_a_refused_connection_is_unreachable(server: TelegramServer) -> None:
    client = client_of(server)
    server.stop()
    with pytest.raises(UnreachableError, match="no connection") as caught:
        client.send(ALERT)
    assert "may have been delivered" not in str(caught.value)
    with pytest.raises(UnreachableError, match="no connection"):
        client.warm()


def test_the_constructor_does_no_io_and_a_missing_ca_file_is_said() -> None:
    client = TelegramClient(chat_id=1, thread_id=None, ca_file="/nowhere/ca.pem")
    with pytest.raises(RefusedError, match="the ca_file cannot be used"):
        client.warm()
