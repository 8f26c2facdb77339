"""What the real tests say and do where their servers are not."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.binaries import ROOT, MissingServerError, binary
from tests.servers.processes import Program, ServerError, free_port, listening


def test_a_missing_program_names_the_command_that_builds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KILLSWITCH_SERVERS", str(tmp_path))

    with pytest.raises(MissingServerError, match=r"no vault in .*: scripts/servers build"):
        binary("vault")


def test_real_tests_are_left_out_unless_asked_for_and_one_line_says_so(tmp_path: Path) -> None:
    done = run_pytest(tmp_path)

    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    lines = [line for line in done.stdout.splitlines() if line.startswith("left out: ")]
    assert len(lines) == 1
    assert lines[0].endswith(" tests against real servers; scripts/check --real runs them")


def test_real_tests_that_are_asked_for_fail_without_their_servers(tmp_path: Path) -> None:
    done = run_pytest(tmp_path, "--real", "-k", "refused")

    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "scripts/servers build" in done.stdout
    assert "skipped" not in done.stdout


def test_a_program_that_ends_early_shows_the_end_of_its_log(tmp_path: Path) -> None:
    program = Program(["sh", "-c", "echo cannot open; exit 3"], tmp_path / "log")

    with pytest.raises(ServerError, match="sh ended with 3:\ncannot open"):
        program.wait_until(lambda: False)

    program.kill()


def test_a_program_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    program = Program(["sleep", "60"], tmp_path / "log")

    with pytest.raises(ServerError, match=r"sleep is not ready after 0\.1 s"):
        program.wait_until(lambda: False, 0.1)

    program.kill()
    assert not program.running


def test_a_free_port_is_given_once() -> None:
    ports = [free_port() for _ in range(20)]

    assert len(set(ports)) == len(ports)
    assert not any(listening(port) for port in ports)


def run_pytest(servers: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of the servers, with an empty folder for their programs."""
    pytest_alone = [sys.executable, "-m", "pytest", "-p", "no:randomly", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*pytest_alone, "-p", "no:xdist", "tests/real/test_servers.py", *words],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "KILLSWITCH_SERVERS": str(servers)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
