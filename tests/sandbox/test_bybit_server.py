"""The sandbox Bybit answers as Bybit does: spoken to by plain HTTP, signed here."""

import hashlib
import hmac
import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from killswitch.sandbox.bybit import BybitServer
from killswitch.sandbox.bybit_books import MASTER, TRADE_RIGHTS, Key, Order


@pytest.fixture
def server() -> Iterator[BybitServer]:
    server = BybitServer()
    server.start()
    yield server
    server.stop()


def ask(
    server: BybitServer,
    method: str,
    path: str,
    *,
    key: str = "",
    query: str = "",
    body: dict[str, Any] | None = None,
    secret: str = "",
    skew_ms: int = 0,
    window: str = "5000",
    timeout_s: float = 5.0,
) -> httpx.Response:
    key = key or server.master_key
    if not secret:
        secret = server.books.keys[key].secret if key in server.books.keys else "nobody"
    content = json.dumps(body or {}).encode() if method == "POST" else b""
    stamp = str(int(time.time() * 1000) + skew_ms)
    signed = f"{stamp}{key}{window}{query}".encode() + content
    headers = {
        "x-bapi-api-key": key,
        "x-bapi-timestamp": stamp,
        "x-bapi-recv-window": window,
        "x-bapi-sign": hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest(),
        "content-type": "application/json",
    }
    url = f"{server.url}{path}" + (f"?{query}" if query else "")
    with httpx.Client(trust_env=False, timeout=timeout_s) as client:
        return client.request(method, url, headers=headers, content=content or None)


def code(response: httpx.Response) -> int:
    return int(response.json()["retCode"])


def keys_of(server: BybitServer, uid: str) -> list[str]:
    reply = ask(server, "GET", "/v5/user/sub-apikeys", query=f"subMemberId={uid}").json()
    return [key["apiKey"] for key in reply["result"]["result"]]


def test_an_unknown_route_and_a_body_on_a_get_are_refused(server: BybitServer) -> None:
    assert ask(server, "GET", "/v5/user/nothing").status_code == 404
    with httpx.Client(trust_env=False) as client:
        reply = client.request("GET", f"{server.url}/v5/user/query-api", content=b"{}")
        assert reply.status_code == 403
    plain = http.client.HTTPConnection(server.url.removeprefix("http://"))
    plain.request("get", "/v5/user/query-api")
    assert plain.getresponse().status == 400
    plain.close()


def test_a_wrong_secret_is_answered_with_what_was_signed(server: BybitServer) -> None:
    reply = ask(server, "GET", "/v5/user/query-api", secret="wrong")
    assert code(reply) == 10004
    assert server.master_key in reply.json()["retMsg"]


@pytest.mark.parametrize(("skew_ms", "expected"), [(-6000, 10002), (1500, 10002), (-3000, 0)])
def test_the_time_must_be_within_the_window(
    server: BybitServer, skew_ms: int, expected: int
) -> None:
    assert code(ask(server, "GET", "/v5/user/query-api", skew_ms=skew_ms)) == expected


def test_the_checks_come_in_order(server: BybitServer) -> None:
    key = server.books.keys[server.master_key]
    key.ips, key.expired = ("203.0.113.7",), True
    assert code(ask(server, "GET", "/v5/user/query-api", secret="wrong", skew_ms=-9000)) == 10010
    key.ips = ("127.0.0.1",)
    assert code(ask(server, "GET", "/v5/user/query-api", secret="wrong", skew_ms=-9000)) == 33004
    key.expired = False
    assert code(ask(server, "GET", "/v5/user/query-api", secret="wrong", skew_ms=-9000)) == 10002


def test_more_calls_than_the_limit_in_a_second_are_refused_with_headers(
    server: BybitServer,
) -> None:
    now = time.time()
    server.clock = lambda: now  # however slow the machine is, all in one second
    replies = [ask(server, "GET", "/v5/user/submembers") for _ in range(6)]
    assert [code(reply) for reply in replies] == [0, 0, 0, 0, 0, 10006]
    assert replies[0].headers["X-Bapi-Limit"] == "5"
    assert int(replies[-1].headers["X-Bapi-Limit-Reset-Timestamp"]) > time.time() * 1000


def test_a_deleted_key_answers_like_an_unknown_one(server: BybitServer) -> None:
    bot, secret = "BOTKEY00000101f3Qa", server.books.keys["BOTKEY00000101f3Qa"].secret
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", body={"apikey": bot})) == 0
    assert bot not in keys_of(server, "101")
    dead = ask(server, "GET", "/v5/user/query-api", key=bot, secret=secret).json()
    unknown = ask(server, "GET", "/v5/user/query-api", key="NEVERSEEN").json()
    assert dead["retCode"] == unknown["retCode"] == 10003
    assert dead["retMsg"] == unknown["retMsg"]


def test_only_the_master_with_a_wallet_right_manages_keys(server: BybitServer) -> None:
    bot = "BOTKEY00000101f3Qa"
    assert code(ask(server, "GET", "/v5/user/query-sub-members", key=bot)) == 10005
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", key=bot)) == 10005
    server.books.keys[bot].permissions["Wallet"] = ["SubMemberTransfer"]
    named = ask(server, "POST", "/v5/user/delete-sub-api", key=bot, body={"apikey": bot})
    assert code(named) == 10001
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", key=bot)) == 0
    server.books.keys[server.master_key].read_only = True
    assert code(ask(server, "POST", "/v5/user/delete-api")) == 10005


def test_keys_are_listed_in_pages_of_twenty_and_without_custodians(server: BybitServer) -> None:
    for number in range(25):
        server.books.add_key(Key(f"K{number:04}", "s", "102", dict(TRADE_RIGHTS)))
    server.books.add_key(Key("HIDDEN", "s", "102", dict(TRADE_RIGHTS), note="for Tax"))
    first = ask(server, "GET", "/v5/user/sub-apikeys", query="limit=20&subMemberId=102").json()[
        "result"
    ]
    assert len(first["result"]) == 20
    cursor = first["nextPageCursor"]
    second = ask(
        server, "GET", "/v5/user/sub-apikeys", query=f"cursor={cursor}&limit=20&subMemberId=102"
    ).json()["result"]
    assert (len(second["result"]), second["nextPageCursor"]) == (6, "")
    assert "sub 102/key …DDEN" in server.live()


def test_cancelled_orders_vanish_later_and_stops_stay(server: BybitServer) -> None:
    server.vanish_s = 0.2
    held = server.held["101"][0]
    wide = {"category": "linear"}
    assert code(ask(server, "POST", "/v5/order/cancel-all", key=held, body=wide)) == 10001
    body = {**wide, "settleCoin": "USDT", "orderFilter": "Order"}
    assert code(ask(server, "POST", "/v5/order/cancel-all", key=held, body=body)) == 0
    query = "category=linear&settleCoin=USDT"
    listed = ask(server, "GET", "/v5/order/realtime", key=held, query=query).json()["result"]
    assert len(listed["list"]) == 3
    time.sleep(0.25)
    listed = ask(server, "GET", "/v5/order/realtime", key=held, query=query).json()["result"]
    assert [order["orderId"] for order in listed["list"]] == ["s-1"]


def test_one_cancel_all_reaches_at_most_five_hundred_futures_orders(server: BybitServer) -> None:
    server.vanish_s = 0.0
    server.books.orders = [Order(f"n{n}", "101", "linear", "BTCUSDT") for n in range(600)]
    body = {"category": "linear", "settleCoin": "USDT"}
    ask(server, "POST", "/v5/order/cancel-all", key=server.held["101"][0], body=body)
    assert len([name for name in server.live() if "/order " in name]) == 100


def test_live_names_keys_and_entry_orders(server: BybitServer) -> None:
    assert server.live() == [
        "own key …a81c",
        "sub 101/key …f3Qa",
        "sub 101/key …x7Lm",
        "sub 102/key …9bTz",
        "sub 101/key …e1D0",
        "sub 101/order o-1",
        "sub 101/order o-2",
        "sub 101/order o-3",
    ]


def test_traps_answer_as_they_say(server: BybitServer) -> None:
    body = {"apikey": "BOTKEY00000101f3Qa"}
    server.traps = {"http401"}
    assert ask(server, "GET", "/v5/user/query-api", key="NEVERSEEN").status_code == 401
    server.traps = {"no-permission"}
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", body=body)) == 10005
    server.traps = {"delete-lies"}
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", body=body)) == 0
    assert body["apikey"] in keys_of(server, "101")
    server.traps = {"subs-hidden"}
    one = ask(server, "GET", "/v5/user/query-sub-members").json()["result"]["subMembers"]
    both = ask(server, "GET", "/v5/user/submembers").json()["result"]["subMembers"]
    assert (len(one), len(both)) == (1, 2)
    server.traps = {"one-sub-fails"}
    assert code(ask(server, "GET", "/v5/user/sub-apikeys", query="subMemberId=102")) == 10016
    server.traps = {"key-minted"}
    ask(server, "POST", "/v5/user/delete-sub-api", body=body)
    assert "BOTKEYMINTED00zZ99" in keys_of(server, "101")
    server.traps = {"lost-reply"}
    with pytest.raises(httpx.TransportError):
        ask(server, "POST", "/v5/user/delete-sub-api", body={"apikey": "BOTKEYMINTED00zZ99"})
    assert "BOTKEYMINTED00zZ99" not in server.books.keys


def test_the_rate_limit_trap_says_a_reset_time_in_the_past(server: BybitServer) -> None:
    server.traps = {"rate-limit-past"}
    reply = ask(server, "GET", "/v5/user/query-api")
    assert code(reply) == 10006
    assert int(reply.headers["X-Bapi-Limit-Reset-Timestamp"]) < time.time() * 1000
    assert code(ask(server, "GET", "/v5/user/query-api")) == 0


def test_the_master_deletes_only_itself(server: BybitServer) -> None:
    server.books.add_key(Key("OTHERMASTER", "s", MASTER, {"Wallet": ["Withdraw"]}))
    assert code(ask(server, "POST", "/v5/user/delete-sub-api", body={"apikey": "OTHERMASTER"})) > 0
    assert code(ask(server, "POST", "/v5/user/delete-api")) == 0
    assert set(server.books.keys) >= {"OTHERMASTER"}
    assert server.master_key not in server.books.keys


def test_orders_that_hang_leave_the_other_routes_alone(server: BybitServer) -> None:
    server.traps = {"orders-hang"}
    assert code(ask(server, "GET", "/v5/user/query-api")) == 0
    for path in ("/v5/order/realtime", "/v5/position/list"):
        with pytest.raises(httpx.ReadTimeout):
            ask(server, "GET", path, query="category=linear", timeout_s=0.3)
