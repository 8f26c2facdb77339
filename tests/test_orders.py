"""Orders: what a touch authorises, made once."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from killswitch.journal.store import Head
from killswitch.model import Mode, Order
from killswitch.orders import make_order
from killswitch.secret import MASK, Secret

NOW = datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC)


def order(
    *,
    now: datetime = NOW,
    reason: str = "drawdown",
    trigger_value: str = "",
    incident: str = "",
    scope: tuple[str, ...] = ("bybit main-desk", "vault prod"),
) -> Order:
    return make_order(
        mode=Mode.LIVE,
        scope=list(scope),
        config_sha256="4f" * 32,
        head=Head(117, "9d" * 32),
        now=now,
        random_bytes=lambda count: bytes(range(count)),
        reason=reason,
        trigger_value=trigger_value,
        incident=incident,
        bundle_sha256="5e" * 32,
    )


def test_an_order_carries_all_that_the_touch_is_for() -> None:
    made = order(trigger_value="-12 %", incident="INC-7")
    assert made == Order(
        id="20261121-0314-abcd",
        mode=Mode.LIVE,
        issued_at="2026-11-21T03:14:07Z",
        reason="drawdown",
        trigger_value="-12 %",
        incident="INC-7",
        scope=("bybit main-desk", "vault prod"),
        config_sha256="4f" * 32,
        journal_size=117,
        journal_head="9d" * 32,
        bundle_sha256="5e" * 32,
        nonce=bytes(range(16)).hex(),
    )


def test_the_time_of_an_order_is_utc_wherever_the_operator_sits() -> None:
    tokyo = NOW.astimezone(timezone(timedelta(hours=9)))
    assert order(now=tokyo) == order()


def test_no_letter_of_an_id_looks_like_another() -> None:
    letters = set()
    for start in range(0, 256, 4):
        made = make_order(
            mode=Mode.DRILL,
            scope=(),
            config_sha256="",
            head=Head(0, "0" * 64),
            now=NOW,
            random_bytes=lambda count, start=start: bytes(  # type: ignore[misc]  # the loop's own
                (start + number) % 256 for number in range(count)
            ),
        )
        letters |= set(made.id.rpartition("-")[2])
    assert not letters & set("il1o0")
    assert len(letters) == 31


@pytest.mark.parametrize("field", ["reason", "trigger_value", "incident"])
def test_bytes_of_the_command_line_that_are_no_text_do_not_stop_a_halt(field: str) -> None:
    typed = b"drawdown \xff\xfe".decode(errors="surrogateescape")
    made = order(**{field: typed})  # type: ignore[arg-type]  # one of the texts
    assert getattr(made, field) == "drawdown ??"
    assert len(made.challenge()) == 32


def test_a_secret_typed_into_the_reason_is_masked_before_it_is_signed() -> None:
    Secret("typed-by-mistake-5512")
    made = order(
        reason="token typed-by-mistake-5512 leaked", scope=("vault typed-by-mistake-5512",)
    )
    assert made.reason == f"token {MASK} leaked"
    assert made.scope == (f"vault {MASK}",)
