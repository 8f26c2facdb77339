"""Making an order: the one document that a touch authorises."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final

from killswitch.journal.store import Head
from killswitch.model import Mode, Order
from killswitch.secret import redact

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
    bundle_sha256: str = "",
) -> Order:
    """Return a new order; its id reads as a date, a time (UTC) and four random letters.

    Its texts are redacted here: what is signed and what is stored must be the same bytes.
    """
    suffix = "".join(_LETTERS[byte % len(_LETTERS)] for byte in random_bytes(4))
    return Order(
        id=f"{now.astimezone(UTC):%Y%m%d-%H%M}-{suffix}",
        mode=mode,
        issued_at=f"{now.astimezone(UTC):%Y-%m-%dT%H:%M:%S}Z",
        reason=_text(reason),
        trigger_value=_text(trigger_value),
        incident=_text(incident),
        scope=tuple(map(_text, scope)),
        config_sha256=config_sha256,
        journal_size=head.size,
        journal_head=head.hash,
        bundle_sha256=bundle_sha256,
        nonce=random_bytes(16).hex(),
    )


def _text(typed: str) -> str:
    # Bytes of the command line that are no text arrive as lone surrogates, which JSON has not.
    return redact(typed.encode(errors="replace").decode())
