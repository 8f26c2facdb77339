"""What a journal remembers: targets seen, drills held, halts open; never a reason to crash."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from killswitch.converge import Limits
from killswitch.document import report_document
from killswitch.journal.history import History, PastDrill, PastHalt
from killswitch.journal.store import GENESIS, Event, NewEvent, chained
from tests.engine.simulator import Faults, Simulator, Thing, WorldStep, make_assignment

AT = "2026-11-21T03:14:07Z"
NOW = datetime(2026, 11, 21, 4, tzinfo=UTC)
SHORT = Limits(deadline_s=30, wrap_up_s=1, patience_s=3, stay_down_s=1)


def stored(events: Sequence[NewEvent | bytes]) -> list[Event]:
    made: list[Event] = []
    prev = GENESIS
    for seq, event in enumerate(events, start=1):
        raw = event if isinstance(event, bytes) else event.to_bytes()
        made.append(Event(seq, prev, raw, chained(prev, raw)))
        prev = made[-1].hash
    return made


def history(*events: NewEvent | bytes) -> History:
    """Return the history of these events; a report stands after its order."""
    given = [event for event in events if isinstance(event, NewEvent)]
    ids = {event.id for event in given}
    before = [
        NewEvent(name, event.type.replace("completed", "ordered"), AT, {"order": "{}"})
        for event in given
        if event.type.endswith(".completed")
        and (name := event.id.replace(".completed", ".ordered")) not in ids
    ]
    return History(stored((*before, *events)))


def test_a_report_of_an_order_that_nobody_signed_is_no_memory() -> None:
    forged = targets("h1", "halt.completed", {"target": "a", "outcome": "verified"})
    past = History(stored((forged,)))
    assert past.seen() == past.ended(NOW) == {}
    assert past.reports() == []


def ordered(id_: str, at: str = AT) -> NewEvent:
    return NewEvent(f"{id_}.ordered", "halt.ordered", at, {"order": "{}"})


def completed(id_: str, *, halted: bool) -> NewEvent:
    data: dict[str, object] = {"order": {"id": id_}, "halted": halted}
    return NewEvent(f"{id_}.completed", "halt.completed", AT, data)


def drill(id_: str, at: str, *, passed: bool) -> NewEvent:
    data: dict[str, object] = {"order": {"id": id_}, "passed": passed}
    return NewEvent(f"{id_}.completed", "drill.completed", at, data)


def targets(id_: str, kind: str, *found: dict[str, object], step: str = "vault") -> NewEvent:
    result = {"step": step, "system": "prod", "targets": list(found)}
    data: dict[str, object] = {"order": {"id": id_}, "results": [result]}
    return NewEvent(f"{id_}.completed", kind, AT, data)


def test_an_empty_journal_remembers_nothing() -> None:
    past = history()
    assert past.seen() == past.ended(NOW) == {}
    assert past.last_drill() is None
    assert past.halts() == []
    assert past.reports() == []


# Targets.


@pytest.mark.parametrize(
    ("found", "seen", "ended"),
    [
        ({"outcome": "verified"}, True, True),
        ({"outcome": "already"}, False, True),
        ({"outcome": "rehearsed", "live": True, "attempts": [{"verb": "x"}]}, True, False),
        ({"outcome": "sent", "attempts": [{"verb": "x"}]}, True, False),
        ({"outcome": "unknown", "attempts": [{"verb": "x", "error": "cut"}]}, True, False),
        ({"outcome": "failed", "live": True}, True, False),
        ({"outcome": "skipped", "live": True}, True, False),
        ({"outcome": "unknown", "live": False, "attempts": []}, False, False),
        ({"outcome": "failed", "live": False}, False, False),
    ],
    ids=str,
)
def test_what_a_run_saw_live_or_ended_is_remembered(
    found: dict[str, object],
    seen: bool,  # noqa: FBT001 (a table)
    ended: bool,  # noqa: FBT001 (a table)
) -> None:
    past = history(targets("h1", "halt.completed", {"target": "path a"} | found))
    assert ("path a" in past.seen()["vault", "prod"]) is seen
    assert ("path a" in past.ended(NOW)["vault", "prod"]) is ended


def test_targets_of_all_runs_are_put_together_per_system() -> None:
    past = history(
        targets("d1", "drill.completed", {"target": "a", "outcome": "rehearsed", "live": True}),
        targets("h1", "halt.completed", {"target": "b", "outcome": "verified"}),
        targets("h2", "halt.completed", {"target": "c", "outcome": "verified"}, step="bybit"),
    )
    assert past.seen() == {("vault", "prod"): {"a", "b"}, ("bybit", "prod"): {"c"}}
    assert past.ended(NOW) == {("vault", "prod"): {"b"}, ("bybit", "prod"): {"c"}}


@pytest.mark.parametrize(
    ("error", "tried"),
    [
        ("", True),
        ("no answer within 12.0 s", True),
        ("vault did not answer in time", True),
        ("no connection to vault, or it was cut", True),
        ("no connection to vault", False),
        ("no connection to vault in time", False),
        ("may not disable trading/: vault answered 403: permission denied", False),
        ("vault answered 503: Vault is sealed", False),
    ],
)
def test_what_was_refused_or_never_sent_was_not_told_to_end(
    error: str,
    tried: bool,  # noqa: FBT001 (a table)
) -> None:
    told: dict[str, object] = {"target": "a", "outcome": "failed"}
    past = history(targets("h1", "halt.completed", told | {"attempts": [{"error": error}]}))
    assert past.tried() == {("vault", "prod"): {"a"} if tried else frozenset()}
    assert past.seen() == {("vault", "prod"): {"a"}}


def test_what_a_halt_told_to_end_is_remembered_until_it_is_resolved() -> None:
    lost: dict[str, object] = {"verb": "erase", "error": "no answer within 12.0 s"}
    told: dict[str, object] = {"target": "a", "outcome": "unknown", "attempts": [lost]}
    left: dict[str, object] = {"target": "b", "outcome": "skipped", "live": True}
    past = history(
        targets("d1", "drill.completed", {**told, "target": "c"}),
        targets("h1", "halt.completed", told, left),
    )
    assert past.tried() == {("vault", "prod"): {"a"}}
    resolved = NewEvent("r1.resolved", "halt.resolved", AT, {"halt": "h1"})
    assert history(targets("h1", "halt.completed", told), resolved).tried() == {}


def test_whatever_was_reported_is_mentioned_until_a_resolution() -> None:
    unseen: dict[str, object] = {"target": "b", "outcome": "unknown"}
    told = (
        targets("d1", "drill.completed", {"target": "a", "outcome": "rehearsed", "live": True}),
        targets("h1", "halt.completed", unseen),
    )
    assert history(*told).mentioned() == {("vault", "prod"): {"a", "b"}}
    resolved = NewEvent("r1.resolved", "halt.resolved", AT, {"halt": "h1"})
    assert history(*told, resolved).mentioned() == {}


def test_a_resolution_begins_anew() -> None:
    past = history(
        targets("h1", "halt.completed", {"target": "a", "outcome": "verified"}),
        NewEvent("r1.resolved", "halt.resolved", AT, {"halt": "h1"}),
        targets("h2", "halt.completed", {"target": "b", "outcome": "verified"}),
    )
    assert past.seen() == past.ended(NOW) == {("vault", "prod"): {"b"}}


def test_what_was_ended_long_ago_says_nothing_about_today() -> None:
    past = history(targets("h1", "halt.completed", {"target": "a", "outcome": "verified"}))
    assert past.ended(NOW + timedelta(hours=25)) == {}
    assert past.seen() == {("vault", "prod"): {"a"}}


@pytest.mark.parametrize("lost", ["lost_after", "hang"])
def test_a_second_run_ends_what_the_first_could_not_read_back(lost: str) -> None:
    """An absence that proves nothing by itself is evidence once an earlier run saw it live."""
    things = [Thing("key 1"), Thing("key 2")]
    first = Simulator(seed=1)
    step = WorldStep("s", things, first.now, doubtful=True)
    first.faults["world s"] = Faults(slowest_s=0.01)
    first.at(first.time + 0.001, lambda: first.faults.update({"world s": Faults(**{lost: 1.0})}))
    report = first.run(make_assignment((step,)), SHORT)
    for thing in things:
        thing.live = False  # the requests had arrived
    assert not report.halted
    assert all(target.attempts for target in report.results[0].targets if "key" in target.target)

    document = report_document(report, sandbox=False)
    past = history(NewEvent(f"{report.order.id}.completed", "halt.completed", AT, document))
    second = Simulator(seed=2)
    step = WorldStep("s", things, second.now, doubtful=True)
    assert not Simulator(seed=3).run(make_assignment((step,)), SHORT).halted
    assert second.run(make_assignment((step,), known=past.seen()), SHORT).halted


# Drills.


def test_the_newest_drill_is_told_whether_it_passed_or_not() -> None:
    first = drill("d1", "2026-01-05T08:00:00Z", passed=False)
    second = drill("d2", "2026-04-05T10:00:00+02:00", passed=True)
    at = datetime(2026, 4, 5, 8, tzinfo=UTC)
    assert history(first, second).last_drill() == PastDrill("d2", at, passed=True)
    newest = history(second, first).last_drill()
    assert newest is not None
    assert (newest.id, newest.passed) == ("d1", False)


@pytest.mark.parametrize("at", ["", "yesterday", "0001-01-01T00:00:00+14:00"])
def test_a_drill_at_no_readable_time_is_no_drill(at: str) -> None:
    assert history(drill("d1", at, passed=True)).last_drill() is None


# Halts.


def test_every_halt_is_listed_with_how_it_ended() -> None:
    past = history(
        ordered("h1", "2026-01-01T00:00:00Z"),
        completed("h1", halted=True),
        ordered("h2"),
        completed("h2", halted=False),
        NewEvent("h1.resolved", "halt.resolved", AT, {"halt": "h1"}),
        ordered("h3"),
    )
    assert past.halts() == [
        PastHalt("h1", "2026-01-01T00:00:00Z", halted=True, resolved=True),
        PastHalt("h2", AT, halted=False, resolved=False),
        PastHalt("h3", AT, halted=None, resolved=False),
    ]


def test_reports_are_the_completed_runs_in_their_order() -> None:
    past = history(
        ordered("h1"),
        drill("d1", AT, passed=True),
        completed("h1", halted=True),
        NewEvent("k", "key.enrolled", AT, {}),
    )
    assert [body.id for body in past.reports()] == ["d1.completed", "h1.completed"]


# Whatever stands in the journal.


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        os.urandom(64),
        NewEvent("x", "halt.completed", AT, {}),
        NewEvent("x", "halt.completed", AT, {"order": {"id": 7}}),
        NewEvent("x", "halt.completed", AT, {"order": {"id": "x"}, "results": [{"step": 1}]}),
        NewEvent("x", "drill.completed", AT, {"order": None}),
        NewEvent("x", "halt.resolved", AT, {}),
        b'{"data":{},"id":"x","time":"?","type":"halt.completed","v":1}',
    ],
    ids=range(11),
)
def test_what_cannot_be_read_is_passed_over(junk: NewEvent | bytes) -> None:
    past = history(junk, ordered("h1"), junk, completed("h1", halted=True))
    assert past.halts() == [PastHalt("h1", AT, halted=True, resolved=False)]
    assert past.seen() == past.ended(NOW) == {}
    assert past.last_drill() is None
    assert len(past.reports()) == 1
