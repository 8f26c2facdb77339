"""A screen that is held, full or closed, or was never there: the halt is carried out and ends."""

import contextlib
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest

from killswitch.journal.store import Journal
from killswitch.sandbox.world import World
from tests.worlds import KILLSWITCH, home, killswitch, running_world

HELD_S = 20.0
"""How long a halt whose screen is held may take; a free one takes about 4 s."""


class FullPipe:
    """A pipe that nobody reads, and that is full."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.fill()

    def fill(self) -> None:
        os.set_blocking(self.writing, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b"." * 4096)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(self.writing, b".")
        os.set_blocking(self.writing, True)

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def start(
    world: World,
    *words: str,
    out: int | IO[bytes],
    err: int | IO[bytes],
    typed: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [KILLSWITCH, "--revoke", *words, "--config", world.config_file],
        cwd=world.folder,
        env=home(world.folder),
        stdin=typed,
        stdout=out,
        stderr=err,
    )


def recorded(world: World) -> list[str]:
    events = Journal(world.folder / "journal.db").events()
    return [event.body.type for event in events if event.body.type.startswith("halt.")]


def it_ended(process: subprocess.Popen[bytes], world: World) -> None:
    try:
        assert process.wait(timeout=HELD_S) == 0
    finally:
        process.kill()
        process.wait()
    assert world.live() == {}
    assert recorded(world) == ["halt.ordered", "halt.completed"]


@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_result_that_nobody_takes_holds_nothing(tmp_path: Path, words: list[str]) -> None:
    """Only stdout is held, as by a pager that waits."""
    with running_world(tmp_path) as world:
        pipe = FullPipe()
        it_ended(start(world, "--yes", *words, out=pipe.writing, err=subprocess.DEVNULL), world)
        pipe.close()


def test_progress_that_is_held_from_the_touch_on_holds_nothing(tmp_path: Path) -> None:
    """Only stderr is held; the result still arrives on stdout, whole."""
    with running_world(tmp_path) as world:
        pipe = FullPipe()
        os.read(pipe.reading, 1 << 20)
        process = start(world, out=subprocess.PIPE, err=pipe.writing, typed=subprocess.PIPE)
        seen = b""
        while b"press Enter" not in seen:
            seen += os.read(pipe.reading, 4096)
        pipe.fill()
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.close()
        it_ended(process, world)
        assert process.stdout is not None
        process.stdout.close()
        pipe.close()


def test_a_slow_reader_still_gets_the_whole_answer(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        process = start(world, "--yes", out=subprocess.PIPE, err=subprocess.STDOUT)
        assert process.stdout is not None
        text = b""
        while piece := os.read(process.stdout.fileno(), 40):
            text += piece
            time.sleep(0.01)
        process.stdout.close()
        it_ended(process, world)
        assert b"HALTED  verified" in text
        assert text.endswith(b"\n")


@pytest.mark.parametrize("closed", ["2>&-", "<&- >&- 2>&-"])
def test_streams_that_were_never_open_hold_nothing(tmp_path: Path, closed: str) -> None:
    """As when it is started by something that keeps no terminal."""
    with running_world(tmp_path) as world:
        command = shlex.join([str(KILLSWITCH), "--revoke", "--yes", "--config"])
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command} {shlex.quote(str(world.config_file))} {closed}"],
            cwd=tmp_path,
            env=home(tmp_path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        it_ended(process, world)
    assert killswitch(["journal", "verify", tmp_path / "journal.db"], tmp_path).code == 0


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_reader_that_leaves_in_the_middle_holds_nothing(tmp_path: Path, stream: str) -> None:
    with running_world(tmp_path) as world:
        reading, writing = os.pipe()
        process = start(
            world,
            "--yes",
            out=writing if stream == "stdout" else subprocess.DEVNULL,
            err=writing if stream == "stderr" else subprocess.DEVNULL,
        )
        os.close(writing)
        if stream == "stderr":
            assert os.read(reading, 1)
        os.close(reading)
        it_ended(process, world)
