"""A loopback Bybit V5: keys, sub accounts, orders; it checks what Bybit checks, in that order."""

import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from werkzeug.wrappers import Request, Response

from killswitch.sandbox import bybit_trading as trading
from killswitch.sandbox.bybit_books import (
    MASTER,
    TRADE_RIGHTS,
    Books,
    Caller,
    Key,
    NoError,
    Order,
    need,
    page_of,
    parameters_of,
    seeded,
    shown,
)
from killswitch.sandbox.bybit_signature import check_signature
from killswitch.sandbox.server import VendorServer

SKEW_S = 30.0


class BybitServer(VendorServer):
    """Bybit with one master account, two sub accounts, bots' keys and one held key.

    Args:
        traps: names of `TRAPS`.
        port: 0 picks a free one.
        vanish_s: how long a cancelled order stays in the list.
    """

    name: ClassVar[str] = "bybit"
    TRAPS: ClassVar[Mapping[str, str]] = {
        "delete-lies": "deleting a sub key answers 0 and keeps the key",
        "lost-reply": "a key is deleted, but the connection is cut before the answer",
        "key-minted": "a new bot key appears on a sub account right after the first deletion",
        "order-placed": "a bot places one more order right after the first cancel-all",
        "cancel-lies": "cancel-all acknowledges and cancels nothing",
        "no-permission": "deleting any key answers 10005",
        "ip-bound": "the master key is bound to another address (10010)",
        "clock-fast": "the server's clock is 30 s ahead",
        "clock-slow": "the server's clock is 30 s behind",
        "rate-limit-past": "the first call of each kind answers 10006 with a reset time long past",
        "key-expired": "the master key has expired (33004)",
        "http401": "an unknown key is answered with HTTP 401 instead of 10003",
        "subs-hidden": "query-sub-members lists only one sub account",
        "orders-hang": "takes requests about orders and positions and never answers them",
        "one-sub-fails": "listing the keys of the last sub account answers 10016",
    }

    def __init__(
        self,
        *,
        traps: Iterable[str] = (),
        port: int = 0,
        vanish_s: float = 0.05,
    ) -> None:
        super().__init__(traps=traps, port=port)
        self.books: Books = seeded()
        self.vanish_s = vanish_s
        self.master_key = "MASTERKEY0000a81c"
        self.master_secret = self.books.keys[self.master_key].secret
        self.held = {"101": ("HELDKEY0000101e1D0", self.books.keys["HELDKEY0000101e1D0"].secret)}
        self._calls: dict[tuple[str, str], deque[float]] = {}
        self._sprung: set[str] = set()
        self._traces = 0
        self._routes: dict[tuple[str, str], tuple[int, Callable[[Caller], Any]]] = {
            ("GET", "/v5/user/query-api"): (10, self._query_api),
            ("GET", "/v5/user/query-sub-members"): (10, self._sub_members),
            ("GET", "/v5/user/submembers"): (5, self._sub_members_paged),
            ("GET", "/v5/user/sub-apikeys"): (10, self._sub_keys),
            ("POST", "/v5/user/delete-sub-api"): (5, self._delete_sub),
            ("POST", "/v5/user/delete-api"): (5, self._delete_own),
            ("GET", "/v5/order/realtime"): (50, self._orders),
            ("POST", "/v5/order/cancel-all"): (10, self._cancel_all),
            ("GET", "/v5/position/list"): (50, self._positions),
        }

    def renew_master_key(self) -> None:
        """Make a new master key, as a person does on the web page; an old one stays as it is."""
        with self.lock:
            old = self.books.keys.get(self.master_key) or seeded().keys[self.master_key]
            self.master_key, self.master_secret = "MASTERKEY0001b92d", "master-secret-0001"
            self.books.add_key(replace(old, id=self.master_key, secret=self.master_secret))

    def live(self) -> list[str]:
        """Name the living keys, and the entry orders of accounts where a key was ever held."""
        with self.lock:
            names = [
                f"own key …{key.id[-4:]}"
                if key.uid == MASTER
                else f"sub {key.uid}/key …{key.id[-4:]}"
                for key in self.books.keys.values()
            ]
            orders = self.books.open_orders(self.clock(), self.held)
            return names + [f"sub {it.uid}/order {it.id}" for it in orders if it.kind == "Order"]

    def respond(self, request: Request) -> Response:
        """Check as Bybit does and in its order: route, key, address, time, signature, limit."""
        method = str(request.environ["REQUEST_METHOD"])
        body = request.get_data()
        if method != method.upper():
            return Response("bad request", status=400)
        if (method, request.path) == ("GET", "/v5/market/time"):
            return self._envelope(result=self._time())
        if (method, request.path) not in self._routes:
            return self._envelope(10017, "Route not found.", status=404)
        if method == "GET" and body:
            return Response("forbidden", status=403)
        if "orders-hang" in self.traps and request.path.startswith(("/v5/order", "/v5/position")):
            self.hang()
            self.cut(request)
            return Response(status=503)
        with self.lock:
            return self._answer(request, method, body)

    def _answer(self, request: Request, method: str, body: bytes) -> Response:
        limit, handle = self._routes[method, request.path]
        headers: dict[str, str] = {}
        try:
            key = self._key(request)
            payload = request.query_string if method == "GET" else body
            check_signature(request.headers, key, payload, self._now_ms())
            caller = Caller(key, parameters_of(method, payload))
            headers = self._count(key, request.path, caller, limit)
            if headers["X-Bapi-Limit-Status"] == "-1":
                raise NoError(10006, "Too many visits!")  # noqa: TRY301 (one way out)
            result = handle(caller)
        except NoError as error:
            if error.code == 10003 and "http401" in self.traps:
                return Response("", status=401)
            return self._envelope(error.code, error.message, headers=headers)
        if "/delete-" in request.path and "lost-reply" in self.traps:
            self.cut(request)
        return self._envelope(result=result, headers=headers)

    def _key(self, request: Request) -> Key:
        key = self.books.keys.get(request.headers.get("X-BAPI-API-KEY", ""))
        if key is None:
            raise NoError(10003, "API key is invalid.")
        elsewhere = "ip-bound" in self.traps and key.id == self.master_key
        if elsewhere or not {"*", request.remote_addr} & set(key.ips):
            raise NoError(10010, "Unmatched IP, please check your API key's bound IP addresses.")
        if key.expired or ("key-expired" in self.traps and key.id == self.master_key):
            raise NoError(33004, "Your api key has expired.")
        return key

    def _count(self, key: Key, path: str, caller: Caller, limit: int) -> dict[str, str]:
        category = caller.text("category")
        if path.endswith("cancel-all"):
            limit = {"option": 1, "spot": 20}.get(category, limit)
        now, reset_ms = self.clock(), self._now_ms()
        counter = (key.uid, f"{path} {category}")
        first = counter not in self._calls
        calls = self._calls.setdefault(counter, deque())
        while calls and calls[0] <= now - 1.0:
            calls.popleft()
        left = limit - len(calls) - 1
        if first and "rate-limit-past" in self.traps:
            left, reset_ms = -1, reset_ms - 5000
        elif left < 0:
            reset_ms += 1000
        else:
            calls.append(now)
        return {
            "X-Bapi-Limit": str(limit),
            "X-Bapi-Limit-Status": str(left),
            "X-Bapi-Limit-Reset-Timestamp": str(reset_ms),
        }

    def _query_api(self, caller: Caller) -> dict[str, Any]:
        key = caller.key
        master = key.uid == MASTER
        return shown(key) | {
            "secret": "",
            "readOnly": int(key.read_only),
            "userID": int(key.uid),
            "isMaster": master,
            "parentUid": "0" if master else MASTER,
            "uta": 1,
        }

    def _sub_members(self, caller: Caller) -> dict[str, Any]:
        need(caller.key.uid == MASTER and caller.key.moves_funds)
        subs = self._subs()
        return {"subMembers": subs[:1] if "subs-hidden" in self.traps else subs}

    def _sub_members_paged(self, caller: Caller) -> dict[str, Any]:
        need(caller.key.uid == MASTER and caller.key.moves_funds)
        size = min(caller.number("pageSize", 100), 100)
        start = caller.number("nextCursor", 0)
        subs = self._subs()
        more = start + size < len(subs)
        return {
            "subMembers": subs[start : start + size],
            "nextCursor": str(start + size) if more else "0",
        }

    def _sub_keys(self, caller: Caller) -> dict[str, Any]:
        need(caller.key.uid == MASTER)
        uid = caller.text("subMemberId")
        if uid not in self.books.subs:
            raise NoError(10001, "subMemberId is not one of your sub accounts")
        if "one-sub-fails" in self.traps and uid == max(self.books.subs):
            raise NoError(10016, "Server error.")
        page, cursor = page_of(self.books.listed_keys(uid), caller, most=20)
        return {"result": [shown(key) for key in page], "nextPageCursor": cursor}

    def _delete_sub(self, caller: Caller) -> dict[str, Any]:
        need("no-permission" not in self.traps)
        named = caller.text("apikey")
        if caller.key.uid == MASTER:
            need(caller.key.moves_funds)
            target = self.books.keys.get(named)
            if target is None or target.uid not in self.books.subs:
                raise NoError(10001, "apikey is not a key of your sub accounts")
        else:
            if named:
                raise NoError(10001, "apikey must be absent")
            need(caller.key.may("Wallet", "AccountTransfer", "SubMemberTransfer"))
            target = caller.key
        if "delete-lies" not in self.traps:
            del self.books.keys[target.id]
        if self._springs("key-minted"):
            minted = Key("BOTKEYMINTED00zZ99", "bot-secret-minted", target.uid, dict(TRADE_RIGHTS))
            self.books.add_key(minted)
        return {}

    def _delete_own(self, caller: Caller) -> dict[str, Any]:
        need("no-permission" not in self.traps)
        need(caller.key.uid == MASTER and caller.key.moves_funds)
        del self.books.keys[caller.key.id]
        return {}

    def _orders(self, caller: Caller) -> dict[str, Any]:
        return trading.open_orders(self.books, caller, self.clock())

    def _cancel_all(self, caller: Caller) -> dict[str, Any]:
        now = self.clock()
        gone_at = None if "cancel-lies" in self.traps else now + self.vanish_s
        answer = trading.cancel_all(self.books, caller, now, gone_at=gone_at)
        if self._springs("order-placed"):
            self.books.orders.append(Order("o-late", caller.key.uid, "linear", "SOLUSDT"))
        return answer

    def _positions(self, caller: Caller) -> dict[str, Any]:
        return trading.positions(self.books, caller)

    def _springs(self, trap: str) -> bool:
        """Whether a trap that works once works now."""
        if trap not in self.traps or trap in self._sprung:
            return False
        self._sprung.add(trap)
        return True

    def _subs(self) -> list[dict[str, Any]]:
        return [
            {"uid": uid, "username": name, "memberType": 1, "status": 1, "remark": ""}
            for uid, name in self.books.subs.items()
        ]

    def _time(self) -> dict[str, Any]:
        now_ms = self._now_ms()
        return {"timeSecond": str(now_ms // 1000), "timeNano": str(now_ms * 1_000_000)}

    def _now_ms(self) -> int:
        skew_s = SKEW_S * (("clock-fast" in self.traps) - ("clock-slow" in self.traps))
        return int((self.clock() + skew_s) * 1000)

    def _envelope(
        self,
        code: int = 0,
        message: str = "",
        *,
        result: Any = None,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        content = {
            "retCode": code,
            "retMsg": message,
            "result": {} if result is None else result,
            "retExtInfo": {},
            "time": self._now_ms(),
        }
        response = Response(json.dumps(content), status=status, mimetype="application/json")
        response.headers.update(headers or {})
        self._traces += 1
        response.headers["Traceid"] = f"{self._traces:032x}"
        return response
