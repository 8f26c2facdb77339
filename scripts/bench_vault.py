"""How long a real Vault on raft storage takes to be wiped, by mount and by path: run by hand.

Each time through the step and the engine, with the deployed rights. Needs what
`scripts/servers build` makes.

    .venv/bin/python -m scripts.bench_vault [SECRETS]
"""

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from killswitch.converge import Limits
from killswitch.halt import Assignment, carry_out
from killswitch.model import Mode, StepResult
from killswitch.runner import Runner
from killswitch.steps.vault import WipeSecrets
from killswitch.verdict import Intent
from tests.contract.vault_bench import VaultBench
from tests.engine.simulator import make_order
from tests.servers.vault_server import RaftVault

SECRETS = 10_000
LIMITS = Limits(deadline_s=300, patience_s=60, stay_down_s=2)


def wiped(bench: VaultBench, *, paths: tuple[str, ...] = (), mounts: tuple[str, ...] = ()) -> float:
    """Wipe, and print how it went; return the seconds until it was first read back clean."""
    result = _carried_out(WipeSecrets(bench.client(), "raft", paths, mounts))
    for target in result.targets:
        print(f"   {target.outcome:<9} {target.target}: {target.saw}")
        for attempt in target.attempts:
            told = attempt.summary or attempt.error
            print(f"      {attempt.started_s:6.2f} to {attempt.ended_s:6.2f} s: {told}")
    return result.verified_s or float("nan")


def _carried_out(step: WipeSecrets) -> StepResult:
    assignment = Assignment(
        order=make_order(Mode.LIVE),
        proof=None,
        intent=Intent.PERFORM,
        steps=(step,),
        started_at=datetime.now(UTC),
    )
    return Runner().run(lambda now: carry_out(assignment, LIMITS, now)).results[0]


def main(count: int) -> None:
    """Fill and wipe a mount, in each way."""
    names = [f"d{number % 50}/s{number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as folder, RaftVault(Path(folder) / "vault") as vault:
        bench = VaultBench(vault.address, vault.root_token)
        for way in ("mount", "path"):
            began = time.monotonic()
            mount = bench.mount(2, names)
            print(f"{count} secrets on raft, written in {time.monotonic() - began:.0f} s")
            took = wiped(bench, mounts=(mount,)) if way == "mount" else wiped(bench, paths=(mount,))
            print(f"by {way}: read back clean after {took:.1f} s", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else SECRETS)
