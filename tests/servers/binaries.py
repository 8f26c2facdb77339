"""Where the programs of the real servers are: built by `scripts/servers build`, never here."""

import hashlib
import os
from pathlib import Path

from tests.servers.processes import ServerError

ROOT = Path(__file__).parents[2]
# What decides the bytes of the programs; a change of it asks for a new build.
RECIPE = ("scripts/build_servers.py", "requirements/servers.txt", "requirements/go.txt")


class MissingServerError(ServerError):
    """A program that the real tests need is not there."""


def folder() -> Path:
    """Return the folder of the programs: $KILLSWITCH_SERVERS, else the user's cache."""
    chosen = os.environ.get("KILLSWITCH_SERVERS")
    return Path(chosen) if chosen else cache() / f"bin-{recipe()}"


def cache() -> Path:
    """Return where everything that `scripts/servers` makes is kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "killswitch" / "servers"


def recipe() -> str:
    """Return the name of today's recipe, which changes with the programs."""
    digest = hashlib.sha256()
    for name in RECIPE:
        path = ROOT / name
        digest.update(path.read_bytes() if path.exists() else b"")
    return digest.hexdigest()[:12]


def binary(name: str) -> Path:
    """Return the path of one program. Raises MissingServerError."""
    path = folder() / name
    if not path.exists():
        raise MissingServerError(
            f"there is no {name} in {folder()}; build it: scripts/servers build"
        )
    return path
