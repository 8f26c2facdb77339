"""The sandbox Bybit's orders and positions: who may list and cancel what, and what is answered."""

from typing import Any, Final

from killswitch.sandbox.bybit_books import (
    FUTURES,
    Books,
    Caller,
    NoError,
    Order,
    may_trade,
    narrowed,
    need,
    page_of,
    reaches,
)

FUTURES_BATCH: Final = 500
"""How many orders one cancel-all of futures reaches."""


def open_orders(books: Books, caller: Caller, now: float) -> dict[str, Any]:
    """Answer GET order/realtime."""
    category = caller.text("category")
    need(may_trade(caller.key, category))
    if category == "linear" and not narrowed(caller):
        raise NoError(10001, "symbol, baseCoin or settleCoin is required")
    page, cursor = page_of(_matching(books, caller, now), caller, most=50)
    orders = [
        {
            "orderId": it.id,
            "symbol": it.symbol,
            "side": "Buy",
            "orderType": "Limit",
            "orderStatus": "New" if it.kind == "Order" else "Untriggered",
            "stopOrderType": "" if it.kind == "Order" else "Stop",
            "qty": "0.01",
            "price": "10000",
        }
        for it in page
    ]
    return {"category": category, "list": orders, "nextPageCursor": cursor}


def cancel_all(
    books: Books, caller: Caller, now: float, *, gone_at: float | None
) -> dict[str, Any]:
    """Answer POST order/cancel-all; the orders end at `gone_at`, or never if it is None."""
    category = caller.text("category")
    need(not caller.key.read_only and may_trade(caller.key, category))
    if category in FUTURES and not narrowed(caller):
        raise NoError(10001, "symbol, baseCoin or settleCoin is required")
    batch = FUTURES_BATCH if category in FUTURES else None
    reached = _matching(books, caller, now)[:batch]
    for order in reached:
        order.gone_at = order.gone_at or gone_at
    return {"list": [{"orderId": order.id} for order in reached], "success": "1"}


def positions(books: Books, caller: Caller) -> dict[str, Any]:
    """Answer GET position/list."""
    category = caller.text("category")
    need(may_trade(caller.key, category))
    if category == "linear" and not narrowed(caller):
        raise NoError(10001, "symbol or settleCoin is required")
    found = [
        {"symbol": it.symbol, "side": it.side, "size": it.size, "positionIdx": 0}
        for it in books.positions
        if it.uid == caller.key.uid and it.category == category and reaches(caller, it)
    ]
    return {"category": category, "list": found, "nextPageCursor": ""}


def _matching(books: Books, caller: Caller, now: float) -> list[Order]:
    category = caller.text("category")
    # Without a filter, spot means plain orders only and every other category means all.
    kind = caller.text("orderFilter", "Order" if category == "spot" else "")
    return [
        order
        for order in books.open_orders(now, [caller.key.uid])
        if order.category == category and kind in {"", order.kind} and reaches(caller, order)
    ]
