"""What the Bybit step needs from an exchange."""
# ruff: noqa: D102 (the protocol's docstring says what its names do not)

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from killswitch.errors import RefusedError
from killswitch.model import Plan, Receipt

# What one cancel-all reaches: category, "settleCoin" or "symbol" or "", its value, orderFilter.
Sweep: TypeAlias = tuple[str, str, str, str]


class DeadKeyError(RefusedError):
    """The key answers as if it had never existed (10003 or HTTP 401)."""


@dataclass(frozen=True, slots=True)
class Listed:
    """Ids as listed; `missing` says what could not be seen, for good if `lasting`."""

    ids: tuple[str, ...] = ()
    missing: str = ""
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Account:
    """What a key sees if it still `answers`: open orders per sweep, positions (or why none)."""

    answers: bool = False
    orders: Mapping[Sweep, int] = field(default_factory=dict)
    positions: tuple[str, ...] = ()
    no_positions: str = ""
    missing: str = ""
    lasting: bool = False


class Exchange(Protocol):
    """A master key, and the keys held in its sub accounts by uid; uid "" is its own account.

    `begin` begins a look: what it reads ends in time whatever hangs, and late(uid, why) stands in
    for a part of `each` that does not. `own_trades` raises RefusedError unless the own key is a
    master key that may write.
    `steady` is told whether a look found all but the held keys ended, and returns whether every
    look did so for long enough.
    `spent`: this run had that key deleted after its last clean look; a held key also an earlier
    run, as long as the own key can still list the keys. `prove` shows by query-api
    that a key may do its part. `label` is an id's last characters, four or more.
    """

    own_id: str
    held_ids: Mapping[str, str]

    def begin(self) -> None: ...
    def own_trades(self) -> bool: ...
    def spent(self, uid: str) -> bool: ...
    def steady(self, *, clean: bool) -> bool: ...
    def prove(self, uid: str) -> Receipt: ...
    def label(self, uid: str, key_id: str) -> str: ...
    def sub_uids(self) -> Listed: ...
    def sub_keys(self, uid: str) -> Listed: ...
    def account(self, uid: str) -> Account: ...
    def each(
        self,
        look: Callable[[str], Plan],
        uids: Iterable[str],
        late: Callable[[str, str], Plan],
    ) -> list[Plan]: ...
    def delete_sub_key(self, uid: str, key_id: str) -> Receipt: ...
    def delete_own_key(self) -> Receipt: ...
    def cancel_orders(self, uid: str, sweeps: Iterable[Sweep]) -> Receipt: ...
