"""The commands around the halt: init, config, keys, journal, sandbox, and what they refuse."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from killswitch import __version__
from killswitch.exit_codes import ExitCode
from killswitch.journal.fallback import FallbackLog
from killswitch.journal.store import Journal, NewEvent
from killswitch.sandbox.world import all_traps
from tests.worlds import KILLSWITCH, home, killswitch, running_world


def test_init_writes_a_configuration_that_can_be_used_and_overwrites_none(tmp_path: Path) -> None:
    assert killswitch(["init"], tmp_path).code == 0
    file = tmp_path / "killswitch.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_text()
    again = killswitch(["init"], tmp_path)
    assert again.code == 2
    assert "it was not changed" in again.err
    assert file.read_text() == before


def test_config_check_names_each_system_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        good = killswitch(["config", "check", "--config", world.config_file], tmp_path)
        assert good.code == 0, good.err
        text = world.config_file.read_text()
        for old, new, said in [
            ('paths = ["trading/"]', 'paths = ["trading"]', "looks like"),
            ('"file:vault-token"', '"hvs.in-the-file"', "stands in the configuration itself"),
            ('"kubeconfig.yaml"', '"nowhere.yaml"', "there is no kubeconfig"),
        ]:
            world.config_file.write_text(text.replace(old, new))
            bad = killswitch(["config", "check", "--config", world.config_file], tmp_path)
            assert bad.code == 4, bad.out
            assert said in bad.err
            assert "hvs.in-the-file" not in bad.out + bad.err


def test_a_changed_journal_is_named_with_its_first_bad_event(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        killswitch(["drill", "--yes", *config], tmp_path)
        journal = tmp_path / "journal.db"
        head = Journal(journal).head()
        kept = ["journal", "verify", *config, "--head", f"{head.size}:{head.hash[:16]}"]
        assert killswitch(kept, tmp_path).code == 0
        with closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute("DROP TRIGGER events_no_delete")
            connection.execute("DELETE FROM events WHERE seq = 3")
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0, "a bare chain"
        cut = killswitch(kept, tmp_path)
        assert cut.code == 6
        assert "3 events were seen elsewhere, 2 are left" in cut.out
        with closing(sqlite3.connect(journal)) as connection, connection:
            connection.execute("DROP TRIGGER events_no_update")
            connection.execute(
                "UPDATE events SET body ="
                " CAST(replace(CAST(body AS TEXT), 'drill', 'grill') AS BLOB)"
            )
        changed = killswitch(["journal", "verify", *config], tmp_path)
        assert changed.code == 6
        assert changed.out.startswith("TAMPERED  event 2")
        status = killswitch(["status", *config], tmp_path)
        assert status.code == 8


def test_what_went_into_the_fallback_file_is_merged_by_repair(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        journal = tmp_path / "journal.db"
        journal.chmod(0o400)
        good = journal.read_bytes()
        journal.chmod(0o600)
        journal.write_bytes(b"this is no database")
        assert killswitch(["--revoke", "--yes", *config], tmp_path).code == 5
        journal.write_bytes(good)
        waiting = killswitch(["status", *config], tmp_path)
        assert "killswitch journal repair" in waiting.out
        merged = killswitch(["journal", "repair", *config], tmp_path)
        assert merged.code == 0
        assert merged.out.startswith("2 events taken")
        assert killswitch(["journal", "repair", *config], tmp_path).out.startswith("0 events")
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0
        assert killswitch(["report", *config], tmp_path).out.startswith("HALTED")


def test_the_sandbox_runs_in_the_foreground_for_a_second_terminal(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [KILLSWITCH, "sandbox", "--trap", "vault-forbidden-delete"],
        cwd=tmp_path,
        env=home(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        while "curl" not in (line := process.stdout.readline()):
            assert line
        config = ["--config", "killswitch-sandbox/killswitch.toml"]
        assert killswitch(["status", *config], tmp_path).code == 8
        halted = killswitch(["--revoke", *config], tmp_path, stdin="\n")
        assert halted.code == 11
        assert "may not delete" in halted.out or "permission denied" in halted.out
        if kubectl := shutil.which("kubectl"):
            look = ["--kubeconfig", "killswitch-sandbox/kubeconfig.yaml", "-n", "trading"]
            pods = subprocess.run(
                [kubectl, *look, "get", "pods"],
                cwd=tmp_path,
                env=home(tmp_path),
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert "No resources found" in pods.stdout + pods.stderr
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 0
        if process.stdout is not None:
            process.stdout.close()


def test_traps_are_listed_by_name_and_an_unknown_one_is_refused(tmp_path: Path) -> None:
    listed = json.loads(killswitch(["sandbox", "--list-traps", "--json"], tmp_path).out)
    assert listed["traps"] == all_traps()
    assert killswitch(["sandbox", "--trap", "no-such"], tmp_path).code == 2


def test_exit_codes_and_version_are_printed(tmp_path: Path) -> None:
    codes = json.loads(killswitch(["exit-codes", "--json"], tmp_path).out)["codes"]
    assert codes == {str(int(code)): code.meaning for code in ExitCode}
    assert killswitch(["--version"], tmp_path).out == f"killswitch {__version__}\n"


@pytest.mark.parametrize(
    "words", [["revok"], ["--no-such"], ["revoke", "--deadline", "x"], ["keys", "enroll"]]
)
def test_a_command_line_that_makes_no_sense_is_exit_code_2(
    tmp_path: Path, words: list[str]
) -> None:
    ran = killswitch(words, tmp_path)
    assert ran.code == 2
    assert "Traceback" not in ran.err


def test_nobody_can_press_enter_with_no_input(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        ran = killswitch(["drill", "--no-input", "--config", world.config_file], tmp_path)
        assert ran.code == 2
        assert "--yes" in ran.err


def test_what_the_journal_would_not_bear_is_left_out_of_a_repair(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        fallback = FallbackLog(tmp_path / "sandbox-fallback.jsonl")
        forged = {"halt": "h1", "note": "all is well", "order": "{}", "proof": None}
        fallback.append(NewEvent("x.resolved", "halt.resolved", "2026-11-21T03:14:07Z", forged))
        fallback.append(NewEvent("n1", "note.written", "2026-11-21T03:14:07Z", {}))
        ran = killswitch(["journal", "repair", *config], tmp_path)
        assert ran.code == 0, ran.err
        assert ran.out.startswith("1 event taken")
        assert "left out, since the journal would not bear it: x.resolved" in ran.out
        assert killswitch(["journal", "verify", *config], tmp_path).code == 0


def test_a_fallback_file_that_is_no_plain_file_hangs_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = ["--config", str(world.config_file)]
        os.mkfifo(tmp_path / "sandbox-fallback.jsonl")
        for words in (["status"], ["journal", "repair"]):
            ran = killswitch([*words, *config], tmp_path, timeout_s=30)
            assert ran.code in {4, 8}, ran.err
