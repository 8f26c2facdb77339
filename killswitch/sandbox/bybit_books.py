"""The sandbox Bybit's books: keys, sub accounts, orders, positions; and how calls name them."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

T = TypeVar("T")
MASTER = "1"
FUTURES = ("linear", "inverse")
HIDDEN_NOTES = ("Copper", "Fireblocks", "Tax")
TRADE_RIGHTS = {
    "ContractTrade": ["Order", "Position"],
    "Spot": ["SpotTrade"],
    "Options": ["OptionsTrade"],
}


@dataclass(slots=True)
class Key:
    """An API key; `expired` and `ips` are what Bybit checks before the signature."""

    id: str
    secret: str = field(repr=False)
    uid: str
    permissions: dict[str, list[str]]
    note: str = "bot"
    read_only: bool = False
    ips: tuple[str, ...] = ("*",)
    expired: bool = False

    def may(self, group: str, *rights: str) -> bool:
        """Whether the key holds one of these rights (any at all if none is named)."""
        held = self.permissions.get(group, [])
        return bool(set(held) & set(rights)) if rights else bool(held)

    @property
    def moves_funds(self) -> bool:
        """Whether the key holds a Wallet right and may write: what managing keys takes."""
        return not self.read_only and self.may(
            "Wallet", "AccountTransfer", "SubMemberTransfer", "Withdraw"
        )


@dataclass(slots=True)
class Order:
    """An open order; it is gone once the clock passes `gone_at` (seconds)."""

    id: str
    uid: str
    category: str
    symbol: str
    coin: str = "USDT"
    kind: str = "Order"
    gone_at: float | None = None


@dataclass(slots=True)
class Position:
    """An open position; `side` is "Buy" or "Sell"."""

    uid: str
    category: str
    symbol: str
    side: str
    size: str
    coin: str = "USDT"


@dataclass(slots=True)
class Books:
    """Everything the exchange knows; tests edit it like the real thing."""

    keys: dict[str, Key]
    subs: dict[str, str]
    orders: list[Order]
    positions: list[Position]

    def add_key(self, key: Key) -> None:
        """Mint a key."""
        self.keys[key.id] = key

    def listed_keys(self, uid: str) -> list[Key]:
        """List an account's keys as sub-apikeys does: without those of certain custodians."""
        return [
            key
            for key in self.keys.values()
            if key.uid == uid and not any(word in key.note for word in HIDDEN_NOTES)
        ]

    def open_orders(self, now: float, uids: Iterable[str]) -> list[Order]:
        """Return the orders of these accounts that have not ended."""
        self.orders = [it for it in self.orders if it.gone_at is None or it.gone_at > now]
        within = set(uids)
        return [order for order in self.orders if order.uid in within]


def seeded() -> Books:
    """Return a small desk: two subs with bots' keys, a held key in "101", orders, a position."""
    trade = {**TRADE_RIGHTS}
    keys = [
        Key("MASTERKEY0000a81c", "master-secret-0000", MASTER, {"Wallet": ["SubMemberTransfer"]}),
        Key("BOTKEY00000101f3Qa", "bot-secret-101-a", "101", trade),
        Key("BOTKEY00000101x7Lm", "bot-secret-101-b", "101", trade),
        Key("BOTKEY000001029bTz", "bot-secret-102-a", "102", trade),
        Key("HELDKEY0000101e1D0", "held-secret-101-x", "101", trade, note="killswitch"),
    ]
    orders = [
        Order("o-1", "101", "linear", "BTCUSDT"),
        Order("o-2", "101", "linear", "ETHUSDT"),
        Order("o-3", "101", "spot", "BTCUSDT"),
        Order("s-1", "101", "linear", "BTCUSDT", kind="StopOrder"),
    ]
    return Books(
        keys={key.id: key for key in keys},
        subs={"101": "grid", "102": "trend"},
        orders=orders,
        positions=[Position("101", "linear", "BTCUSDT", "Buy", "0.40")],
    )


class NoError(Exception):
    """Bybit says no: a retCode and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, with what parameters."""

    key: Key
    parameters: Mapping[str, Any]

    def text(self, name: str, default: str = "") -> str:
        """Return one parameter as text."""
        return str(self.parameters.get(name, default))

    def number(self, name: str, default: int) -> int:
        """Return one parameter as a whole number."""
        text = self.text(name, str(default))
        if not text.isdigit():
            raise NoError(10001, f"{name} must be a number")
        return int(text)


def need(allowed: bool) -> None:  # noqa: FBT001 (reads as a sentence)
    """Answer 10005 unless it is allowed."""
    if not allowed:
        raise NoError(10005, "Permission denied, please check your API key permissions.")


def may_trade(key: Key, category: str) -> bool:
    """Whether a key holds the trading right of a category."""
    group = {"linear": "ContractTrade", "inverse": "ContractTrade", "spot": "Spot"}.get(category)
    return key.may(group or "Options")


def narrowed(caller: Caller) -> bool:
    """Whether the call names what futures calls must name."""
    return any(caller.text(name) for name in ("symbol", "baseCoin", "settleCoin"))


def reaches(caller: Caller, it: Order | Position) -> bool:
    """Symbol comes before base coin, base coin before settle coin."""
    if symbol := caller.text("symbol"):
        return it.symbol == symbol
    if base := caller.text("baseCoin"):
        return it.symbol.startswith(base)
    return caller.text("settleCoin", it.coin) == it.coin


def parameters_of(method: str, payload: bytes) -> Mapping[str, Any]:
    """Return the parameters of a call."""
    if method == "GET":
        return dict(parse_qsl(payload.decode()))
    try:
        parameters = json.loads(payload or b"{}")
    except ValueError:
        parameters = None
    if not isinstance(parameters, dict):
        raise NoError(10001, "the body must be a JSON object")
    return parameters


def page_of(things: list[T], caller: Caller, *, most: int) -> tuple[list[T], str]:
    """Cut a list at `limit`; the cursor is the next offset in base64, empty at the end."""
    limit = caller.number("limit", 20)
    if not 1 <= limit <= most:
        raise NoError(10001, f"limit must be within 1 and {most}")
    try:
        start = int(base64.b64decode(caller.text("cursor")) or 0)
    except (binascii.Error, ValueError):
        raise NoError(10001, "the cursor is invalid") from None
    end = start + limit
    return things[start:end], base64.b64encode(str(end).encode()).decode() * (end < len(things))


def shown(key: Key) -> dict[str, Any]:
    """Return a key as the lists show it, its secret masked."""
    return {
        "id": key.id[-8:],
        "note": key.note,
        "apiKey": key.id,
        "secret": "******",
        "readOnly": key.read_only,
        "permissions": key.permissions,
        "ips": list(key.ips),
        "type": 1,
        "status": 2 if key.expired else 1,
        "flag": "hmac",
        "deadlineDay": 90 if "*" in key.ips else -2,
        "expiredAt": "1970-01-01T00:00:00Z",
        "createdAt": "2026-01-02T03:04:05Z",
    }
