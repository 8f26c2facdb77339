"""Run the halt of synced secrets many times against real servers; see scripts/synced-runs."""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from killswitch.model import HaltReport
from tests.real.synced import SyncedBot
from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets
from tests.servers.vault_server import DevVault

LOOKS_AFTER_S = 20.0
LEFT = ({"store-token"}, set[str]())


def main(runs: int) -> int:
    """Do all runs, tell each, and return the exit code: 0 when nothing came back in any."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ControlPlane(Path(folder) / "control-plane") as control_plane,
        DevVault(Path(folder) / "vault") as vault,
        ExternalSecrets(control_plane, Path(folder) / "operator"),
    ):
        halted: list[tuple[SyncedBot, HaltReport, float]] = []
        for number in range(1, runs + 1):
            name = f"run-{number}"
            control_plane.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            bot = SyncedBot(control_plane, vault, name)
            bot.set_up()
            report = bot.halt(bot.steps())
            halted.append((bot, report, time.monotonic()))
            print(f"{name}: {verdict(report)}", flush=True)
        bad = [bot.namespace for bot, report, at in halted if not stays(bot, report, at)]
    verified = [report.verified_s for _, report, _ in halted if report.verified_s is not None]
    if verified:
        low, high = min(verified), max(verified)
        print(f"verified: median {statistics.median(verified):.2f} s ({low:.2f} to {high:.2f})")
    print(f"{runs - len(bad)} of {runs} with nothing left and nothing back after 20 s: bad {bad}")
    return 1 if bad else 0


def verdict(report: HaltReport) -> str:
    """Say in one line how a run went."""
    vault = report.results[1]
    wipes = max((len(target.attempts) for target in vault.targets), default=0)
    word = "halted" if report.halted else "NOT HALTED"
    return f"{word}, verified in {report.verified_s or 0:.2f} s, Vault wiped {wipes} times"


def stays(bot: SyncedBot, report: HaltReport, at: float) -> bool:
    """Whether all is still gone, `LOOKS_AFTER_S` after the halt at the earliest."""
    time.sleep(max(0.0, at + LOOKS_AFTER_S - time.monotonic()))
    seen = (bot.secrets(), bot.in_vault())
    if seen != LEFT or bot.makers():
        print(f"{bot.namespace}: came back or was left: {seen} {bot.makers()}")
    return report.halted and seen == LEFT and not bot.makers()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
