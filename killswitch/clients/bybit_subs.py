"""Reading which sub accounts a Bybit master account has."""

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from killswitch.clients import bybit_wire as wire
from killswitch.clients.bybit_pace import Budget, side_by_side
from killswitch.clients.bybit_shapes import SubMembers
from killswitch.errors import GarbledError, VendorError
from killswitch.steps.bybit_port import Listed

Call: TypeAlias = Callable[..., wire.Reply]
"""Makes one call with the master key: its method and its parameters."""


def sub_accounts(call: Call, budget: Budget) -> Listed:
    """List the sub accounts: the union of two lists read side by side, as neither shows all."""
    found: list[str] = []

    def read(members: Callable[[Call], Iterator[str]]) -> VendorError | None:
        try:
            for uid in members(call):
                found.append(uid)  # noqa: PERF402 (what came before an error counts)
        except VendorError as error:
            return error
        return None

    answers = side_by_side(read, _LISTS, budget=budget, late=budget.late)
    uids = tuple(dict.fromkeys(found.copy()))
    failures = [answer for answer in answers if answer]
    if not failures:
        return Listed(uids)
    lasting = all(error.lasting for error in failures)
    return Listed(uids, f"cannot be listed in full: {failures[0].problem}", lasting)


def _members(call: Call) -> Iterator[str]:
    page = call("get_sub_uid_list").parse(SubMembers)
    yield from (sub.uid for sub in page.subMembers or ())


def _members_paged(call: Call) -> Iterator[str]:
    cursor: dict[str, str] = {}
    for _ in range(wire.MAX_PAGES):
        reply = call("get_sub_uid_list_unlimited", pageSize=100, **cursor)
        page = reply.parse(SubMembers)
        yield from (sub.uid for sub in page.subMembers or ())
        if page.nextCursor in {"", "0"}:
            return
        cursor = {"nextCursor": wire.safe_cursor(page.nextCursor)}
    raise GarbledError(f"bybit lists sub accounts on more than {wire.MAX_PAGES} pages")


_LISTS: Final = (_members, _members_paged)
