"""Bybit: delete the bots' keys, cancel what is open with a held key, the own key last."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Final, Literal

from killswitch.errors import RefusedError, VendorError
from killswitch.model import Action, Blind, Clear, Note, Plan, Receipt
from killswitch.steps.bybit_parts import WEB, end, hidden, join, place_of, stop_orders
from killswitch.steps.bybit_port import Account, DeadKeyError, Exchange, Listed

SUBS: Final = "sub accounts"
_HELD: Final = 4
_NEW_EYE: Final = "a new master key in the configuration can list them, and goes last again"


@dataclass(frozen=True, slots=True)
class RevokeKeys:
    """Ends all access that one Bybit master key reaches; orders="entries" leaves stop orders."""

    exchange: Exchange
    system: str
    orders: Literal["entries", "all"] = "entries"
    name: ClassVar[str] = "bybit"
    evidence: ClassVar[bool] = False

    def plan(self) -> Plan:
        """See the keys in the master's own lists, the orders with the keys held there."""
        own = f"own key …{self.exchange.label('', self.exchange.own_id)}"
        self.exchange.begin()
        trades, silent = False, None
        try:
            trades = self.exchange.own_trades()
        except RefusedError as error:
            return self._without_own_key(own, error)
        except VendorError as error:  # what else there is may still be seen
            silent = error
        subs = self.exchange.sub_uids()
        uids = sorted({*subs.ids, *self.exchange.held_ids})
        parts = self.exchange.each(self._sub, ["", *uids] if trades else uids, _unread)
        rest = join(
            *parts,
            Plan() if trades or silent else self._orders("", None),
            end(SUBS, f"{len(uids)} looked at", subs),
            Plan(notes=(hidden(f"other master keys of {self.system} are not visible"),)),
        )
        if silent:
            if not rest.live:
                raise silent
            return join(rest, end(own, "", Listed((), silent.problem)))
        rest = self._twice(rest)
        why = "kept so that a second run can delete what is left" if rest.live or rest.blind else ""
        return join(rest, self._delete(own, 5, self.exchange.delete_own_key, why))

    def _twice(self, rest: Plan) -> Plan:
        """Keep the keys that can see until all else was seen ended twice: then nothing can be."""
        clean = not rest.blind and all(action.phase == _HELD for action in rest.live)
        if self.exchange.steady(clean=clean) or not clean:
            return rest
        why = "kept until all else was seen ended twice"
        live = tuple(replace(each, withheld=each.withheld or why) for each in rest.live)
        clear = tuple(each for each in rest.clear if each.target != SUBS)
        again = Blind(SUBS, "seen ended once, to be looked at again")
        return replace(rest, live=live, clear=clear, blind=(again,))

    def _without_own_key(self, own: str, error: RefusedError) -> Plan:
        """Say what is left to see; orders are still cancelled where a key is held.

        Only while this very run deleted it is a dead own key the end of all that was seen with
        it: of what was made since an earlier run it says nothing.
        """
        what = f"sub accounts and other master keys of {self.system} are not visible"
        gone = Plan(clear=(Clear(own, error.problem, only_if_known=True),), notes=(hidden(what),))
        if isinstance(error, DeadKeyError) and self.exchange.spent(""):
            return gone
        held = sorted(self.exchange.held_ids)
        parts = self.exchange.each(self._held, held, _orders_unread)
        if not isinstance(error, DeadKeyError):
            if not any(part.live or part.clear for part in parts):
                raise error
            gone = end(own, "", Listed((), error.problem, lasting=True))
        lost = Listed((), f"cannot be listed: own key {error.problem}; {_NEW_EYE}", lasting=True)
        return join(gone, end(SUBS, "", lost), *parts)

    def _sub(self, uid: str) -> Plan:
        """Look at the keys first: with no bot's key left, no order can follow the ones read."""
        if not uid:
            return self._held(uid)
        keys, held = self.exchange.sub_keys(uid), self.exchange.held_ids.get(uid, "")
        account = self.exchange.account(uid) if held else None
        orders = self._orders(uid, account)
        bots = [key for key in keys.ids if key != held]
        parts = [self._delete_sub(uid, key, 1) for key in bots]
        if held in keys.ids or (account and account.answers):
            needed = bots or keys.missing or orders.live or orders.blind
            why = "kept until its account has no other key and no open order" if needed else ""
            parts.append(self._delete_sub(uid, held, _HELD, why))
        if keys.missing or not parts:
            parts.append(end(f"sub {uid}", "no key left", keys))
        return join(orders, *parts)

    def _held(self, uid: str) -> Plan:
        return self._orders(uid, self.exchange.account(uid))

    def _orders(self, uid: str, account: Account | None) -> Plan:
        """Cancel what is open on an account, as far as a key is held there."""
        place = place_of(uid)
        if account is None:
            return Plan(notes=(hidden(f"orders on {place}: no key is held there"),))
        every = self.orders == "all"
        ours = {sweep: n for sweep, n in account.orders.items() if every or sweep[3] == "Order"}
        amount = sum(ours.values())
        parts = [self._stays(place, account, stops=sum(account.orders.values()) - amount)]
        if ours:
            cancel = partial(self.exchange.cancel_orders, uid, tuple(ours))
            prove = partial(self.exchange.prove, uid)
            what = Action(
                "cancel orders", f"{place}/orders", cancel, prove, 2, amount, reversible=True
            )
            parts.append(Plan(live=(what,)))
        if account.missing or not ours:
            saw = "no open order" if account.answers else "no open order when its key was deleted"
            parts.append(end(f"{place}/orders", saw, account))
        return join(*parts)

    def _stays(self, place: str, account: Account, stops: int) -> Plan:
        left = [f"{it} on {place}: killswitch does not close positions" for it in account.positions]
        left += [stop_orders(stops, place)] if stops else []
        notes = [Note("still open", text, WEB) for text in left]
        if account.no_positions:
            notes.append(hidden(f"positions on {place}: {account.no_positions}"))
        return Plan(notes=tuple(notes))

    def _delete_sub(self, uid: str, key: str, phase: int, why: str = "") -> Plan:
        target = f"sub {uid}/key …{self.exchange.label(uid, key)}"
        return self._delete(target, phase, partial(self.exchange.delete_sub_key, uid, key), why)

    def _delete(self, target: str, phase: int, perform: Callable[[], Receipt], why: str) -> Plan:
        prove = partial(self.exchange.prove, "")
        return Plan(live=(Action("delete key", target, perform, prove, phase, withheld=why),))


def _unread(uid: str, why: str) -> Plan:
    return end(f"sub {uid}", "", Listed((), why)) if uid else _orders_unread(uid, why)


def _orders_unread(uid: str, why: str) -> Plan:
    return end(f"{place_of(uid)}/orders", "", Listed((), why))
