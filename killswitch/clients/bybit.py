"""Bybit V5 through pybit: the keys of a master account and its sub accounts, and their orders."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final

from killswitch.address import checked_url
from killswitch.clients import bybit_shapes as shapes
from killswitch.clients import bybit_wire as wire
from killswitch.clients.bybit_credential import Credential
from killswitch.clients.bybit_orders import count_orders, open_positions
from killswitch.clients.bybit_pace import Budget, Paces, Steady, in_time, side_by_side
from killswitch.clients.bybit_subs import sub_accounts
from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.model import Plan, Receipt
from killswitch.steps.bybit_port import Account, DeadKeyError, Listed, Sweep

OWN: Final = ""
KEYS_PER_PAGE: Final = 20
GRACE_S: Final = 0.3


class BybitClient:
    """Speaks for one master key and for the keys held in its sub accounts; uid "" is the master's.

    It remembers of the run which keys it had deleted, and forgets it when anything is seen alive
    that should have ended before, so that "dead" can be told from "ended by us".

    Args:
        endpoint: "https://api.bybit.com", or plain http on loopback.
        timeout_s: to connect, to read.
        look_s: for all that one look reads, whatever hangs.
        part_s: of it, for the own key and the lists of sub accounts each, for one account's orders.
        steady_s: how long all else must have been seen ended before the keys that see it may go.
        recv_window_ms: how old a request may be when it arrives.
        ca_file: certificates to trust instead of the usual ones.
    """

    def __init__(
        self,
        *,
        endpoint: str,
        timeout_s: tuple[float, float] = (3.0, 5.0),
        look_s: float = 7.5,
        part_s: tuple[float, float] = (3.0, 5.0),
        steady_s: float = 0.0,
        recv_window_ms: int = 20_000,
        ca_file: str | None = None,
    ) -> None:
        self.steady = Steady(steady_s)
        self.own_id = ""
        self.held_ids: Mapping[str, str] = {}
        self._endpoint = checked_url(endpoint)
        self._timeout_s = timeout_s
        self._look_s, self._part_s = look_s, part_s
        self._look = Budget(look_s, math.inf)
        self._trades: bool | None = None
        self._recv_window_ms = recv_window_ms
        self._ca_file = ca_file
        self._offset_ms = 0
        self._may_write, self._account = False, ""
        self._transport: Any = None
        self._sessions: dict[str, Any] = {}
        self._paces = Paces()
        self._lock = threading.Lock()
        self._spent, self._crowded, self._doubtful = set[str](), set[str](), set[str]()
        self._labelled: dict[str, set[str]] = {}

    def __repr__(self) -> str:
        return f"BybitClient(endpoint={self._endpoint!r})"

    def warm(self) -> str:
        """Load pybit, open the connection and read the clock: "clock offset 3 ms"."""
        session = self._open(None)
        wire.call(session.get_server_time, {})  # the first call also connects, which takes time
        before = time.time()
        reply = wire.call(session.get_server_time, {})
        after = time.time()
        server = reply.parse(shapes.ServerTime)
        self._offset_ms = round(int(server.timeNano) / 1e6 - (before + after) * 500)
        return f"clock offset {self._offset_ms} ms"

    def login(
        self,
        *,
        own: Credential,
        held: Mapping[str, Credential],
        may_write: bool,
        account: str = "",
        spent: Collection[str] = (),
    ) -> None:
        """Hand over the credentials; `held` by uid of the sub account, `account` the own one's.

        `spent` names the sub accounts whose key an earlier order deleted when all else there had
        been read as ended: a dead key there is the expected end, elsewhere it is not.
        """
        credentials = {OWN: own, **held}
        self._sessions = {uid: self._open(each) for uid, each in credentials.items()}
        self.own_id = own.api_key.reveal()
        self.held_ids = {uid: each.api_key.reveal() for uid, each in held.items()}
        self._may_write = may_write
        self._account = account
        self._spent = set(spent) - {OWN}

    def spent(self, uid: str) -> bool:
        """Whether killswitch had this key deleted, and nothing has cast doubt on it since."""
        return uid in self._spent and uid not in self._doubtful

    def label(self, uid: str, key_id: str) -> str:
        """Return the last characters of a key id: four, or as many as tell it from the others."""
        others = self._labelled.get(uid, set()) - {key_id}
        length = 4
        while length < len(key_id) and any(it.endswith(key_id[-length:]) for it in others):
            length += 1
        return key_id[-length:]

    def begin(self) -> None:
        """Begin a look: what it reads from now on shares one budget."""
        self._look = Budget.of(self._look_s)

    def each(
        self,
        look: Callable[[str], Plan],
        uids: Iterable[str],
        late: Callable[[str, str], Plan],
    ) -> list[Plan]:
        """Look at several accounts at once; late(uid, why) is of one that takes too long."""
        left = self._look.part(self._look_s)
        why = left.late().problem
        # A moment more, so that what was read of an account until the end is in its look.
        budget = Budget(left.seconds, left.end + GRACE_S)
        return side_by_side(look, uids, budget=budget, late=lambda uid: late(uid, why))

    def own_trades(self) -> bool:
        """Whether the own key may trade; refused unless it is a master key that may write.

        Without an answer, what an earlier look saw holds.
        """
        try:
            self._trades = in_time(self._own, self._look.part(self._part_s[0])).trades
        except DeadKeyError:
            if OWN not in self._spent:  # nobody can tell what was made, and traded, since
                self._spent.clear()
            raise
        except UnreachableError:
            if self._trades is None:
                raise
        return self._trades

    def prove(self, uid: str) -> Receipt:
        """Prove by query-api that the key of `uid` may do its part, without doing it."""
        if uid == OWN:
            if not self._own().manages:
                raise RefusedError("the own key has no Wallet permission: it cannot delete keys")
            return Receipt("query-api: master key, read-write, may delete keys")
        key = self._identify(uid)
        if str(key.userID) != uid:
            raise RefusedError(f"the key held for sub {uid} belongs to account {key.userID}")
        if key.readOnly or not key.trades:
            raise RefusedError(f"the key held for sub {uid} may not cancel orders")
        return Receipt("query-api: read-write, may cancel orders")

    def sub_uids(self) -> Listed:
        """List the sub accounts, as far as they could be read in time."""
        return sub_accounts(partial(self._call, OWN), self._look.part(self._part_s[0]))

    def sub_keys(self, uid: str) -> Listed:
        """List the first page of a sub account's keys; the others come up as these go."""
        try:
            reply = self._call(OWN, "get_all_sub_api_keys", subMemberId=uid, limit=KEYS_PER_PAGE)
            page = reply.parse(shapes.SubKeys)
        except VendorError as error:
            return Listed((), error.problem, error.lasting)
        ids = tuple(key.apiKey for key in page.result or ())
        self._labelled.setdefault(uid, set()).update(ids)
        if ids:
            self._spent.discard(OWN)
        (self._crowded.add if set(ids) - {self.held_ids.get(uid)} else self._crowded.discard)(uid)
        more = page.nextPageCursor or len(ids) >= KEYS_PER_PAGE
        return Listed(ids, "there are more keys than one list shows" if more else "")

    def account(self, uid: str) -> Account:
        """Read the open orders and positions of an account with the key held there."""
        call = partial(self._call, uid)
        budget = self._look.part(self._part_s[1])
        counts = count_orders(call, budget)
        failures = [count for count in counts if isinstance(count, VendorError)]
        dead = next((error for error in failures if isinstance(error, DeadKeyError)), None)
        if dead:
            return self._dead_account(uid, dead)
        orders: Counter[Sweep] = Counter()
        for count in counts:
            orders += count if isinstance(count, Counter) else Counter()
        if any(sweep[3] == "Order" for sweep in orders):
            self._spent -= {uid, OWN}  # still alive, and no longer clean
        positions: tuple[str, ...] = ()
        unread = "not read, as its orders did not answer"
        if not any(isinstance(error, UnreachableError) for error in failures):
            positions, unread = open_positions(call, budget)
        return Account(
            answers=len(failures) < len(counts),
            orders=orders,
            positions=positions,
            no_positions=unread,
            missing=failures[0].problem if failures else "",
            lasting=bool(failures) and all(error.lasting for error in failures),
        )

    def delete_sub_key(self, uid: str, key_id: str) -> Receipt:
        """Delete a key of a sub account, by the master key."""
        self._writing("delete a key")
        if key_id == self.held_ids.get(uid):
            self._spent.add(uid)
        reply = self._call(OWN, "delete_sub_api_key", apikey=key_id)
        return Receipt("delete-sub-api answered 0", wire.evidence([reply]))

    def delete_own_key(self) -> Receipt:
        """Delete the own key: the last thing that it can do."""
        self._writing("delete the own key")
        self._spent.add(OWN)
        reply = self._call(OWN, "delete_master_api_key")
        return Receipt("delete-api answered 0", wire.evidence([reply]))

    def cancel_orders(self, uid: str, sweeps: Iterable[Sweep]) -> Receipt:
        """Ask to cancel all that the sweeps reach: Bybit only acknowledges, and ends it later."""
        self._writing("cancel orders")
        failures, replies = [], []
        for category, by, value, order_filter in sweeps:
            reach = {by: value} if by else {}
            try:
                reply = self._call(
                    uid, "cancel_all_orders", category=category, orderFilter=order_filter, **reach
                )
                if reply.parse(shapes.Cancelled).success == "0":
                    raise UnreachableError(f"cancel-all of {category} orders did not succeed")
                replies.append(reply)
            except VendorError as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return Receipt(f"cancel-all acknowledged, {len(replies)} calls", wire.evidence(replies))

    def _dead_account(self, uid: str, dead: DeadKeyError) -> Account:
        if uid in self._crowded:
            self._doubtful.add(uid)
        if self.spent(uid):
            return Account()
        return Account(missing=f"the key held there {dead.problem}", lasting=True)

    def _own(self) -> shapes.UserKey:
        key = self._identify(OWN)
        if self._account not in {"", str(key.userID)}:
            raise RefusedError(f"the own key is of account {key.userID}, not {self._account}")
        if not key.isMaster:
            raise RefusedError("the own key is a sub account's: only a master key can list keys")
        if key.readOnly:
            raise RefusedError("the own key is read-only: it cannot delete keys")
        return key

    def _identify(self, uid: str) -> shapes.UserKey:
        return self._call(uid, "get_api_key_information").parse(shapes.UserKey)

    def _writing(self, what: str) -> None:
        if not self._sessions:
            raise RuntimeError("login comes first")
        if not self._may_write:
            raise RefusedError(f"this client may only read: it does not {what}")

    def _call(self, uid: str, method: str, **parameters: object) -> wire.Reply:
        if uid not in self._sessions:
            raise RuntimeError("login comes first")
        bound = getattr(self._sessions[uid], method)
        self._paces.of(uid, method, parameters.get("category")).wait()
        try:
            return wire.call(bound, parameters)
        except wire.ClockError:
            pass
        self.warm()  # reads the clock again, once
        return wire.call(bound, parameters)

    def _open(self, credential: Credential | None) -> Any:
        with self._lock:
            self._transport = self._transport or wire.new_transport()
        keys = {}
        if credential:
            keys["api_key"] = credential.api_key.reveal()
            keys["api_secret"] = credential.api_secret.reveal()
        return wire.new_session(
            self._transport,
            endpoint=self._endpoint,
            ca_file=self._ca_file,
            offset_ms=lambda: self._offset_ms,
            timeout=self._timeout_s,
            recv_window=self._recv_window_ms,
            **keys,
        )
