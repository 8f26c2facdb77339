"""Configurations that are small, empty or odd: the answer is right and never a traceback."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.worlds import KILLSWITCH, home, killswitch, running_world

SYSTEMS = ["kubernetes", "synced_secrets", "bybit", "kakunin", "vault"]


def only(text: str, *kinds: str) -> str:
    """Return the configuration with the sections of these kinds and no other system's."""
    head, *sections = re.split(r"(?m)^(?=\[\[(?!bybit\.held))", text)
    return head + "".join(
        part for part in sections if part.startswith(tuple(f"[[{k}]]" for k in kinds))
    )


@pytest.mark.parametrize("kind", SYSTEMS)
def test_one_system_alone_is_halted_and_drilled(tmp_path: Path, kind: str) -> None:
    with running_world(tmp_path) as world:
        world.config_file.write_text(only(world.config_file.read_text(), kind))
        config = ["--yes", "--config", str(world.config_file)]
        drill = killswitch(["drill", *config], tmp_path)
        assert (drill.code, drill.out.split()[:2]) == (0, ["DRILL", "PASSED"]), drill.err
        halt = killswitch(["--revoke", *config], tmp_path)
        assert (halt.code, halt.out.split()[0]) == (0, "HALTED"), halt.err + halt.out
        assert kind.replace("_", "-") not in world.live()
        again = killswitch(["drill", *config], tmp_path)
        assert again.code == 8
        # The halt used Bybit's own key up: without it nobody can say that nothing is live.
        said = "sub accounts: cannot be listed" if kind == "bybit" else "nothing was live"
        assert said in " ".join(again.out.split())


def test_no_system_at_all_is_never_halted_passed_or_armed(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        world.config_file.write_text(only(world.config_file.read_text(), "telegram"))
        config = ["--config", str(world.config_file)]
        halt = killswitch(["--revoke", "--yes", *config], tmp_path)
        assert (halt.code, halt.out.split("\n")[0].split()[:2]) == (11, ["NOT", "HALTED"])
        drill = killswitch(["drill", "--yes", *config], tmp_path)
        assert drill.code == 8
        assert drill.out.startswith("DRILL NOT PASSED")
        assert killswitch(["report", *config], tmp_path).out.startswith("NOT PASSED")
        assert killswitch(["status", *config], tmp_path).code == 8
        assert killswitch(["config", "check", *config], tmp_path).code == 4


@pytest.mark.parametrize("path", ["~nosuchuser/kubeconfig", "x" * 300, "\\u0000"])
def test_an_impossible_path_costs_its_own_system(tmp_path: Path, path: str) -> None:
    with running_world(tmp_path) as world:
        text = world.config_file.read_text().replace('"kubeconfig.yaml"', f'"{path}"')
        world.config_file.write_text(text)
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 11, ran.err
        assert set(world.live()) == {"kubernetes", "synced-secrets"}


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_streams_that_are_closed_from_the_start_do_not_stop_a_halt(
    tmp_path: Path, closed: str
) -> None:
    with running_world(tmp_path) as world:
        done = subprocess.run(
            [
                "/bin/sh",
                "-c",
                f'"$0" --revoke --yes --config "$1" {closed}',
                KILLSWITCH,
                world.config_file,
            ],
            cwd=tmp_path,
            env=home(tmp_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert world.live() == {}


def test_a_dead_journal_disk_does_not_keep_the_touch_from_being_asked(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        (tmp_path / "journal.db").unlink()
        (tmp_path / "journal.db").mkdir()
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 5, ran.err + ran.out
        assert ran.out.startswith("HALTED")
        assert world.live() == {}
