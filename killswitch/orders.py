"""Making an order: the one document that a touch authorises."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from killswitch.journal.store import Head
from killswitch.model import Mode, Order

_LETTERS: Final = "abcdefghjkmnpqrstuvwxyz23456789"  # none that looks like another


def make_order(
    *,
    mode: Mode,
    scope: Sequence[str],
    config_sha256: str,
    head: Head,
    now: datetime,
    random_bytes: Callable[[int], bytes],
    reason: str = "",
    trigger_value: str = "",
    incident: str = "",
) -> Order:
    """Return a new order; its id reads as a date, a time (UTC) and four random letters."""
    suffix = "".join(_LETTERS[byte % len(_LETTERS)] for byte in random_bytes(4))
    return Order(
        id=f"{now.astimezone(UTC):%Y%m%d-%H%M}-{suffix}",
        mode=mode,
        issued_at=f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z",
        reason=reason,
        trigger_value=trigger_value,
        incident=incident,
        scope=tuple(scope),
        config_sha256=config_sha256,
        journal_size=head.size,
        journal_head=head.hash,
        nonce=random_bytes(16).hex(),
    )
