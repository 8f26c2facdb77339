"""What Bybit's answers look like, as far as they are read; other fields are ignored."""
# ruff: noqa: N815 (the names are Bybit's)

import msgspec


class UserKey(msgspec.Struct):
    """The calling key as query-api tells it."""

    apiKey: str
    userID: int | str
    isMaster: bool
    readOnly: int
    permissions: dict[str, list[str] | None]

    @property
    def trades(self) -> bool:
        """Whether it may place and cancel orders."""
        rights = {right for rights in self.permissions.values() for right in rights or ()}
        return bool(rights & {"Order", "SpotTrade", "OptionsTrade", "DerivativesTrade"})

    @property
    def manages(self) -> bool:
        """Whether it may delete keys: for Bybit that is any right to move funds."""
        return bool(
            {"AccountTransfer", "SubMemberTransfer", "Withdraw"}
            & set(self.permissions.get("Wallet") or ())
        )


class ServerTime(msgspec.Struct):
    """The server's clock, in nanoseconds."""

    timeNano: str


class _Sub(msgspec.Struct):
    uid: str


class SubMembers(msgspec.Struct):
    """One answer of query-sub-members or submembers; the last page's cursor is "0"."""

    subMembers: list[_Sub] | None
    nextCursor: str = "0"


class _Key(msgspec.Struct):
    apiKey: str


class SubKeys(msgspec.Struct):
    """One answer of sub-apikeys."""

    result: list[_Key] | None
    nextPageCursor: str = ""


class _Symbol(msgspec.Struct):
    symbol: str


class OrderPage(msgspec.Struct):
    """One page of open orders."""

    list: list[_Symbol] | None
    nextPageCursor: str = ""


class _Position(msgspec.Struct):
    symbol: str
    side: str
    size: str

    @property
    def text(self) -> str:
        """The position in words: "BTCUSDT long 0.40"."""
        return f"{self.symbol} {'long' if self.side == 'Buy' else 'short'} {self.size}"


class PositionPage(msgspec.Struct):
    """One page of positions."""

    list: list[_Position] | None

    @property
    def open(self) -> tuple[_Position, ...]:
        """The positions that are open: an empty one has no side."""
        return tuple(position for position in self.list or () if position.side in {"Buy", "Sell"})


class Cancelled(msgspec.Struct):
    """What cancel-all acknowledges: "0" is a no."""

    success: str = "1"
