"""The touches in a journal: each must be a real one, for that order, on that very journal."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
from fido2.utils import websafe_encode

from killswitch.authority.changes import (
    enrolment_scope,
    recovery_scope,
    reseal_scope,
    ring_trouble,
)
from killswitch.authority.recovery import new_recovery
from killswitch.authority.ring import SANDBOX_RP_ID, EnrolledKey, KeyRing
from killswitch.authority.sealing import Identity
from killswitch.cli.memory import recall
from killswitch.journal.check import check
from killswitch.journal.history import History
from killswitch.journal.store import GENESIS, Event, Head, chained
from killswitch.journal.verify import Finding
from killswitch.model import Mode, Order
from tests.journal.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    desk = Desk(tmp_path / "journal.db")
    desk.enrol("blue")
    return desk


def assert_found(desk: Desk, words: str) -> None:
    verdict, _ = desk.check()
    assert verdict.finding is Finding.TAMPERED
    assert words in verdict.problem
    assert verdict.bad_seq == verdict.size, "all before it is good"


def test_an_order_with_its_touch_is_good_and_counted(desk: Desk) -> None:
    for mode, type_ in ((Mode.DRILL, "drill.ordered"), (Mode.LIVE, "halt.ordered")):
        order = desk.order(mode)
        desk.record(order, desk.touch(order), type_)
    verdict, touches = desk.check()
    assert verdict.finding is Finding.INTACT
    assert touches == 2


def test_events_without_an_order_need_no_touch(desk: Desk) -> None:
    desk.write("n1", "note.written", {"proof": None, "order": "{}"})
    verdict, touches = desk.check()
    assert (verdict.finding, touches) == (Finding.INTACT, 0)


def test_a_report_repeats_order_and_proof_and_is_no_second_touch(desk: Desk) -> None:
    order = desk.order()
    proof = desk.touch(order)
    desk.record(order, proof)
    report: dict[str, object] = {"order": msgspec.to_builtins(order), "proof": proof}
    desk.write(f"{order.id}.completed", "halt.completed", report)
    verdict, touches = desk.check()
    assert (verdict.finding, touches) == (Finding.INTACT, 1)


@pytest.mark.parametrize(
    "alter",
    [
        lambda order: replace(order, reason="nothing of note"),
        lambda order: replace(order, scope=()),
        lambda order: replace(order, mode=Mode.DRILL),
        lambda order: replace(order, issued_at="2026-11-21T03:14:08Z"),
        lambda order: replace(order, journal_size=0, journal_head="0" * 64),
    ],
    ids=["reason", "scope", "mode", "time", "journal"],
)
def test_an_order_altered_after_the_touch_is_found(
    desk: Desk, alter: Callable[[Order], Order]
) -> None:
    order = desk.order()
    desk.record(alter(order), desk.touch(order))
    assert_found(desk, "the signature does not fit this order: wrong challenge")


def test_a_key_that_was_never_enrolled_is_found(desk: Desk) -> None:
    desk.make_key("stranger")
    order = desk.order()
    desk.record(order, desk.touch(order, "stranger"))
    assert_found(desk, "by a key that was not enrolled then")


def test_a_key_that_is_enrolled_only_later_is_found(desk: Desk) -> None:
    desk.make_key("late")
    order = desk.order()
    desk.record(order, desk.touch(order, "late"))
    enrolment, data = desk.enrolments["late"]
    desk.write(f"{enrolment.id}.enrolled", "key.enrolled", data)
    verdict, _ = desk.check()
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, 2)


def test_a_removed_key_is_good_for_what_it_touched_before_and_for_nothing_after(
    desk: Desk,
) -> None:
    before = desk.order()
    desk.record(before, desk.touch(before))
    desk.remove("blue")
    verdict, touches = desk.check()
    assert (verdict.finding, touches) == (Finding.INTACT, 2)
    after = desk.order()
    desk.record(after, desk.touch(after))
    assert_found(desk, "by a key that was not enrolled then")


def test_a_drills_touch_under_a_halt_is_found(desk: Desk) -> None:
    drill = desk.order(Mode.DRILL)
    proof = desk.touch(drill)
    desk.record(drill, proof, "halt.ordered")
    assert_found(desk, "its touch was for a drill order")


def test_a_drills_proof_under_a_live_order_is_found(desk: Desk) -> None:
    drill = desk.order(Mode.DRILL)
    desk.record(replace(drill, mode=Mode.LIVE), desk.touch(drill))
    assert_found(desk, "wrong challenge")


@pytest.mark.parametrize("other", ["20261121-0500-zzzz.ordered", "{}.again"])
def test_a_touch_used_twice_is_found(desk: Desk, other: str) -> None:
    order = desk.order()
    proof = desk.touch(order)
    desk.record(order, proof)
    again: dict[str, object] = {"order": order.to_bytes().decode(), "proof": proof}
    desk.write(other.format(order.id), "halt.ordered", again)
    assert_found(desk, f"its touch was for order {order.id}")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"order": "{}", "proof": None},
        {"order": None, "proof": None},
        {"order": {"id": "x"}, "proof": {}},
    ],
    ids=["nothing", "no proof", "null", "no bytes"],
)
def test_an_order_without_a_touch_is_found(desk: Desk, data: dict[str, object]) -> None:
    desk.write("x.ordered", "halt.ordered", data)
    assert_found(desk, "its touch cannot be read")


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": "AAAA"},
        {"signature": "?"},
        {"signature": "é"},
        {"signature": None},
        {"authenticator_data": ""},
        {"client_data_json": "AAAA"},
        {"counter": "many"},
        {"counter": 4_000},
        {"user_verified": True},
        {"operator": "ben"},
    ],
    ids=str,
)
def test_an_altered_proof_is_found(desk: Desk, changes: dict[str, object]) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order) | changes)
    verdict, touches = desk.check()
    assert (verdict.finding, verdict.bad_seq, touches) == (Finding.TAMPERED, 2, 0)


@pytest.mark.parametrize("text", ["", "[]", "not json", "{}", "[" * 50_000, '{"id":"x"}'])
def test_an_order_that_cannot_be_read_is_found(desk: Desk, text: str) -> None:
    order = desk.order()
    desk.write("x.ordered", "halt.ordered", {"order": text, "proof": desk.touch(order)})
    assert_found(desk, "its touch cannot be read")


@pytest.mark.parametrize("changes", [{"key": None}, {"key": {"label": "x"}}], ids=str)
def test_a_change_of_keys_without_a_key_is_found(desk: Desk, changes: dict[str, object]) -> None:
    desk.enrol("black", by="blue", changes=changes)
    assert_found(desk, "an enrolment without a key")


@pytest.mark.parametrize("changes", [{"key": None}, {"key": {"label": "x"}}], ids=str)
def test_a_removal_without_a_key_is_found(desk: Desk, changes: dict[str, object]) -> None:
    desk.remove("blue", changes=changes)
    assert_found(desk, "a removal without a key")


@pytest.mark.parametrize("type_", ["key.enrolled", "key.removed", "secrets.resealed"])
def test_a_change_of_who_may_halt_without_a_touch_is_found(desk: Desk, type_: str) -> None:
    key = msgspec.to_builtins(desk.make_key("rogue"))
    desk.write("x", type_, {"key": key})
    assert_found(desk, "its touch cannot be read")


# Who may halt is itself under the keys' control.


def test_a_second_key_is_admitted_by_the_first_and_may_then_admit_a_third(desk: Desk) -> None:
    desk.enrol("black", by="blue")
    desk.enrol("grey", by="black")
    checked = check(desk.journal.events())
    assert checked.verdict.finding is Finding.INTACT
    assert [key.label for key in checked.keys] == ["blue", "black", "grey"]


def test_a_second_key_that_only_vouches_for_itself_is_found(desk: Desk) -> None:
    desk.enrol("rogue")
    assert_found(desk, "a key that no key enrolled before it has admitted")


def test_a_key_admitted_by_a_stranger_is_found(desk: Desk) -> None:
    desk.make_key("stranger")
    desk.enrol("rogue", by="stranger")
    assert_found(desk, "by a key that was not enrolled then")


def test_a_removed_key_admits_nobody(desk: Desk) -> None:
    desk.enrol("black", by="blue")
    desk.remove("blue", by="black")
    desk.enrol("rogue", by="blue")
    assert_found(desk, "by a key that was not enrolled then")


def test_a_key_that_only_stands_in_the_ring_admits_nobody_and_orders_nothing(desk: Desk) -> None:
    rogue = desk.make_key("rogue")
    order = desk.order()
    desk.record(order, desk.touch(order, "rogue"))
    verdict, *_ = check(desk.journal.events(), [desk.keys["blue"], rogue])
    assert "by a key that was not enrolled then" in verdict.problem


def test_an_admission_for_another_key_is_found(desk: Desk) -> None:
    desk.make_key("black")
    order, _ = desk.enrolments["black"]
    admission = desk.touch(order, "blue")
    desk.enrol("rogue", changes={"admitted_by": admission})
    assert_found(desk, "wrong challenge")


def test_a_record_that_was_altered_after_its_admission_is_found(desk: Desk) -> None:
    desk.make_key("black")
    altered = replace(desk.keys["black"], operator="mallory")
    desk.enrol("black", by="blue", changes={"key": msgspec.to_builtins(altered)})
    assert_found(desk, "its touch was for another key")


def test_a_recipient_slipped_into_a_key_is_found(desk: Desk) -> None:
    key = desk.make_key("black")
    stranger = Identity.derived(bytes(32), info=b"test", uv=False).recipient
    bugged = replace(key, recipients=(*key.recipients, stranger))
    assert "is not as the journal says" in problem(bugged, [key])
    assert "the journal has admitted none of the keys" in problem(bugged, [])
    assert "the journal admitted no such key" in problem(bugged, [desk.keys["blue"]])
    assert problem(replace(key, counter=99), [key]) == ""


def problem(in_ring: EnrolledKey, journal: Sequence[EnrolledKey]) -> str:
    trouble = ring_trouble(KeyRing((in_ring,)), journal, None)
    return trouble.problem if trouble else ""


def test_a_key_that_may_only_release_orders_no_halt(desk: Desk) -> None:
    desk.enrol("auditor", by="blue", role="release")
    order = desk.order()
    live = replace(order, mode=Mode.LIVE)
    forged = desk.raw_touch(live, "auditor")
    desk.record(live, forged)
    assert_found(desk, 'by key "auditor", whose role does not allow it')


def test_a_removal_of_a_key_that_this_journal_never_knew_is_no_fault(desk: Desk) -> None:
    desk.make_key("elsewhere")
    desk.remove("elsewhere", by="blue")
    assert desk.check()[0].finding is Finding.INTACT


# A second laptop, or a journal begun anew: the keys were enrolled elsewhere.


def laptop(folder: Path) -> Desk:
    desk = Desk(folder / "second-laptop.db")
    desk.make_key("blue")
    desk.make_key("black")
    return desk


def test_keys_of_the_ring_are_good_for_a_halt_while_the_journal_tells_of_none(
    tmp_path: Path,
) -> None:
    desk = laptop(tmp_path)
    order = desk.order()
    desk.record(order, desk.touch(order))
    verdict, touches, *_ = check(desk.journal.events(), [desk.keys["blue"]])
    assert (verdict.finding, touches) == (Finding.INTACT, 1)
    assert check(desk.journal.events()).verdict.finding is Finding.TAMPERED


def test_adopted_keys_are_the_journals_own(tmp_path: Path) -> None:
    desk = laptop(tmp_path)
    desk.adopt(["blue", "black"], by="black")
    order = desk.order()
    desk.record(order, desk.touch(order, "blue"))
    desk.enrol("grey", by="blue")
    rogue = desk.make_key("rogue")
    checked = check(desk.journal.events(), [rogue])
    assert checked.verdict.finding is Finding.INTACT
    assert [key.label for key in checked.keys] == ["blue", "black", "grey"]


def test_keys_are_adopted_by_one_of_them_only_and_only_once(tmp_path: Path) -> None:
    desk = laptop(tmp_path)
    desk.make_key("stranger")
    desk.adopt(["blue", "black"], by="stranger")
    assert "by a key that was not enrolled then" in check(desk.journal.events()).verdict.problem
    again = Desk(tmp_path / "third.db")
    again.enrol("blue")
    again.make_key("rogue")
    again.adopt(["rogue"], by="rogue")
    verdict, *_ = check(again.journal.events())
    assert "keys adopted by a journal that has its own" in verdict.problem


def test_other_keys_than_the_touch_was_for_are_not_adopted(tmp_path: Path) -> None:
    desk = laptop(tmp_path)
    rogue = msgspec.to_builtins(desk.make_key("rogue"))
    blue = msgspec.to_builtins(desk.keys["blue"])
    desk.adopt(["blue", "black"], by="blue", changes={"keys": [blue, rogue]})
    assert "its touch was for other keys" in check(desk.journal.events()).verdict.problem


def test_a_key_gives_away_no_more_than_it_may_itself(desk: Desk) -> None:
    desk.enrol("trader", by="blue", role="halt")
    desk.make_key("auditor", role="release")
    order, enrolment = desk.enrolments["auditor"]
    data = enrolment | {"admitted_by": desk.touch(order, "trader")}
    desk.write(f"{order.id}.enrolled", "key.enrolled", data)
    assert_found(desk, 'by key "trader", whose role does not allow it')


def test_a_key_is_not_enrolled_twice_with_another_role(desk: Desk) -> None:
    desk.enrol("trader", by="blue", role="halt")
    promoted = replace(desk.keys["trader"], role="both")
    order = replace(desk.order(Mode.KEYS), scope=enrolment_scope(promoted))
    proof = desk.touch(order, "trader")
    data: dict[str, object] = {
        "key": msgspec.to_builtins(promoted),
        "order": order.to_bytes().decode(),
        "proof": proof,
        "admitted_by": proof,
    }
    desk.write(f"{order.id}.enrolled", "key.enrolled", data)
    assert_found(desk, "a key that was enrolled already")


def test_secrets_sealed_anew_to_others_than_the_touch_was_for_are_found(desk: Desk) -> None:
    data: dict[str, object] = {"names": ["a", "b"], "recipients": ["00" * 8]}
    order = replace(desk.order(Mode.KEYS), scope=reseal_scope(data))
    proven = data | {"order": order.to_bytes().decode(), "proof": desk.touch(order)}
    desk.write(f"{order.id}.resealed", "secrets.resealed", proven | {"recipients": ["11" * 8]})
    assert_found(desk, "its touch was for other secrets or recipients")


def test_the_journal_knows_the_highest_counter_of_each_key(desk: Desk) -> None:
    order = desk.order()
    proof = desk.touch(order)
    desk.record(order, proof)
    (key,) = check(desk.journal.events()).keys
    assert key.counter == proof["counter"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({}, ""),
        ({"halt": "h2"}, "its touch was for another halt or note"),
        ({"note": "all is well"}, "its touch was for another halt or note"),
    ],
    ids=str,
)
def test_a_resolution_is_what_was_touched(
    desk: Desk, data: dict[str, object], problem: str
) -> None:
    order = replace(desk.order(Mode.RELEASE), incident="h1", reason="keys were made anew")
    desk.write(
        f"{order.id}.resolved",
        "halt.resolved",
        {
            "order": order.to_bytes().decode(),
            "proof": desk.touch(order),
            "halt": "h1",
            "note": "keys were made anew",
        }
        | data,
    )
    assert desk.check()[0].problem == problem


def test_a_forged_public_key_is_a_bad_touch_and_not_a_crash(desk: Desk) -> None:
    key = desk.keys["blue"]
    forged = replace(key, credential=key.credential[:-5] + b"\xff" * 5)
    order = desk.order()
    desk.record(order, desk.touch(order))
    events = [it for it in desk.journal.events() if it.body.type != "key.enrolled"]
    assert check(events, [forged]).verdict.finding is Finding.TAMPERED


# The recovery phrase: it admits a key, because a key was touched for it.


def test_a_phrase_that_a_key_was_touched_for_admits_a_key_which_then_orders(desk: Desk) -> None:
    recovery = desk.set_recovery()
    desk.admit("black", recovery)
    order = desk.order()
    desk.record(order, desk.touch(order, "black"))
    checked = check(desk.journal.events())
    assert checked.verdict.finding is Finding.INTACT
    assert [key.label for key in checked.keys] == ["blue", "black"]
    assert checked.touches == 4
    assert checked.recovery == recovery.record
    ring = KeyRing(checked.keys, recovery=recovery.record.recipient)
    assert ring_trouble(ring, checked.keys, checked.recovery) is None
    for wrong in (None, new_recovery()[1].record.recipient):
        trouble = ring_trouble(replace(ring, recovery=wrong), checked.keys, checked.recovery)
        assert trouble is not None
        assert "the recovery phrase" in trouble.problem


def test_a_phrase_outlives_the_key_that_was_touched_for_it(desk: Desk) -> None:
    recovery = desk.set_recovery()
    desk.enrol("black", by="blue")
    desk.remove("blue", by="black")
    desk.admit("grey", recovery)
    assert desk.check()[0].finding is Finding.INTACT


def test_a_phrase_admits_nobody_before_one_was_set(desk: Desk) -> None:
    desk.admit("rogue", new_recovery()[1])
    assert_found(desk, "a key admitted by a recovery phrase, and none was set")


def test_another_phrase_admits_nobody(desk: Desk) -> None:
    desk.set_recovery()
    desk.admit("rogue", new_recovery()[1])
    assert_found(desk, "the recovery phrase of that time did not admit")


def test_a_phrase_that_was_replaced_is_good_for_what_it_admitted_before_and_for_no_more(
    desk: Desk,
) -> None:
    old = desk.set_recovery()
    desk.admit("black", old)
    new = desk.set_recovery(by="black")
    checked = check(desk.journal.events())
    assert (checked.verdict.finding, checked.recovery) == (Finding.INTACT, new.record)
    desk.admit("rogue", old)
    assert_found(desk, "the recovery phrase of that time did not admit")


@pytest.mark.parametrize("signature", ["", "AAAA", "A" * 86, "?", "é", 7, {}])
def test_an_admission_that_the_phrase_did_not_sign_is_found(desk: Desk, signature: object) -> None:
    desk.set_recovery()
    desk.enrol("rogue", changes={"admitted_by_recovery": signature})
    verdict, _ = desk.check()
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, 3)


def test_an_admission_by_phrase_of_another_key_is_found(desk: Desk) -> None:
    recovery = desk.set_recovery()
    desk.make_key("black")
    order, _ = desk.enrolments["black"]
    signature = websafe_encode(recovery.admit(order.to_bytes()))
    desk.enrol("rogue", changes={"admitted_by_recovery": signature})
    assert_found(desk, "did not admit")


def test_the_phrase_does_not_stand_for_the_new_keys_own_touch(desk: Desk) -> None:
    recovery = desk.set_recovery()
    desk.make_key("black")
    order, data = desk.enrolments["black"]
    data["admitted_by_recovery"] = websafe_encode(recovery.admit(order.to_bytes()))
    desk.write(f"{order.id}.enrolled", "key.enrolled", data | {"proof": None})
    assert_found(desk, "its touch cannot be read")


def test_where_key_and_phrase_both_admit_both_must_be_good(desk: Desk) -> None:
    recovery = desk.set_recovery()
    desk.admit("black", recovery, by="blue")
    assert desk.check()[0].finding is Finding.INTACT
    desk.make_key("stranger")
    desk.admit("grey", recovery, by="stranger")
    assert_found(desk, "by a key that was not enrolled then")


@pytest.mark.parametrize("type_", ["halt.ordered", "drill.ordered", "secrets.resealed"])
def test_the_phrase_stands_for_no_other_touch(desk: Desk, type_: str) -> None:
    recovery = desk.set_recovery()
    order = desk.order(Mode.KEYS if type_ == "secrets.resealed" else Mode.LIVE)
    data: dict[str, object] = {
        "order": order.to_bytes().decode(),
        "admitted_by_recovery": websafe_encode(recovery.admit(order.to_bytes())),
    }
    desk.write(f"{order.id}.{type_.partition('.')[2]}", type_, data)
    assert_found(desk, "its touch cannot be read")


def test_a_phrase_that_no_touch_set_is_found(desk: Desk) -> None:
    desk.set_recovery(changes={"proof": None})
    assert_found(desk, "its touch cannot be read")


def test_a_phrase_set_by_a_stranger_is_found_and_admits_nobody(desk: Desk) -> None:
    desk.make_key("stranger")
    desk.set_recovery(by="stranger")
    assert_found(desk, "by a key that was not enrolled then")
    assert check(desk.journal.events()).recovery is None


@pytest.mark.parametrize("part", ["recipient", "verifying_key"])
def test_a_phrase_that_was_swapped_after_the_touch_is_found(desk: Desk, part: str) -> None:
    mine = msgspec.to_builtins(new_recovery()[1].record)
    honest = msgspec.to_builtins(new_recovery()[1].record)
    desk.set_recovery(changes={"recovery": honest | {part: mine[part]}})
    assert_found(desk, "its touch was for another recovery phrase")


@pytest.mark.parametrize(
    "recovery", [None, {}, {"recipient": {"public_key": "zz", "uv": False}, "verifying_key": ""}]
)
def test_a_phrase_without_its_public_keys_is_found(desk: Desk, recovery: object) -> None:
    desk.set_recovery(changes={"recovery": recovery})
    assert_found(desk, "a recovery phrase without its public keys")


def test_a_good_touch_under_the_wrong_event_sets_no_phrase(desk: Desk) -> None:
    recovery = new_recovery()[1]
    order = replace(desk.order(Mode.KEYS), scope=recovery_scope(recovery.record))
    data: dict[str, object] = {
        "recovery": msgspec.to_builtins(recovery.record),
        "order": order.to_bytes().decode(),
        "proof": desk.touch(order),
    }
    desk.write("another.set", "recovery.set", data)
    assert_found(desk, f"its touch was for order {order.id}")
    assert check(desk.journal.events()).recovery is None


@pytest.mark.parametrize("by_phrase", [True, False])
def test_an_admission_is_not_good_a_second_time_after_the_key_was_removed(
    desk: Desk, *, by_phrase: bool
) -> None:
    if by_phrase:
        desk.admit("black", desk.set_recovery())
    else:
        desk.enrol("black", by="blue")
    desk.remove("black", by="blue")
    events = desk.journal.events()
    replayed = events[-2].raw
    forged = Event(len(events) + 1, events[-1].hash, replayed, chained(events[-1].hash, replayed))
    verdict, *_ = check([*events, forged])
    assert (verdict.finding, verdict.bad_seq) == (Finding.TAMPERED, len(events) + 1)
    assert "an event of this id stands before it" in verdict.problem


# A touch notarises all that came before it.


def test_a_touch_made_while_others_wrote_is_good(desk: Desk) -> None:
    order = desk.order()
    proof = desk.touch(order)
    desk.write("n1", "note.written", {})
    desk.record(order, proof)
    assert desk.check()[0].finding is Finding.INTACT


def test_a_touch_made_when_the_journal_could_not_be_read_is_good(desk: Desk) -> None:
    order = desk.order(head=Head(0, GENESIS.hex()))
    desk.record(order, desk.touch(order))
    assert desk.check()[0].finding is Finding.INTACT


def test_a_journal_written_anew_from_the_start_no_longer_fits_its_touches(desk: Desk) -> None:
    desk.write("n1", "note.written", {"loss": 5_000_000})
    order = desk.order()
    desk.record(order, desk.touch(order))
    assert desk.check()[0].finding is Finding.INTACT

    forged: list[Event] = []
    prev = GENESIS
    for event in desk.journal.events():
        raw = event.raw.replace(b"5000000", b"50")
        forged.append(Event(event.seq, prev, raw, chained(prev, raw)))
        prev = forged[-1].hash
    verdict, touches, *_ = check(forged)
    assert (verdict.finding, verdict.bad_seq, touches) == (Finding.TAMPERED, 3, 1)
    assert "its touch was made on another journal, with 2 events" in verdict.problem


@pytest.mark.parametrize("size", [-1, 2, 99])
def test_a_touch_that_speaks_of_events_that_are_not_there_is_found(desk: Desk, size: int) -> None:
    head = desk.journal.head()
    order = desk.order(head=Head(size, head.hash))
    desk.record(order, desk.touch(order))
    assert_found(desk, f"its touch was made on another journal, with {size} events")


# What whoever can write to the file, but has no enrolled key, cannot do.


def append_again(desk: Desk, event: Event) -> None:
    """Append an old event's bytes once more, past killswitch, as anybody with the file can."""
    head = desk.journal.events()[-1]
    with closing(sqlite3.connect(desk.journal.path)) as connection, connection:
        connection.execute(
            "INSERT INTO events (seq, prev, body, hash) VALUES (?, ?, ?, ?)",
            (head.seq + 1, head.hash, event.raw, chained(head.hash, event.raw)),
        )


def test_the_old_enrolment_of_a_removed_key_does_not_enrol_it_again(desk: Desk) -> None:
    desk.enrol("black", by="blue")
    enrolment = desk.journal.events()[-1]
    desk.remove("black", by="blue")
    append_again(desk, enrolment)
    assert_found(desk, "an event of this id stands before it")


@pytest.mark.parametrize("mode", [Mode.LIVE, Mode.DRILL])
def test_an_order_that_is_repeated_word_for_word_is_found(desk: Desk, mode: Mode) -> None:
    order = desk.order(mode)
    type_ = "halt.ordered" if mode is Mode.LIVE else "drill.ordered"
    desk.record(order, desk.touch(order), type_)
    append_again(desk, desk.journal.events()[-1])
    assert_found(desk, "an event of this id stands before it")


@pytest.mark.parametrize("mode", [Mode.KEYS, Mode.RELEASE])
def test_what_gives_rights_away_was_never_signed_on_an_empty_journal(
    desk: Desk, mode: Mode
) -> None:
    order = replace(desk.order(mode), journal_size=0, journal_head=GENESIS.hex(), incident="h1")
    kind = "secrets.resealed" if mode is Mode.KEYS else "halt.resolved"
    data: dict[str, object] = {
        "order": order.to_bytes().decode(),
        "proof": desk.touch(order),
        "halt": "h1",
        "note": order.reason,
    }
    desk.write(f"{order.id}.{kind.rpartition('.')[2]}", kind, data)
    assert_found(desk, "its touch was made on an empty journal")


def test_a_software_key_has_no_place_in_a_real_journal(desk: Desk) -> None:
    desk.make_key("soft", rp_id=SANDBOX_RP_ID)
    order, data = desk.enrolments["soft"]
    desk.write(f"{order.id}.enrolled", "key.enrolled", data)
    assert_found(desk, "a software key and real ones in one journal")


def test_after_the_last_key_was_removed_none_is_taken_at_its_word(desk: Desk) -> None:
    desk.remove("blue")
    desk.enrol("mallory")
    assert_found(desk, "a key that no key enrolled before it has admitted")


def test_a_halt_asks_no_key_that_was_removed_or_never_admitted(desk: Desk) -> None:
    desk.enrol("black", by="blue")
    desk.remove("black", by="blue")
    rogue = desk.make_key("rogue")
    ring = KeyRing((desk.keys["blue"], desk.keys["black"], rogue))
    memory = recall(desk.journal, ring)
    assert [key.label for key in memory.ring.keys] == ["blue"]
    assert memory.doubts == (
        'key ring: "black" stands in the key ring, but the journal admitted no such key',
    )


def test_a_field_that_nobody_signed_costs_its_event_and_no_crash(desk: Desk) -> None:
    order = desk.order()
    data: dict[str, object] = {"order": order.to_bytes().decode(), "proof": desk.touch(order)}
    desk.write(f"{order.id}.ordered", "halt.ordered", data | {"admitted_by": "x"})
    assert desk.check()[0].finding is Finding.INTACT
    desk.enrol("black", by="blue", changes={"admitted_by": "x"})
    assert_found(desk, "its touch cannot be read")


def test_a_key_is_removed_only_as_it_was_enrolled(desk: Desk) -> None:
    desk.enrol("trader", by="blue", role="halt")
    desk.keys["blue"] = replace(desk.keys["blue"], role="halt")
    desk.remove("blue", by="trader")
    assert_found(desk, "its touch was for another key")


def test_a_label_is_given_to_one_key_only(desk: Desk) -> None:
    desk.enrol("black", by="blue")
    desk.enrol("black", by="blue")
    assert_found(desk, 'a second key with the label "black"')


def test_an_adopted_phrase_admits_nobody(tmp_path: Path) -> None:
    desk = laptop(tmp_path)
    record = new_recovery()[1].record
    for signing, fits in ((record, False), (replace(record, verifying_key=""), True)):
        other = Desk(tmp_path / f"{fits}.db")
        other.soft, other.keys = desk.soft, desk.keys
        other.adopt(["blue"], by="blue", recovery=signing)
        assert (check(other.journal.events()).verdict.finding is Finding.INTACT) is fits


def test_a_journal_of_strangers_does_not_keep_an_enrolled_key_from_halting(desk: Desk) -> None:
    ring = KeyRing((desk.make_key("mine"),))
    memory = recall(desk.journal, ring)
    assert memory.ring == ring
    assert "the journal admitted no such key" in memory.doubts[0]


def test_what_was_altered_in_the_ring_is_not_what_a_halt_goes_by(desk: Desk) -> None:
    blue = desk.keys["blue"]
    altered = replace(blue, operator="mallory", role="release", counter=blue.counter + 7)
    memory = recall(desk.journal, KeyRing((altered,)))
    assert memory.ring.keys == (replace(blue, counter=blue.counter + 7),)
    assert memory.doubts


def test_a_journal_that_cannot_be_read_is_a_doubt_and_no_reason_to_stop(desk: Desk) -> None:
    desk.journal.path.write_bytes(b"not a database")
    ring = KeyRing((desk.keys["blue"],))
    memory = recall(desk.journal, ring)
    assert (memory.ring, memory.head.size) == (ring, 0)
    assert "not read before the touch" in memory.doubts[0]


@pytest.mark.parametrize("id_", ["{id}", "{id}.again", "x.completed"])
def test_a_report_under_another_id_than_its_orders_is_no_memory(desk: Desk, id_: str) -> None:
    order = desk.order()
    desk.record(order, desk.touch(order))
    forged: dict[str, object] = {"order": {"id": order.id}, "halted": True, "passed": True}
    desk.write(id_.format(id=order.id), "halt.completed", forged)
    desk.write(f"{order.id}.completed", "drill.completed", forged)
    past = History(desk.journal.events())
    assert [halt.halted for halt in past.halts()] == [None]
    assert past.last_drill() is None
