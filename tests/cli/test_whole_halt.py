"""The installed executable against the whole sandbox: the halt, the drill, the second run."""

import json
from importlib import resources
from pathlib import Path

import jsonschema
import pytest

from killswitch.sandbox.bybit_books import TRADE_RIGHTS, Key
from tests.worlds import killswitch, new_own_key, running_world, secrets_of


def test_one_command_halts_the_whole_world_and_says_so(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        assert world.live(), "there is something to halt"
        ran = killswitch(["--revoke", "--config", world.config_file], tmp_path, stdin="\n")
        assert ran.code == 0, ran.err + ran.out
        assert ran.out.startswith("HALTED  verified in ")
        assert world.live() == {}
        assert [message.text.split("\n")[0] for message in world.telegram.messages[:2]]
        new_own_key(world)
        again = killswitch(["revoke", "--config", world.config_file, "--yes"], tmp_path)
        assert again.code == 0, again.err + again.out
        assert "ok already" in again.err
        assert world.live() == {}
        for secret in secrets_of(world):
            assert secret not in ran.out + ran.err + again.out + again.err
            assert secret.encode() not in (tmp_path / "journal.db").read_bytes()
    verified = killswitch(["journal", "verify", tmp_path / "journal.db"], tmp_path)
    assert verified.code == 0
    assert verified.out.startswith("INTACT  5 events")


def test_a_second_run_without_a_key_that_sees_does_not_repeat_what_the_first_one_saw(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file), "--yes"]
        assert killswitch(["--revoke", *config], tmp_path).code == 0
        world.bybit.books.add_key(Key("BOTKEY00000102late", "late-secret", "102", TRADE_RIGHTS))
        again = killswitch(["--revoke", "--json", *config], tmp_path)
        assert again.code == 11, again.err + again.out
        report = json.loads(again.out)
        unseen = {
            (result["step"], target["target"])
            for result in report["results"]
            for target in result["targets"]
            if target["outcome"] not in {"already", "verified"}
        }
        assert unseen == {("bybit", "sub accounts"), ("bybit", "sub 101/orders")}
        assert "a new master key in the configuration" in again.out
        new_own_key(world)
        repaired = killswitch(["--revoke", *config], tmp_path)
        assert repaired.code == 0, repaired.err + repaired.out
        assert world.live() == {}


def test_the_alerts_tell_of_the_order_and_of_its_result_with_the_journals_head(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        killswitch(["--revoke", "--config", world.config_file, "--yes"], tmp_path)
        texts = [message.text for message in world.telegram.messages]
    assert len(texts) == 4
    assert sum("halt ordered by you" in text for text in texts) == 2
    results = [text for text in texts if "HALTED" in text]
    assert len(results) == 2
    assert all("journal 2:" in text for text in results)


def test_a_drill_passes_writes_its_record_and_changes_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        before = world.live()
        ran = killswitch(["drill", "--config", world.config_file, "--yes"], tmp_path)
        assert ran.code == 0, ran.err + ran.out
        assert ran.out.startswith("DRILL PASSED")
        assert world.live() == before
        for server in world.servers:
            assert server.writes == []
        status = killswitch(["status", "--config", world.config_file], tmp_path)
        assert status.code == 0, status.out
        assert status.out.startswith("ARMED")
        assert "today, passed" in status.out
        for server in world.servers:
            assert server.writes == []


def test_status_says_what_is_to_be_mended_before_the_first_drill(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        status = killswitch(["status", "--config", world.config_file], tmp_path)
    assert status.code == 8
    assert status.out.startswith("NOT READY")
    assert "mend: killswitch drill" in status.out


def test_the_json_report_fits_the_published_schema(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        ran = killswitch(["--revoke", "--json", "--config", world.config_file, "--yes"], tmp_path)
        drill = killswitch(["drill", "--json", "--config", world.config_file, "--yes"], tmp_path)
    schema = json.loads(
        resources.files("killswitch").joinpath("schemas/report-v1.json").read_text()
    )
    for document in (json.loads(ran.out), json.loads(drill.out)):
        jsonschema.validate(document, schema, cls=jsonschema.Draft202012Validator)
    assert json.loads(ran.out)["halted"] is True


def test_without_a_configuration_a_drill_halts_a_sandbox_of_its_own(tmp_path: Path) -> None:
    ran = killswitch(["drill", "--yes"], tmp_path)
    assert ran.code == 0, ran.err + ran.out
    assert "a sandbox: nothing real was touched" in ran.out
    assert killswitch(["journal", "verify"], tmp_path).code == 0
    report = killswitch(["report"], tmp_path)
    assert report.out.startswith("HALTED  sandbox")


def test_a_halt_that_is_over_is_resolved_with_a_touch(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        ran = killswitch(["--revoke", "--json", "--yes", *config], tmp_path)
        halt = json.loads(ran.out)["order"]["id"]
        assert halt in killswitch(["status", *config], tmp_path).out
        note = ["--note", "the strategy was wrong"]
        resolved = killswitch(["resolve", halt, *note, "--yes", *config], tmp_path)
        assert resolved.code == 0, resolved.err
        assert "none unresolved" in killswitch(["status", *config], tmp_path).out
        assert killswitch(["resolve", halt, *note, "--yes", *config], tmp_path).code == 2
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_freezing_stops_what_can_be_undone_and_says_that_the_rest_is_live(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        ran = killswitch(
            ["--revoke", "--freeze-only", "--config", world.config_file, "--yes"], tmp_path
        )
        assert ran.code == 11
        assert ran.out.startswith("NOT HALTED")
        assert "freeze only" in ran.out
        live = world.live()
    assert "kubernetes" not in live
    assert {"bybit", "vault"} <= set(live)


@pytest.mark.parametrize("words", [["--help"], ["-h"], [], ["keys"], ["exit-codes"]])
def test_help_is_there_for_whoever_asks(tmp_path: Path, words: list[str]) -> None:
    ran = killswitch(words, tmp_path)
    assert ran.code in {0, 2}
    assert ran.out + ran.err
