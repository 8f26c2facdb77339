"""The parts that a look at Bybit is put together from."""

from typing import Final

from killswitch.model import Blind, Clear, Note, Plan
from killswitch.steps.bybit_port import Account, Listed

WEB: Final = "https://www.bybit.com/app/user/api-management"


def place_of(uid: str) -> str:
    """Name an account as targets do."""
    return f"sub {uid}" if uid else "main account"


def end(target: str, saw: str, seen: Listed | Account) -> Plan:
    """Return that the target has ended, or why that could not be seen."""
    if seen.missing:
        return Plan(blind=(Blind(target, seen.missing, seen.lasting),))
    return Plan(clear=(Clear(target, saw),))


def stop_orders(count: int, place: str) -> str:
    """Say how many stop orders stay on an account."""
    many = "s" if count != 1 else ""
    return f"{count} stop order{many} left on {place}, to protect positions"


def hidden(text: str) -> Note:
    """Return a note of what cannot be seen."""
    return Note("cannot see", text, WEB)


def join(*parts: Plan) -> Plan:
    """Return one plan with all that the parts saw."""
    return Plan(
        live=tuple(action for part in parts for action in part.live),
        blind=tuple(blind for part in parts for blind in part.blind),
        clear=tuple(clear for part in parts for clear in part.clear),
        notes=tuple(note for part in parts for note in part.notes),
    )
