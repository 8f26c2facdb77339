"""A sandbox world whose cluster or Vault is a real one, for tests and the bench."""

import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import IO

from killswitch.sandbox.world import World
from tests.servers.vault_server import DevVault
from tests.worlds import KILLSWITCH, home

_SECTION = r"\[\[{kind}\]\]\n.*?(?=\n\[|\Z)"


def aim_at_cluster(
    world: World, kubeconfig: Path, context: str, namespaces: Sequence[str], *more: str
) -> None:
    """Put a real cluster in the place of the sandbox's; `more` are lines of its section."""
    lines = [
        "[[kubernetes]]",
        'name = "k3s-sandbox"',
        f"kubeconfig = {json.dumps(str(kubeconfig))}",
        f"context = {json.dumps(context)}",
        f"namespaces = {json.dumps(list(namespaces))}",
        *more,
    ]
    replace_section(world, "kubernetes", lines)


def replace_section(world: World, kind: str, lines: Sequence[str]) -> None:
    """Write `lines` in the place of the section or sections of `kind`."""
    text = world.config_file.read_text()
    pattern = re.compile(_SECTION.format(kind=kind), re.DOTALL)
    assert pattern.search(text), f"no section {kind}"
    world.config_file.write_text(pattern.sub(lambda _: "\n".join(lines) + "\n", text, count=1))


def aim_at_vault(world: World, vault: DevVault, mount: str, secrets: int = 20) -> None:
    """Put a real Vault with a KV mount of so many secrets in the place of the sandbox's."""
    assert vault.send("POST", f"sys/mounts/{mount}", {"type": "kv-v2"})[0] == 204
    for number in range(secrets):
        # A mount that was just made upgrades itself for a moment.
        patiently(partial(_put, vault, f"{mount}/data/bots/{number}"))
    token = world.folder / "real-vault-token"
    token.write_text(vault.root_token)
    token.chmod(0o600)
    lines = [
        "[[vault]]",
        'name = "vault-sandbox"',
        f"address = {json.dumps(vault.address)}",
        'token = "file:real-vault-token"',
        f'paths = ["{mount}/"]',
        "",
    ]
    replace_section(world, "vault", lines)


def _put(vault: DevVault, path: str) -> bool:
    return vault.send("POST", path, {"data": {"key": "k", "secret": "s"}})[0] == 200


def patiently(done: Callable[[], object], within_s: float = 20) -> None:
    """Try until `done`."""
    give_up = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < give_up, "not in time"
        time.sleep(0.05)


class Halt:
    """One run of the installed `killswitch --revoke`, and when it said what.

    It asks for the touch, and then the operator reaches for the key for `think_s`: meanwhile
    vendors are imported and connections opened.
    """

    def __init__(self, world: World, *options: str, think_s: float = 1.5) -> None:
        self._process = subprocess.Popen(
            [KILLSWITCH, "--revoke", "--config", world.config_file, *options],
            env=home(world.folder),
            cwd=world.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[tuple[float, str]] = []
        self.err: list[tuple[float, str]] = []
        self._readers = [
            threading.Thread(target=_read, args=pair, daemon=True)
            for pair in ((self._process.stdout, self.out), (self._process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()
        self.touched_at = 0.0
        self.ended_at = 0.0
        patiently(lambda: any("to touch" in line for _, line in self.err))
        time.sleep(think_s)

    def touch(self) -> None:
        """Touch the software key."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.close()
        self.touched_at = time.time()

    def finish(self, timeout_s: float = 90) -> int:
        """Wait for the end and return the exit code."""
        try:
            self._process.wait(timeout_s)
        finally:
            self._process.kill()
        self.ended_at = time.time()
        for reader in self._readers:
            reader.join(5)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        return self._process.returncode

    @property
    def took_s(self) -> float:
        """Seconds from the touch to the end of the program."""
        return self.ended_at - self.touched_at

    @property
    def text(self) -> str:
        """Everything it said, for people and for machines."""
        return "\n".join(line for _, line in (*self.err, *self.out))

    @property
    def halted_at(self) -> float | None:
        """When it said HALTED, or None if it never did."""
        said = [at for at, line in self.out if line.startswith("HALTED")]
        return said[0] if said else None


def _read(pipe: IO[str], into: list[tuple[float, str]]) -> None:
    into.extend((time.time(), line.rstrip("\n")) for line in pipe)
