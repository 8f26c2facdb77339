"""Programs that are run: bounded in time and output, and nothing of them is left behind."""

import os
import sys
import time
from pathlib import Path

import pytest

from killswitch.programs import Ran, run


def shell(line: str, timeout_s: float = 5) -> Ran:
    return run(["/bin/sh", "-c", line], timeout_s=timeout_s, longest=1000)


def test_what_it_prints_and_its_exit_code_come_back() -> None:
    assert shell("echo out; echo err >&2; exit 3") == Ran(3, b"out\n")


def test_time_up_ends_it_and_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "late"
    started = time.monotonic()
    ran = shell(f"(sleep 0.6; touch {mark}) & echo begun; sleep 30", timeout_s=0.3)
    assert ran == Ran(None, b"begun\n")
    assert time.monotonic() - started < 2
    time.sleep(0.6)
    assert not mark.exists()


def test_a_child_that_holds_the_output_open_is_not_waited_for() -> None:
    started = time.monotonic()
    assert shell("sleep 3 & echo done", timeout_s=10) == Ran(0, b"done\n")
    assert time.monotonic() - started < 2


def test_endless_output_is_cut() -> None:
    ran = shell("yes", timeout_s=0.5)
    assert len(ran.output) == 1001
    assert ran.code is None


def test_its_environment_is_what_was_given() -> None:
    ran = run(
        [sys.executable, "-I", "-c", "import os; print(os.environ['WORD'], 'HOME' in os.environ)"],
        timeout_s=10,
        longest=100,
        environment={"WORD": "given"},
    )
    assert ran.output == b"given False\n"


def test_it_has_no_input_and_no_terminal() -> None:
    assert shell("cat; ps -o tty= -p $$ | tr -d ' \n'") in {Ran(0, b"?"), Ran(0, b"")}
    assert os.getsid(0) != int(shell("ps -o sess= -p $$").output)


def test_what_cannot_be_started_is_an_os_error() -> None:
    with pytest.raises(OSError, match="No such file"):
        run(["no-such-program"], timeout_s=1, longest=1)
