"""Bytes that were signed stay as they were signed, and bytes that were stored are what counts."""

import json
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from killswitch.converge import Limits
from killswitch.halt import carry_out
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.store import GENESIS, Event, Head, Journal, NewEvent, chained
from killswitch.model import Mode, Order, Outcome, StepResult
from killswitch.orders import make_order
from killswitch.runner import Runner
from killswitch.secret import MASK, Secret
from killswitch.steps.journal import AppendEvent, EventLog
from tests.engine.simulator import make_assignment

NOW = datetime(2026, 11, 21, 3, 14, 7, tzinfo=UTC)
PASSWORD = "drawdown"
QUICK = Limits(deadline_s=4, wrap_up_s=1, intent_s=0.2, patience_s=0.3, stay_down_s=0.02)


@pytest.fixture
def order() -> Order:
    """Return an order that holds what is only later known to be a secret."""
    return make_order(
        mode=Mode.LIVE,
        scope=[f"vault {PASSWORD}"],
        config_sha256="4f" * 32,
        head=Head(0, GENESIS.hex()),
        now=NOW,
        random_bytes=os.urandom,
        reason=f"{PASSWORD} of 9 %",
    )


def ordered(order: Order, **more: object) -> NewEvent:
    data = {"order": order.to_bytes().decode(), **more}
    return NewEvent(f"{order.id}.ordered", "halt.ordered", order.issued_at, data)


@pytest.fixture(params=["journal", "fallback"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal | FallbackLog]:
    if request.param == "journal":
        yield Journal(tmp_path / "journal.db")
    else:
        yield FallbackLog(tmp_path / "fallback.jsonl")


def signed_bytes(event: Event | None) -> bytes:
    assert event is not None
    return str(event.body.data["order"]).encode()


# What was signed.


def test_a_secret_that_occurs_in_a_signed_order_does_not_change_its_bytes(
    order: Order, log: Journal | FallbackLog
) -> None:
    Secret(PASSWORD)
    stored = log.append(ordered(order))
    assert signed_bytes(stored) == order.to_bytes()
    assert signed_bytes(log.find(f"{order.id}.ordered")) == order.to_bytes()


def test_everything_beside_the_signed_order_is_masked(
    order: Order, log: Journal | FallbackLog
) -> None:
    Secret(PASSWORD)
    more = {"said": f"the {PASSWORD} was", "deep": {"order": PASSWORD, PASSWORD: [PASSWORD]}}
    data = log.append(ordered(order, **more)).body.data
    assert data["said"] == f"the {MASK} was"
    assert data["deep"] == {"order": MASK, MASK: [MASK]}, "only the event's own order was signed"


def test_an_order_that_is_no_signed_text_is_masked_like_all_else(
    log: Journal | FallbackLog,
) -> None:
    Secret(PASSWORD)
    report = NewEvent("h1.completed", "halt.completed", "t", {"order": {"reason": PASSWORD}})
    assert log.append(report).body.data == {"order": {"reason": MASK}}


def test_a_signed_order_that_waited_elsewhere_reaches_the_journal_unchanged(
    order: Order, tmp_path: Path
) -> None:
    fallback, journal = FallbackLog(tmp_path / "waiting.jsonl"), Journal(tmp_path / "journal.db")
    fallback.append(ordered(order))
    Secret(PASSWORD)
    assert fallback.drain(NOW, journal.append) == 1
    assert signed_bytes(journal.find(f"{order.id}.ordered")) == order.to_bytes()


# What was stored.


class Meddler:
    """Stores every event in other bytes than those that it was handed."""

    def __init__(self, style: str) -> None:
        self._style = style
        self._kept: dict[str, Event] = {}

    def find(self, event_id: str) -> Event | None:
        return self._kept.get(event_id)

    def append(self, event: NewEvent) -> Event:
        raw = self._meddled(event)
        kept = Event(1, GENESIS, raw, chained(GENESIS, raw))
        return self._kept.setdefault(event.id, kept)

    def _meddled(self, event: NewEvent) -> bytes:
        raw = event.to_bytes()
        match self._style:
            case "spaced":  # says the same, and its hash is another one
                return json.dumps(json.loads(raw)).encode()
            case "turned":
                return json.dumps(
                    dict(reversed(json.loads(raw).items())), separators=(",", ":")
                ).encode()
            case "longer":
                return raw + b"\n"
            case "altered":
                return replace(event, time="2026-11-21T03:14:08Z").to_bytes()
            case _:
                return raw


def conclude(log: EventLog) -> StepResult:
    event = NewEvent("h1.completed", "halt.completed", "2026-11-21T03:14:07Z", {"halted": True})
    job = make_assignment((), conclude=AppendEvent(log, event, "completed"))
    (result,) = Runner().run(lambda now: carry_out(job, QUICK, now)).results
    return result


@pytest.mark.parametrize("style", ["spaced", "turned", "longer", "altered"])
def test_an_event_that_is_stored_in_other_bytes_is_not_recorded(style: str) -> None:
    result = conclude(Meddler(style))
    assert not result.outcome.ended
    assert not result.outcome.good


def test_an_event_that_is_stored_in_its_own_bytes_is_recorded(log: Journal | FallbackLog) -> None:
    assert conclude(Meddler("faithful")).outcome is Outcome.VERIFIED
    assert conclude(log).outcome is Outcome.VERIFIED
