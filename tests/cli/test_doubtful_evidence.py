"""A counter that went back, and a journal that was changed: a halt goes on, the rest does not."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from killswitch.authority import ring
from killswitch.authority.ring import KeyRing
from killswitch.journal.store import Journal
from killswitch.sandbox.world import World
from tests.worlds import killswitch, running_world


def halted(world: World, folder: Path) -> str:
    """Halt `world` and return the halt's id."""
    ran = killswitch(["--revoke", "--json", "--yes", "--config", world.config_file], folder)
    assert ran.code == 0, ran.err
    return str(json.loads(ran.out)["order"]["id"])


def raise_the_counter(world: World) -> None:
    """Remember a higher counter than the key has, as after a touch of its copy."""
    file = world.folder / "keys.json"
    (key,) = KeyRing.load(file).keys
    ring.update(file, lambda keys: keys.with_counter(key.credential_id, key.counter + 1000))


# The counter of the key.


def test_a_key_whose_counter_went_back_resolves_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        halt = halted(world, tmp_path)
        raise_the_counter(world)
        journal = Journal(tmp_path / "journal.db")
        before, keys = journal.head(), (tmp_path / "keys.json").read_bytes()
        ran = killswitch(["resolve", halt, "--note", "over", "--yes", *config], tmp_path)
        assert ran.code == 3, ran.err + ran.out
        first, second, _ = ran.err.strip().splitlines()[-3:]
        assert "the counter of key" in first
        assert "the halt is not resolved" in second
        assert "resolved" not in ran.out
        assert journal.head() == before, "nothing was appended"
        assert (tmp_path / "keys.json").read_bytes() == keys
        assert f"killswitch resolve {halt}" in killswitch(["status", *config], tmp_path).out


def test_the_same_touch_resolves_it_when_the_counter_goes_on(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        halt = halted(world, tmp_path)
        ran = killswitch(["resolve", halt, "--note", "over", "--yes", *config], tmp_path)
        assert ran.code == 0, ran.err
        assert Journal(tmp_path / "journal.db").events()[-1].body.type == "halt.resolved"


def test_a_key_whose_counter_went_back_still_halts_and_is_named(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        raise_the_counter(world)
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.out.startswith("HALTED"), ran.err + ran.out
        assert "went back: a copy?" in ran.out
        assert world.live() == {}


# The journal.


def alter(journal: Path, old: str, new: str) -> None:
    """Change a word in every event, as somebody with the file in his hands can."""
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("DROP TRIGGER events_no_update")
        connection.execute(
            "UPDATE events SET body = CAST(replace(CAST(body AS TEXT), ?, ?) AS BLOB)", (old, new)
        )


def cut_out(journal: Path, seq: int) -> None:
    with closing(sqlite3.connect(journal)) as connection, connection:
        connection.execute("DROP TRIGGER events_no_delete")
        connection.execute("DELETE FROM events WHERE seq = ?", (seq,))


@pytest.mark.parametrize("change", ["altered", "cut out"])
def test_a_journal_that_was_changed_is_flagged_and_the_halt_goes_on(
    tmp_path: Path, change: str
) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        assert killswitch(["drill", "--yes", *config], tmp_path).code == 0
        journal = tmp_path / "journal.db"
        if change == "altered":
            alter(journal, "drill", "grill")
        else:
            cut_out(journal, 2)
        ran = killswitch(["--revoke", "--json", "--yes", *config], tmp_path)
        assert ran.code == 5, ran.err + ran.out
        warned = [line for line in ran.err.splitlines() if "?? journal: event " in line]
        assert warned, "said before the touch"
        assert ran.err.index(warned[0]) < ran.err.index("touched:")
        report = json.loads(ran.out)
        assert report["halted"] is True
        assert [line for line in report["degraded"] if line.startswith("journal: event ")]
        assert world.live() == {}
        assert Journal(journal).events()[-1].body.type == "halt.completed"
        assert killswitch(["journal", "verify", *config], tmp_path).code == 6


def test_the_answer_to_people_names_the_changed_journal(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        alter(tmp_path / "journal.db", "software key", "software kex")
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 5, ran.err + ran.out
        assert ran.out.startswith("HALTED")
        assert " evidence " in ran.out
        assert "journal: event 1" in ran.out


@pytest.mark.parametrize(
    ("old", "outcome"), [("no such words", "already"), ("software key", "unknown")]
)
def test_what_a_changed_journal_says_it_saw_is_no_evidence(
    tmp_path: Path, old: str, outcome: str
) -> None:
    """The own key is gone: only an earlier run could know that it was ever there."""
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        halted(world, tmp_path)
        alter(tmp_path / "journal.db", old, "software kex")
        ran = killswitch(["--revoke", "--json", "--yes", *config], tmp_path)
        report = json.loads(ran.out)
        (bybit,) = [result for result in report["results"] if result["step"] == "bybit"]
        own = [each for each in bybit["targets"] if each["target"].startswith("own key")]
        assert [each["outcome"] for each in own] == [outcome]
        assert outcome == "already" or report["halted"] is False
