"""The Bybit client: what Bybit says in our words, never a secret, never a lie about an end."""

import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from killswitch.clients.bybit import BybitClient
from killswitch.clients.bybit_credential import Credential
from killswitch.clients.bybit_pace import Pace
from killswitch.clients.bybit_wire import MAX_BODY
from killswitch.errors import GarbledError, RefusedError, UnreachableError, VendorError
from killswitch.sandbox.bybit import BybitServer
from killswitch.sandbox.bybit_books import TRADE_RIGHTS, Key, Order
from killswitch.sandbox.server import VendorServer
from killswitch.secret import Secret
from killswitch.steps.bybit_port import DeadKeyError


class Canned(VendorServer):
    """Answers every request with one prepared answer."""

    name = "canned"
    answer: Callable[[], Response]

    def respond(self, request: Request) -> Response:
        self.headers = dict(request.headers)
        return self.answer()

    def live(self) -> list[str]:
        return []


@pytest.fixture
def server() -> Iterator[BybitServer]:
    server = BybitServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def canned() -> Iterator[Canned]:
    server = Canned()
    server.start()
    yield server
    server.stop()


def credential(key: str, secret: str) -> Credential:
    return Credential(Secret(key), Secret(secret))


def client_of(
    url: str, server: BybitServer | None = None, *, may_write: bool = True
) -> BybitClient:
    client = BybitClient(endpoint=url, timeout_s=(0.5, 0.5))
    if server:
        own = credential(server.master_key, server.master_secret)
        held = {uid: credential(*pair) for uid, pair in server.held.items()}
    else:
        own, held = credential("OWNKEY0000a81c", "own-secret-value"), {}
    client.login(own=own, held=held, may_write=may_write)
    return client


def said(code: int, message: str = "words") -> Callable[[], Response]:
    body = json.dumps({"retCode": code, "retMsg": message, "result": {}})
    return lambda: Response(body, mimetype="application/json")


@pytest.mark.parametrize("url", ["http://api.bybit.example", "ftp://127.0.0.1", "api.bybit.com"])
def test_plain_http_is_for_loopback_only(url: str) -> None:
    with pytest.raises(ValueError, match="https is required except for loopback"):
        BybitClient(endpoint=url)


def test_calls_before_login_are_a_bug(server: BybitServer) -> None:
    client = BybitClient(endpoint=server.url)
    with pytest.raises(RuntimeError):
        client.own_trades()
    with pytest.raises(RuntimeError):
        client.delete_own_key()


def test_warm_needs_no_credential_and_tells_the_clock(server: BybitServer) -> None:
    fact = BybitClient(endpoint=server.url).warm()
    assert fact.startswith("clock offset ")
    assert abs(int(fact.split()[2])) < 500


@pytest.mark.parametrize("trap", ["clock-fast", "clock-slow"])
def test_a_clock_that_is_off_is_corrected_once(server: BybitServer, trap: str) -> None:
    server.traps = {trap}
    client = client_of(server.url, server)
    assert client.own_trades() is False


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (10003, DeadKeyError),
        (-2015, DeadKeyError),
        (33004, RefusedError),
        (10004, RefusedError),
        (10005, RefusedError),
        (10007, RefusedError),
        (10008, RefusedError),
        (10010, RefusedError),
        (10024, RefusedError),
        (10027, RefusedError),
        (10028, RefusedError),
        (10000, UnreachableError),
        (10006, UnreachableError),
        (10016, UnreachableError),
        (99999, GarbledError),
    ],
)
def test_every_code_has_its_meaning(canned: Canned, code: int, expected: type[VendorError]) -> None:
    canned.answer = said(code)
    with pytest.raises(VendorError) as caught:
        client_of(canned.url).own_trades()
    assert type(caught.value) is expected
    assert str(code) in caught.value.problem


def test_an_address_that_is_not_whitelisted_is_named_loudly(server: BybitServer) -> None:
    server.traps = {"ip-bound"}
    with pytest.raises(RefusedError, match="NOT ON THE KEY'S IP LIST"):
        client_of(server.url, server).own_trades()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, DeadKeyError),
        (403, RefusedError),
        (404, RefusedError),
        (307, RefusedError),
        (429, UnreachableError),
        (502, UnreachableError),
    ],
)
def test_every_http_status_has_its_meaning(
    canned: Canned, status: int, expected: type[VendorError]
) -> None:
    canned.answer = lambda: Response("<html>", status=status)
    with pytest.raises(VendorError) as caught:
        client_of(canned.url).own_trades()
    assert type(caught.value) is expected


@pytest.mark.parametrize(
    "body",
    ["<html>", "[]", "{}", "null", '{"retCode": 5}', '{"retCode": 0, "result": {"x": 1}}'],
)
def test_an_answer_of_another_shape_is_garbled(canned: Canned, body: str) -> None:
    canned.answer = lambda: Response(body, mimetype="application/json")
    with pytest.raises(GarbledError):
        client_of(canned.url).own_trades()


def test_an_answer_that_never_ends_is_garbled(canned: Canned) -> None:
    canned.answer = lambda: Response(b" " * (MAX_BODY + 1))
    with pytest.raises(GarbledError, match="more than"):
        client_of(canned.url).own_trades()


def test_an_answer_that_drips_for_ever_is_unreachable(canned: Canned) -> None:
    def drops() -> Iterator[bytes]:
        for _ in range(100):
            time.sleep(0.1)
            yield b" "

    canned.answer = lambda: Response(drops(), mimetype="application/json")
    began = time.monotonic()
    with pytest.raises(UnreachableError, match="drips"):
        client_of(canned.url).delete_own_key()
    assert time.monotonic() - began < 2


def test_an_answer_that_is_cut_off_is_garbled() -> None:
    reply = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"retCode": 0, "result": {}}'
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(reply)
                connection.shutdown(socket.SHUT_WR)
                connection.recv(65536)

        threading.Thread(target=answer, daemon=True).start()
        port = listening.getsockname()[1]
        with pytest.raises(GarbledError, match="cut off"):
            client_of(f"http://127.0.0.1:{port}").delete_own_key()


@pytest.mark.parametrize("trap", ["hang", "drop", "down"])
def test_no_usable_answer_is_unreachable(server: BybitServer, trap: str) -> None:
    server.traps = {trap}
    with pytest.raises(UnreachableError):
        client_of(server.url, server).own_trades()


def test_a_redirect_is_refused_and_leaks_nothing(canned: Canned) -> None:
    elsewhere = Canned()
    elsewhere.answer = said(0)
    elsewhere.start()
    canned.answer = lambda: Response(status=307, headers={"Location": elsewhere.url + "/x"})
    client = client_of(canned.url)
    for act in (client.own_trades, client.delete_own_key):
        with pytest.raises(RefusedError, match="redirect"):
            act()
    elsewhere.stop()
    assert elsewhere.seen == []


def test_a_client_that_may_only_read_sends_no_write(server: BybitServer) -> None:
    client = client_of(server.url, server, may_write=False)
    for act in (
        client.delete_own_key,
        lambda: client.delete_sub_key("101", "BOTKEY00000101f3Qa"),
        lambda: client.cancel_orders("101", [("spot", "", "", "Order")]),
    ):
        with pytest.raises(RefusedError, match="may only read"):
            act()
    assert client.prove("").summary.startswith("query-api")
    assert client.prove("101").summary.startswith("query-api")
    assert server.writes == []
    assert not client.spent("")


def test_a_rehearsal_names_the_missing_right(server: BybitServer) -> None:
    client = client_of(server.url, server)
    server.books.keys[server.master_key].permissions = {}
    with pytest.raises(RefusedError, match="no Wallet permission"):
        client.prove("")
    server.books.keys[server.master_key].read_only = True
    with pytest.raises(RefusedError, match="read-only"):
        client.prove("")
    server.books.keys[server.held["101"][0]].permissions = {"Wallet": ["AccountTransfer"]}
    with pytest.raises(RefusedError, match="may not cancel"):
        client.prove("101")
    server.books.keys[server.held["101"][0]].uid = "102"
    with pytest.raises(RefusedError, match="belongs to account 102"):
        client.prove("101")


def test_the_own_key_must_be_a_master_key(server: BybitServer) -> None:
    client = BybitClient(endpoint=server.url)
    client.login(own=credential(*server.held["101"]), held={}, may_write=True)
    with pytest.raises(RefusedError, match="only a master key"):
        client.own_trades()


def test_the_list_of_sub_accounts_is_a_union_and_says_when_half_is_missing(
    server: BybitServer,
) -> None:
    client = client_of(server.url, server)
    server.traps = {"subs-hidden"}
    assert client.sub_uids().ids == ("101", "102")
    server.books.keys[server.master_key].permissions = {}
    listed = client.sub_uids()
    assert listed.ids == ()
    assert "10005" in listed.missing
    assert listed.lasting


def test_a_first_page_of_keys_is_never_the_whole_list(server: BybitServer) -> None:
    client = client_of(server.url, server)
    for number in range(30):
        server.books.add_key(Key(f"KEY{number:09}", "s", "102", dict(TRADE_RIGHTS)))
    listed = client.sub_keys("102")
    assert len(listed.ids) == 20
    assert listed.missing


def test_open_orders_are_counted_page_by_page_and_kept_apart_from_stops(
    server: BybitServer,
) -> None:
    server.books.orders += [Order(f"n{n}", "101", "linear", "BTCUSDT") for n in range(120)]
    server.books.orders.append(Order("i", "101", "inverse", "ETHUSD", coin="ETH"))
    account = client_of(server.url, server).account("101")
    assert account.answers
    assert account.orders == {
        ("linear", "settleCoin", "USDT", "Order"): 122,
        ("linear", "settleCoin", "USDT", "StopOrder"): 1,
        ("inverse", "symbol", "ETHUSD", "Order"): 1,
        ("spot", "", "", "Order"): 1,
    }
    assert account.positions == ("BTCUSDT long 0.40",)


def test_what_one_category_hides_does_not_hide_the_others(server: BybitServer) -> None:
    server.books.keys[server.held["101"][0]].permissions = {"ContractTrade": ["Order"]}
    account = client_of(server.url, server).account("101")
    assert sum(account.orders.values()) == 3
    assert "10005" in account.missing


def test_a_dead_held_key_ends_nothing_unless_we_had_it_deleted(server: BybitServer) -> None:
    client = client_of(server.url, server)
    key = server.held["101"][0]
    del server.books.keys[key]
    account = client.account("101")
    assert account.missing == "the key held there answers 10003: the key is dead"
    assert account.lasting


def test_orders_seen_after_the_request_to_delete_cast_doubt(server: BybitServer) -> None:
    client = client_of(server.url, server)
    server.traps = {"delete-lies"}
    client.delete_sub_key("101", server.held["101"][0])
    assert client.spent("101")
    client.account("101")
    assert not client.spent("101")


def test_a_bots_key_beside_a_dead_held_key_casts_doubt(server: BybitServer) -> None:
    client = client_of(server.url, server)
    server.books.orders.clear()
    client.delete_sub_key("101", server.held["101"][0])
    client.sub_keys("101")
    assert client.account("101").missing
    for bot in ("BOTKEY00000101f3Qa", "BOTKEY00000101x7Lm"):
        client.delete_sub_key("101", bot)
    client.sub_keys("101")
    assert client.account("101").missing


def test_two_ids_with_the_same_end_get_longer_labels(server: BybitServer) -> None:
    server.books.add_key(Key("ANOTHER11f3Qa", "s", "101", dict(TRADE_RIGHTS)))
    client = client_of(server.url, server)
    client.sub_keys("101")
    assert client.label("101", "ANOTHER11f3Qa") == "11f3Qa"
    assert client.label("101", "BOTKEY00000101f3Qa") == "01f3Qa"
    assert client.label("102", "BOTKEY000001029bTz") == "9bTz"


def test_a_pace_is_kept_and_a_long_queue_refused() -> None:
    pace = Pace(2, longest_s=0.0)
    pace.wait()
    pace.wait()
    with pytest.raises(UnreachableError):
        pace.wait()


def test_sessions_add_no_log_handlers_and_print_nothing(
    server: BybitServer, capfd: pytest.CaptureFixture[str]
) -> None:
    root, saved = logging.getLogger(), logging.getLogger().handlers[:]
    root.handlers.clear()
    try:
        server.traps = {"rate-limit-past"}
        for _ in range(3):
            with pytest.raises(UnreachableError):
                client_of(server.url, server).prove("101")
            server._calls.clear()
        assert logging.getLogger("pybit._http_manager").handlers == []
    finally:
        root.handlers[:] = saved
    out = capfd.readouterr()
    assert (out.out, out.err) == ("", "")


def test_no_failure_shows_a_secret(server: BybitServer, canned: Canned) -> None:
    secrets = [server.master_key, server.master_secret, *server.held["101"]]
    client, other = client_of(server.url, server), client_of(canned.url, server)
    errors: list[VendorError] = []

    def fail(act: Callable[[], Any]) -> None:
        with pytest.raises(VendorError) as caught:
            act()
        errors.append(caught.value)

    for trap in ("ip-bound", "key-expired", "hang", "drop", "down", "garbage"):
        server.traps = {trap}
        fail(client.own_trades)
    server.traps = {"no-permission"}
    fail(client.delete_own_key)
    echo = f"error sign! origin_string[1{server.master_key}20000{server.master_secret}]"
    for code in (10001, 10002, 10003, 10004, 10005, 77777):
        canned.answer = said(code, echo)
        fail(other.own_trades)
    canned.answer = lambda: Response(echo, status=500)
    fail(lambda: other.cancel_orders("101", [("spot", "", "", "Order")]))
    for error in errors:
        chain = "".join(traceback.format_exception(error))
        assert error.__cause__ is None
        assert error.__context__ is None
        for text in (str(error), repr(error), chain):
            assert not [secret for secret in secrets if secret in text], type(error)
    shown = [repr(client), *(repr(it) for it in client._sessions.values()), repr(client.__dict__)]
    assert not [text for text in shown for it in (secrets[1], secrets[3]) if it in text]
