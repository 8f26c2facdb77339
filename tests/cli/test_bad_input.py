"""What an operator does wrong at 3 a.m., and what the tool says then."""

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.worlds import KILLSWITCH, Ran, home, killswitch, running_world

LIVE = "nothing was revoked; trading is still live"


def start(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [KILLSWITCH, *arguments],
        cwd=folder,
        env=home(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(process: subprocess.Popen[str], text: str) -> str:
    assert process.stderr is not None
    seen = ""
    while text not in seen:
        line = process.stderr.readline()
        assert line, f"it ended before it said {text!r}: {seen}"
        seen += line
    return seen


def end(process: subprocess.Popen[str], timeout_s: float = 60) -> Ran:
    out, err = process.communicate(timeout=timeout_s)
    return Ran(process.returncode, out, err)


def test_an_unknown_key_names_its_line_and_what_was_meant(tmp_path: Path) -> None:
    file = tmp_path / "killswitch.toml"
    file.write_text('name = "prod"\n\n[halt]\ndeadline = 30\n')
    ran = killswitch(["--revoke"], tmp_path)
    assert ran.code == 4
    assert 'line 4: unknown key "deadline", did you mean "deadline_s"?' in ran.err
    assert LIVE in ran.err
    assert len(ran.err.strip().splitlines()) == 3


def test_no_configuration_at_all_is_said_with_what_to_do(tmp_path: Path) -> None:
    ran = killswitch(["--revoke"], tmp_path)
    assert ran.code == 4
    assert "killswitch init" in ran.err


def test_without_a_touch_in_time_nothing_is_done(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        before = world.live()
        ran = killswitch(
            ["--revoke", "--touch-timeout", "1", "--config", world.config_file], tmp_path
        )
        assert ran.code == 3, ran.err
        assert LIVE in ran.err
        assert world.live() == before
        assert all(server.writes == [] for server in world.servers)


def test_an_empty_key_ring_is_not_authorised(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        (tmp_path / "keys.json").unlink()
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code in {3, 4}
        assert LIVE in ran.err
        assert all(server.writes == [] for server in world.servers)


def test_a_key_that_is_not_enrolled_does_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        (tmp_path / "software-key.json").unlink()
        (tmp_path / "other").mkdir()
        with running_world(tmp_path / "other") as other:
            stranger = (other.folder / "software-key.json").read_bytes()
        (tmp_path / "software-key.json").write_bytes(stranger)
        (tmp_path / "software-key.json").chmod(0o600)
        ran = killswitch(
            ["--revoke", "--yes", "--touch-timeout", "2", "--config", world.config_file], tmp_path
        )
        assert ran.code == 3, ran.err
        assert all(server.writes == [] for server in world.servers)


def test_yes_never_stands_for_a_real_key(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        before, _, after = world.config_file.read_text().partition("[sandbox]")
        world.config_file.write_text(f"{before}[keys]{after.partition('[keys]')[2]}")
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 2
        assert "software key only" in ran.err
        assert all(server.writes == [] for server in world.servers)


def test_the_sandbox_may_not_be_pointed_at_another_host(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        text = world.config_file.read_text()
        world.config_file.write_text(text.replace(world.vault.url, "https://vault.internal"))
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 4
        assert "may only reach this machine" in ran.err


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('paths = ["trading/"]', "paths = 7"),
        ('token = "file:vault-token"\n', ""),
        ('token = "file:vault-token"', 'token = "file:not-there"'),
        ('token = "file:vault-token"', 'token = "hvs.written-into-the-file"'),
        ('token = "file:vault-token"', 'token = "command:false"'),
        ('paths = ["trading/"]', 'paths = ["trading"]'),
    ],
)
def test_a_broken_section_costs_its_own_step_and_the_others_run(
    tmp_path: Path, old: str, new: str
) -> None:
    with running_world(tmp_path) as world:
        text = world.config_file.read_text()
        assert old in text
        world.config_file.write_text(text.replace(old, new, 1))
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 11, ran.err + ran.out
        assert ran.out.startswith("NOT HALTED  1 of 5 steps failed")
        assert "hvs.written-into-the-file" not in ran.out + ran.err
        assert set(world.live()) == {"vault"}


def test_ctrl_c_before_the_touch_does_nothing(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        process = start(["--revoke", "--config", str(world.config_file)], tmp_path)
        wait_for(process, "press Enter")
        process.send_signal(signal.SIGINT)
        ran = end(process)
        assert ran.code == 130, ran.err
        assert LIVE in ran.err
        assert "Traceback" not in ran.err
        assert all(server.writes == [] for server in world.servers)


def test_ctrl_c_after_the_touch_still_verifies_and_reports(tmp_path: Path) -> None:
    with running_world(tmp_path, traps=["kubernetes-stuck-pod"], patience_s=20) as world:
        process = start(["--revoke", "--yes", "--config", str(world.config_file)], tmp_path)
        wait_for(process, "verified  vault")
        process.send_signal(signal.SIGINT)
        ran = end(process, 15)
        assert ran.code in {10, 11}
        assert ran.out.startswith("NOT HALTED")
        assert "kubernetes" in ran.out
    assert killswitch(["journal", "verify", tmp_path / "journal.db"], tmp_path).code == 0


def test_a_second_ctrl_c_leaves_at_once_with_a_consistent_journal(tmp_path: Path) -> None:
    with running_world(tmp_path, traps=["kubernetes-hang"], patience_s=20) as world:
        process = start(["--revoke", "--yes", "--config", str(world.config_file)], tmp_path)
        wait_for(process, "ok verified")
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        ran = end(process, 15)
        assert time.monotonic() - began < 5
        assert ran.code in {10, 11}
    assert killswitch(["journal", "verify", tmp_path / "journal.db"], tmp_path).code == 0
    report = killswitch(["report", "--json", "--journal", tmp_path / "journal.db"], tmp_path)
    assert json.loads(report.out)["halted"] is False


def test_a_closed_terminal_does_not_stop_a_halt(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        process = start(["--revoke", "--yes", "--config", str(world.config_file)], tmp_path)
        wait_for(process, "touched")
        process.send_signal(signal.SIGHUP)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdin is not None
        for stream in (process.stdin, process.stdout, process.stderr):
            stream.close()
        assert process.wait(timeout=60) == 0
        assert world.live() == {}


def test_a_full_stdout_does_not_stop_a_halt(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):  # noqa: PTH110 (a device, not a path of ours)
        pytest.skip("this system has no /dev/full")
    with running_world(tmp_path) as world, open("/dev/full", "w") as full:  # noqa: PTH123 (as above)
        done = subprocess.run(
            [KILLSWITCH, "--revoke", "--yes", "--config", world.config_file],
            cwd=tmp_path,
            env=home(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=full,
            stderr=full,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0
        assert world.live() == {}


def test_a_journal_that_cannot_be_written_costs_the_evidence_and_not_the_halt(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world:
        (tmp_path / "journal.db").write_bytes(b"this is no database")
        ran = killswitch(["--revoke", "--yes", "--config", world.config_file], tmp_path)
        assert ran.code == 5, ran.err + ran.out
        assert ran.out.startswith("HALTED")
        assert "evidence" in ran.out
        assert world.live() == {}
        lines = (tmp_path / "sandbox-fallback.jsonl").read_text().splitlines()
        assert [json.loads(line)["type"] for line in lines] == ["halt.ordered", "halt.completed"]


def test_a_screen_that_is_held_does_not_hold_the_halt(tmp_path: Path) -> None:
    """As with Ctrl-S: from the touch on, nobody reads, and the pipe is full."""
    with running_world(tmp_path) as world:
        reading, writing = os.pipe()
        process = subprocess.Popen(
            [KILLSWITCH, "--revoke", "--deadline", "10", "--config", str(world.config_file)],
            cwd=tmp_path,
            env=home(tmp_path),
            stdin=subprocess.PIPE,
            stdout=writing,
            stderr=writing,
            text=True,
        )
        seen = b""
        while b"press Enter" not in seen:
            seen += os.read(reading, 4096)
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, b"." * 4096)
        os.set_blocking(writing, True)
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.close()
        assert process.wait(timeout=20) == 0
        assert world.live() == {}
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("number", [signal.SIGTSTP, signal.SIGUSR1, signal.SIGALRM])
def test_no_stray_signal_stops_or_suspends_a_halt(tmp_path: Path, number: signal.Signals) -> None:
    with running_world(tmp_path) as world:
        process = start(["--revoke", "--yes", "--config", str(world.config_file)], tmp_path)
        wait_for(process, "ok verified")
        process.send_signal(number)
        ran = end(process, 30)
        assert ran.code == 0, ran.err
        assert world.live() == {}
