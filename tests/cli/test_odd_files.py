"""A configuration or a key ring that is no plain file: the command ends at once, and says so."""

import os
from pathlib import Path

import pytest

from killswitch.config import load_config
from killswitch.errors import ConfigError
from tests.worlds import Ran, killswitch, running_world

LIVE = "nothing was revoked; trading is still live"
AT_ONCE_S = 20.0


def make(kind: str, path: Path) -> None:
    """Put something that is no plain file at `path`."""
    path.unlink(missing_ok=True)
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case _:
            path.symlink_to(f"/dev/{kind}")


def ended_in_three_lines(ran: Ran, path: Path, *, effect: str) -> None:
    assert ran.code == 4, ran.err + ran.out
    assert ran.out == ""
    first, second, third = ran.err.strip().splitlines()[-3:]
    assert str(path) in first
    assert second.strip() == effect
    assert third.strip()
    assert "Traceback" not in ran.err


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero", "null", "tty"])
@pytest.mark.timeout(30)
def test_what_is_no_plain_file_is_never_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "killswitch.toml"
    make(kind, path)
    with pytest.raises(ConfigError, match=r"not a plain file|Is a directory|No such"):
        load_config(path)


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero"])
@pytest.mark.parametrize("words", [["status"], ["--revoke"], ["drill"], ["config", "check"]])
def test_a_configuration_that_is_no_plain_file_hangs_no_command(
    tmp_path: Path, kind: str, words: list[str]
) -> None:
    path = tmp_path / "odd.toml"
    make(kind, path)
    ran = killswitch([*words, "--config", path], tmp_path, timeout_s=AT_ONCE_S)
    # Only a halt knows that trading is live still: after one, it is not.
    ended_in_three_lines(ran, path, effect=LIVE if "--revoke" in words else "nothing was changed")


def test_a_configuration_found_by_its_name_is_a_plain_file(tmp_path: Path) -> None:
    make("fifo", tmp_path / "killswitch.toml")
    ran = killswitch(["--revoke"], tmp_path, timeout_s=AT_ONCE_S)
    assert ran.code == 4
    assert "no killswitch.toml here" in ran.err


def test_a_configuration_behind_a_link_is_read(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        link = tmp_path / "link.toml"
        link.symlink_to(world.config_file)
        assert load_config(link).name == load_config(world.config_file).name


@pytest.mark.parametrize("kind", ["fifo", "folder", "zero"])
def test_a_key_ring_that_is_no_plain_file_hangs_no_command(tmp_path: Path, kind: str) -> None:
    with running_world(tmp_path) as world:
        ring = tmp_path / "keys.json"
        make(kind, ring)
        config = ["--config", str(world.config_file)]
        ran = killswitch(["--revoke", "--yes", *config], tmp_path, timeout_s=AT_ONCE_S)
        ended_in_three_lines(ran, ring, effect=LIVE)
        assert all(server.writes == [] for server in world.servers)
        status = killswitch(["status", *config], tmp_path, timeout_s=AT_ONCE_S)
        assert status.code == 8, status.err
        assert str(ring) in status.out
