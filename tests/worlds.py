"""A sandbox world and the installed killswitch, as tests use them."""

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from killswitch.sandbox.world import World

KILLSWITCH = Path(sys.executable).with_name("killswitch")


@dataclass(frozen=True, slots=True)
class Ran:
    """One finished run of the installed executable."""

    code: int
    out: str
    err: str


@contextmanager
def running_world(
    folder: Path,
    *,
    traps: Iterable[str] = (),
    stay_down_s: float = 0.5,
    patience_s: float = 2.0,
    sealed: bool = False,
) -> Iterator[World]:
    """Run a world with its configuration, journal and secrets in `folder`."""
    world = World(
        folder, traps=traps, stay_down_s=stay_down_s, patience_s=patience_s, sealed=sealed
    )
    for server in world.servers:
        server.start()
    try:
        world.set_up(folder / "journal.db", datetime.now(UTC))
        yield world
    finally:
        for server in world.servers:
            server.stop()


def home(folder: Path) -> dict[str, str]:
    """Return an environment in which nothing of this user's own is found."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_STATE_HOME": str(folder / "state"),
        "XDG_DATA_HOME": str(folder / "data"),
        "LANG": "C.UTF-8",
    }


def killswitch(
    arguments: Sequence[str | Path],
    folder: Path,
    *,
    stdin: str | None = None,
    timeout_s: float = 90,
) -> Ran:
    """Run the installed executable in `folder` to its end."""
    done = subprocess.run(
        [KILLSWITCH, *map(str, arguments)],
        cwd=folder,
        env=home(folder),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


def new_own_key(world: World) -> None:
    """Give the desk a new master key, at Bybit and in the configuration, as the runbook says."""
    world.bybit.renew_master_key()
    for name, value in (
        ("bybit-api-key", world.bybit.master_key),
        ("bybit-api-secret", world.bybit.master_secret),
    ):
        (world.folder / name).write_text(value)


def secrets_of(world: World) -> list[str]:
    """Return every credential of the world that must never be shown."""
    held = [secret for pair in world.bybit.held.values() for secret in pair]
    return [
        world.kubernetes.token,
        world.bybit.master_key,
        world.bybit.master_secret,
        *held,
        world.kakunin.api_key,
        world.vault.token,
        world.vault.root_token,
        world.telegram.token,
    ]
