"""What every check stands on: the sandbox's servers, a configuration as for real ones, the keys."""

import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

from runs import Run, WrongError, answer
from softkeys import RP_ID, Key

KILLSWITCH = Path(sys.executable).with_name("killswitch")
PATIENT = ("--deadline", "55", "--touch-timeout", "120")
"""Options of the commands that take a touch: an emulated processor is slow."""
RUN_S = 180.0
_START_S = 120.0
_PATIENCE_S = 25.0
_TURN_S = 0.1
_NOBODY = 65534


class Stage:
    """The folder with the configuration, three keys, and the programs started so far."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.all_systems = folder / "all.toml"
        self.one_system = folder / "one.toml"
        self.journal = folder / "journal.db"
        self.ring = folder / "real-keys.json"
        self.runs: list[Run] = []
        self.sandbox = Run([KILLSWITCH, "sandbox", "--folder", folder])
        self.alpha = Key("alpha")
        self.beta = Key("beta")
        self.mute = Key("mute", "--silent")
        try:
            self.sandbox.wait_for("in a second terminal", timeout_s=_START_S)
        except WrongError as error:
            raise WrongError(f"{error}\n{self.sandbox.text}") from None
        text = self._as_for_real((folder / "killswitch.toml").read_text())
        head, *systems = text.split("\n[[")
        kakunin = [system for system in systems if system.startswith("kakunin]]")]
        for file, kept in (self.all_systems, systems), (self.one_system, kakunin):
            file.write_text("\n[[".join([head, *kept]))
            file.chmod(0o600)
        self.systems = len(re.findall(r"(?m)^\[\[\w+\]\]$", text))
        """How many systems there are in all."""

    @property
    def keys(self) -> tuple[Key, ...]:
        """All keys."""
        return (self.alpha, self.beta, self.mute)

    def plugged(self, *keys: Key) -> None:
        """Leave exactly these keys plugged in."""
        for key in self.keys:
            if key not in keys:
                key.unplug()
        for key in keys:
            key.plug()

    def killswitch(self, *words: str, config: Path | None = None) -> Run:
        """Start killswitch, as a rule with the configuration that has all systems."""
        run = Run([KILLSWITCH, *words, "--config", config or self.all_systems])
        self.runs.append(run)
        return run

    def drill(self) -> Run:
        """Start a drill of one system: what is looked at is the touch before it."""
        return self.killswitch("drill", *PATIENT, config=self.one_system)

    def drill_without_rights(self, device: Path) -> Run:
        """Start a drill of somebody who may do nothing more than any user; not open the device.

        Not as nobody: this tree and its Python may be in folders that are their owner's alone.
        """
        os.chown(device, _NOBODY, _NOBODY)
        device.chmod(0o600)
        owner = KILLSWITCH.stat()
        folder = Path(tempfile.mkdtemp(prefix="user-"))
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        for path in (folder, *folder.rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)
        who = (f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", "--clear-groups")
        run = Run(
            [
                *("setpriv", *who, "--bounding-set=-all", "--inh-caps=-all"),
                *(KILLSWITCH, "drill", "--touch-timeout", "5"),
                *("--config", folder / self.one_system.name),
            ],
            environment={"HOME": str(folder)},
        )
        self.runs.append(run)
        return run

    def enrol(self) -> None:
        """Enrol both keys, each plugged in alone, and do what the screen says."""
        offered = answer([KILLSWITCH, "keys", "enroll", "--help"])
        for key in (self.alpha, self.beta):
            words = ["--label", key.label, "--operator", f"operator of {key.label}"]
            if key is self.alpha and "--accept-single-key" in offered:
                words.append("--accept-single-key")
            self.plugged(key)
            run = self.killswitch("keys", "enroll", *words)
            self._obey(run, key)
            run.demand(0, timeout_s=1)

    def _obey(self, run: Run, new: Key) -> None:
        """Touch every key that blinks; plug in an enrolled one as soon as it is asked for."""
        until = time.monotonic() + RUN_S
        while not run.over and time.monotonic() < until:
            for key in (self.alpha, self.beta):
                key.touch_if_blinking()
                if key is not new and f'"{key.label}"' in run.text:
                    key.plug()
            time.sleep(_TURN_S)

    def told(self) -> list[str]:
        """Return what the programs of this check said, and what happened to the keys."""
        runs = [f"{run.name}\n{run.text}" for run in self.runs]
        bugs = list(Path(tempfile.gettempdir()).glob("killswitch-bug-*.txt"))
        texts = [bug.read_text() for bug in bugs]
        for bug in bugs:
            bug.unlink()
        return [*runs, *texts, *(key.story() for key in self.keys)]

    def end_runs(self) -> None:
        """End what a check left behind."""
        for run in self.runs:
            run.end()
        self.runs.clear()

    def _as_for_real(self, text: str) -> str:
        """Turn the sandbox's configuration into one that wants real keys."""
        for pattern, wanted in (
            (r"\[sandbox\]\n(?:.+\n)*", ""),
            (r'name = "sandbox"', 'name = "e2e"'),
            (r"patience_s = .*", f"patience_s = {_PATIENCE_S}"),
            (r"rp_id = .*\nfile = .*", f'rp_id = "{RP_ID}"\nfile = "{self.ring.name}"'),
            (
                r"\[journal\]\nfile = .*\nfallback = .*",
                f'[journal]\nfile = "{self.journal.name}"\nfallback = "fallback.jsonl"',
            ),
        ):
            text, count = re.subn(pattern, wanted, text)
            if count != 1:
                raise WrongError(f"the sandbox's configuration has {count} times {pattern}")
        return text
