"""Measure killswitch on this machine; see scripts/bench."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from killswitch.sandbox.world import World

KILLSWITCH = Path(sys.executable).with_name("killswitch")
PLAIN = Path(__file__).with_name("plain_halt.py")


def spread(seconds: list[float]) -> str:
    """Return median, lowest and highest in words."""
    low, high = min(seconds), max(seconds)
    return f"{statistics.median(seconds) * 1e3:7.0f} ms  ({low * 1e3:.0f} to {high * 1e3:.0f})"


def environment(folder: str) -> dict[str, str]:
    """Return an environment in which nothing of this user's own is found."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": folder,
        "XDG_STATE_HOME": f"{folder}/state",
        "XDG_DATA_HOME": f"{folder}/data",
        "XDG_CONFIG_HOME": f"{folder}/config",
        "LANG": "C.UTF-8",
    }


@contextmanager
def world() -> Iterator[World]:
    """Run a fresh world in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        with World.running(path, now=datetime.now(UTC), journal=path / "journal.db") as running:
            yield running


def help_s() -> float:
    """Return the seconds that `killswitch --help` takes."""
    began = time.monotonic()
    subprocess.run([KILLSWITCH, "--help"], stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - began


def interpreter_s() -> float:
    """Return the seconds that Python takes to do nothing, to compare with."""
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    return time.monotonic() - began


def first_line_s() -> float:
    """Return the seconds until `killswitch --revoke` has printed its first line."""
    with world() as running:
        began = time.monotonic()
        process = subprocess.Popen(
            [KILLSWITCH, "--revoke", "--config", running.config_file],
            env=environment(str(running.folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        if process.stderr is None:
            raise RuntimeError("no pipe")
        process.stderr.readline()
        seconds = time.monotonic() - began
        process.kill()
        process.communicate()
    return seconds


def halt_s(think_s: float) -> tuple[float, float]:
    """Return touch to first read back clean, and touch to the end, of one whole halt.

    The operator reaches for the key for `think_s`, while vendors are imported.
    """
    with world() as running:
        process = subprocess.Popen(
            [KILLSWITCH, "--revoke", "--json", "--quiet", "--config", running.config_file],
            env=environment(str(running.folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        time.sleep(think_s)
        out, _ = process.communicate("\n", timeout=60)
        report = json.loads(out)
        if not report["halted"] or running.live():
            raise RuntimeError(f"not halted: {running.live()}")
    return report["verified_s"], report["elapsed_s"]


def run_plain(running: World, **where: str) -> float:
    """Return the seconds of the plain script in a world; `where` names its cluster and Vault."""
    held = next(iter(running.bybit.held.values()))
    described = {
        "bybit": running.bybit.url,
        "master": [running.bybit.master_key, running.bybit.master_secret],
        "held": list(held),
        "kakunin": running.kakunin.base_url,
        "kakunin_key": running.kakunin.api_key,
        "agents": sorted(running.kakunin.agents),
        "synced_kubeconfig": str(running.folder / "kubeconfig.yaml"),
        "synced": ["freqtrade-bybit", "hedger-bybit", "desk-webhook"],
        **where,
    }
    file = running.folder / "world.json"
    file.write_text(json.dumps(described))
    done = subprocess.run(
        [sys.executable, PLAIN, file], capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode != 0:
        raise RuntimeError(f"the plain script failed: {done.stderr[-600:]}")
    return float(done.stdout)


def plain_s() -> float:
    """Return the seconds of the plain script, its imports left out."""
    with world() as running:
        seconds = run_plain(
            running,
            kubeconfig=str(running.folder / "kubeconfig.yaml"),
            namespace="trading",
            vault=running.vault.url,
            vault_token=running.vault.token,
            mount="trading",
        )
        if running.live():
            raise RuntimeError(f"not halted: {running.live()}")
    return seconds


def repeat(measure: Callable[[], float], runs: int) -> list[float]:
    """Return `runs` measurements after one that does not count."""
    measure()
    return [measure() for _ in range(runs)]


def main() -> None:
    """Measure, in turn, and print."""
    runs = int(sys.argv[1])
    print(f"median of {runs} runs (lowest to highest)")
    bare, help_ = repeat(interpreter_s, runs), repeat(help_s, runs)
    print(f"python -c pass              {spread(bare)}")
    print(f"killswitch --help           {spread(help_)}")
    print(f"--revoke, its first line    {spread(repeat(first_line_s, runs))}")
    pairs = [(halt_s(2.0), plain_s()) for _ in range(runs + 1)][1:]
    verified = [halt[0] for halt, _ in pairs]
    plain = [plain for _, plain in pairs]
    print(f"touch to verified           {spread(verified)}")
    print(f"  and looked at again       {spread([halt[1] for halt, _ in pairs])}")
    print(f"the plain script            {spread(plain)}")
    ratios = sorted(one / other for one, other in zip(verified, plain, strict=True))
    print(
        f"killswitch / plain script   {statistics.median(ratios):7.2f}     "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), pair by pair"
    )


if __name__ == "__main__":
    main()
