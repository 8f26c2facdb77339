"""Reading what is open on a Bybit account: orders, counted by what cancels them, and positions."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final, TypeAlias

from killswitch.clients import bybit_wire as wire
from killswitch.clients.bybit_pace import Budget, side_by_side
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
POSITIONS_S: Final = 2.0
_POSITIONS: Final = (("linear", "USDT"), ("linear", "USDC"), ("inverse", ""), ("option", ""))


def count_orders(call: Call, budget: Budget) -> list[Counter[Sweep] | VendorError]:
    """Count the open orders; what one reading could not see in time is its error."""
    return side_by_side(partial(_count, call), _ORDERS, budget=budget, late=budget.late)


def open_positions(call: Call, budget: Budget) -> tuple[tuple[str, ...], str]:
    """Return the open positions in words, and why some could not be read in time.

    They decide nothing, so they get no more than `POSITIONS_S` of the budget.
    """
    budget = budget.part(POSITIONS_S)
    read = partial(_positions, call)
    pages = side_by_side(read, _POSITIONS, budget=budget, late=budget.late)
    texts = [text for page in pages if isinstance(page, list) for text in page]
    failures = [page.problem for page in pages if isinstance(page, VendorError)]
    return tuple(texts), next(iter(failures), "")


def _positions(call: Call, what: tuple[str, str]) -> list[str] | VendorError:
    category, coin = what
    reach = {"settleCoin": coin} if coin else {}
    try:
        reply = call("get_positions", category=category, limit=200, **reach)
        return [position.text for position in reply.parse(PositionPage).open]
    except VendorError as error:
        return error


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
