"""Reading what is open on a Bybit account: orders, counted by what cancels them, and positions."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

from killswitch.clients import bybit_wire as wire
from killswitch.clients.bybit_pace import side_by_side
from killswitch.clients.bybit_shapes import OrderPage, PositionPage
from killswitch.errors import VendorError
from killswitch.steps.bybit_port import Sweep

Call: TypeAlias = Callable[..., wire.Reply]
"""Makes one call with the key held in the account: its method and its parameters."""
# Every reading of open orders: category, settleCoin, orderFilter.
_ORDERS: Final = (
    *(("linear", coin, kind) for coin in ("USDT", "USDC") for kind in ("Order", "StopOrder")),
    ("inverse", "", "Order"),
    ("inverse", "", "StopOrder"),
    ("spot", "", "Order"),
    ("spot", "", "tpslOrder"),
    ("spot", "", "StopOrder"),
    ("spot", "", "OcoOrder"),
    ("spot", "", "BidirectionalTpslOrder"),
    ("option", "", "Order"),
)
_POSITIONS: Final = (("linear", "USDT"), ("linear", "USDC"), ("inverse", ""), ("option", ""))


def count_orders(call: Call) -> list[Counter[Sweep] | VendorError]:
    """Count the open orders; what one reading could not see is its error."""
    return side_by_side(partial(_count, call), _ORDERS)


def open_positions(call: Call) -> tuple[tuple[str, ...], str]:
    """Return the open positions in words, and why some could not be read."""
    texts: list[str] = []
    try:
        for category, coin in _POSITIONS:
            reach = {"settleCoin": coin} if coin else {}
            reply = call("get_positions", category=category, limit=200, **reach)
            texts += [position.text for position in reply.parse(PositionPage).open]
    except VendorError as error:
        return tuple(texts), error.problem
    return tuple(texts), ""


def _count(call: Call, what: tuple[str, str, str]) -> Counter[Sweep] | VendorError:
    category, coin, order_filter = what
    count: Counter[Sweep] = Counter()
    reach = {"settleCoin": coin} if coin else {}
    try:
        for symbol in _symbols(call, category, orderFilter=order_filter, **reach):
            # Bybit cancels inverse orders only by symbol or coin, and lists them without.
            by = (
                ("symbol", symbol) if category == "inverse" else next(iter(reach.items()), ("", ""))
            )
            count[(category, *by, order_filter)] += 1
    except VendorError as error:
        return error
    return count


def _symbols(call: Call, category: str, **reach: str) -> Iterator[str]:
    cursor: dict[str, str] = {}
    for _ in range(wire.MAX_PAGES):
        reply = call("get_open_orders", category=category, limit=50, **reach, **cursor)
        page = reply.parse(OrderPage)
        yield from (order.symbol for order in page.list or ())
        if not page.list or not page.nextPageCursor:
            return
        cursor = {"cursor": wire.safe_cursor(page.nextPageCursor)}
