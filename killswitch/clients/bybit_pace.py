"""How calls to Bybit are spread: several at once, no faster than its limits, never for ever."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from killswitch.errors import UnreachableError

S = TypeVar("S")
T = TypeVar("T")
# Calls a second, a fifth under Bybit's limit per account.
PACES: Final[Mapping[str, int]] = {
    "get_api_key_information": 8,
    "get_sub_uid_list": 8,
    "get_sub_uid_list_unlimited": 4,
    "get_all_sub_api_keys": 8,
    "delete_sub_api_key": 4,
    "delete_master_api_key": 4,
    "get_open_orders": 40,
    "get_positions": 40,
    "cancel_all_orders": 8,
    "cancel_all_orders option": 1,
}


class Paces:
    """The pace of every method on every account; "cancel_all_orders option" has its own."""

    def __init__(self) -> None:
        self._paces: dict[tuple[str, str], Pace] = {}
        self._lock = threading.Lock()

    def of(self, uid: str, method: str, category: object) -> "Pace":
        """Return the pace for one call."""
        own_pace = f"{method} {category}"
        key = own_pace if own_pace in PACES else method
        with self._lock:
            return self._paces.setdefault((uid, key), Pace(PACES[key]))


class Pace:
    """Lets at most `per_second` calls start in any second; a wait beyond `longest_s` is refused."""

    def __init__(self, per_second: int, *, longest_s: float = 10.0) -> None:
        self._starts: deque[float] = deque(maxlen=per_second)
        self._longest_s = longest_s
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Wait for a turn."""
        with self._lock:
            now = time.monotonic()
            full = len(self._starts) == self._starts.maxlen
            start = max(now, self._starts[0] + 1.0) if full else now
            if start - now > self._longest_s:
                raise UnreachableError("too many calls are waiting for bybit's rate limit")
            self._starts.append(start)
        time.sleep(start - now)


@dataclass(frozen=True, slots=True)
class Budget:
    """How long something may take, on the wall clock, whatever hangs; `end` is monotonic."""

    seconds: float
    end: float

    @classmethod
    def of(cls, seconds: float) -> "Budget":
        """Return a budget that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    def part(self, seconds: float) -> "Budget":
        """Return a budget for a part that begins now; it ends no later than the whole."""
        return Budget.of(max(0.0, min(seconds, self.end - time.monotonic())))

    def late(self, _item: object = None) -> UnreachableError:
        """Return the error of what had not answered at the end."""
        return UnreachableError(f"no answer within {round(self.seconds, 1):g} s")


def in_time(act: Callable[[], T], budget: Budget) -> T:
    """Return act(), or raise UnreachableError at the end of the budget and leave it behind."""

    def look(_item: None) -> T | UnreachableError:
        return act()

    [value] = side_by_side(look, [None], budget=budget, late=budget.late)
    if isinstance(value, UnreachableError):
        raise value
    return value


def side_by_side(
    look: Callable[[S], T],
    items: Iterable[S],
    *,
    budget: Budget,
    late: Callable[[S], T],
    at_once: int = 32,
) -> list[T]:
    """Return look(item) of every item in order, or late(item) of what is not there in time.

    Made in up to `at_once` daemon threads; one that hangs is left behind.
    """
    every = list(items)
    todo = deque(enumerate(every))
    done: dict[int, T] = {}
    failed: list[BaseException] = []

    def work() -> None:
        while not failed:
            try:
                number, item = todo.popleft()
            except IndexError:
                return
            try:
                done[number] = look(item)
            except BaseException as error:  # noqa: BLE001 (raised again by the caller's thread)
                failed.append(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(min(at_once, len(every)))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, budget.end - time.monotonic()))
    todo.clear()
    if failed:
        raise failed[0]
    seen = done.copy()
    return [seen[n] if n in seen else late(item) for n, item in enumerate(every)]


class Steady:
    """Whether all was seen ended before, long enough ago, and at every look since.

    Args:
        seconds: how long between the first such look and the one that counts.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: float | None = None

    def __call__(self, *, clean: bool) -> bool:
        """Take in one look."""
        now = time.monotonic()
        if not clean:
            self._since = None
            return False
        self._since = now if self._since is None else self._since
        return now - self._since >= self._seconds
