"""Measure a halt of a real cluster and a real Vault; see scripts/bench."""

import secrets
import statistics
import sys
import tempfile
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from bench import run_plain, spread

from killswitch.sandbox.world import World
from tests.contract.kubernetes_bench import RealBench, Seed, at
from tests.halting import Halt, aim_at_cluster, aim_at_vault, replace_section
from tests.servers.control_plane import ControlPlane
from tests.servers.fake_node import FakeNode
from tests.servers.fixtures import Cluster
from tests.servers.node import Node, why_no_node
from tests.servers.vault_server import DevVault
from tests.worlds import running_world

DESK = (Seed("Deployment", "freqtrade", 2), Seed("StatefulSet", "hedger", 1))
SECRETS = 20
CLUSTERS, DEPLOYMENTS = 5, 200


def halt_s(cluster: Cluster, vault: DevVault) -> tuple[float, float, float]:
    """Return touch to the last process's end, to verified, and to HALTED, of one halt."""
    bench = RealBench(cluster)
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder)) as world:
        space, mount = bench.namespace(*DESK), f"bench-{secrets.token_hex(4)}"
        aim_at_cluster(world, bench.kubeconfig(world.folder), "bench", [space])
        aim_at_vault(world, vault, mount, SECRETS)
        halt = halted(world)
        demand_halted(bench, [space], vault, mount)
    ends = [
        event.t
        for event in cluster.node.truth()
        if (event.namespace, event.event) == (space, "exited")
    ]
    said = halt.halted_at or 0.0
    return max(ends) - halt.touched_at, verified_s(halt), said - halt.touched_at


def plain_s(cluster: Cluster, vault: DevVault) -> float:
    """Return the seconds of the plain script, its imports left out."""
    bench = RealBench(cluster)
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder)) as world:
        space, mount = bench.namespace(*DESK), f"bench-{secrets.token_hex(4)}"
        aim_at_vault(world, vault, mount, SECRETS)
        seconds = run_plain(
            world,
            kubeconfig=str(bench.kubeconfig(world.folder)),
            namespace=space,
            vault=vault.address,
            vault_token=vault.root_token,
            mount=mount,
        )
        demand_halted(bench, [space], vault, mount)
    return seconds


def many_s(cluster: Cluster) -> tuple[float, float]:
    """Return touch to verified and to HALTED of many deployments in several clusters."""
    bench = RealBench(cluster)
    each = DEPLOYMENTS // CLUSTERS
    seeds = [Seed("Deployment", f"bot-{number}") for number in range(each)]
    spaces = [bench.namespace(*seeds, within_s=180) for _ in range(CLUSTERS)]
    with tempfile.TemporaryDirectory() as folder, running_world(Path(folder)) as world:
        kubeconfig = bench.kubeconfig(world.folder)
        lines: list[str] = []
        for number, space in enumerate(spaces):
            lines += [
                "[[kubernetes]]",
                f'name = "cluster-{number}"',
                f'kubeconfig = "{kubeconfig}"',
                'context = "bench"',
                f'namespaces = ["{space}"]',
            ]
        replace_section(world, "kubernetes", lines)
        halt = halted(world)
        demand_halted(bench, spaces)
    return verified_s(halt), (halt.halted_at or 0.0) - halt.touched_at


def halted(world: World) -> Halt:
    """Halt the world with one touch."""
    halt = Halt(world)
    halt.touch()
    if halt.finish() != 0:
        raise RuntimeError(halt.text)
    return halt


def verified_s(halt: Halt) -> float:
    """Return what it said itself: "HALTED  verified in 2.9 s, looked at again after 0.5 s"."""
    (line,) = [line for _, line in halt.out if line.startswith("HALTED")]
    return float(line.split()[3])


def demand_halted(
    bench: RealBench, spaces: Sequence[str], vault: DevVault | None = None, mount: str = ""
) -> None:
    """Stop when something is left."""
    left = [pod for space in spaces for pod in bench.ask("GET", at("pods", space)).items]
    kept = vault and vault.send("LIST", f"{mount}/metadata/bots")[0] == HTTPStatus.OK
    if left or kept:
        raise RuntimeError("not halted")


def main() -> None:
    """Start the servers, measure in turn, and print."""
    runs = int(sys.argv[1])
    kept = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    with kept as folder, ControlPlane(Path(folder) / "plane") as plane:
        played = why_no_node()
        joining = FakeNode(plane) if played else Node(plane)
        with joining as node, DevVault(Path(folder) / "vault") as vault:
            cluster = Cluster(plane, node)
            measure_side_by_side(cluster, vault, runs)
    print(f"the node was {'played: ' + played if played else 'a real kubelet'}")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        ControlPlane(Path(folder)) as plane,
        FakeNode(plane) as node,
    ):
        measured = [many_s(Cluster(plane, node)) for _ in range(min(runs, 3))]
    print(f"{DEPLOYMENTS} deployments in {CLUSTERS} clusters, on a played node:")
    print(f"touch to verified           {spread([one for one, _ in measured])}")
    print(f"touch to HALTED             {spread([one for _, one in measured])}")


def measure_side_by_side(cluster: Cluster, vault: DevVault, runs: int) -> None:
    """Print our halts beside those of the plain script, in pairs."""
    pairs = [(halt_s(cluster, vault), plain_s(cluster, vault)) for _ in range(runs + 1)][1:]
    print(f"real cluster, real Vault, {SECRETS} secrets; median of {runs} runs (lowest to highest)")
    print(f"touch to the last process   {spread([halt[0] for halt, _ in pairs])}")
    print(f"touch to verified           {spread([halt[1] for halt, _ in pairs])}")
    print(f"touch to HALTED             {spread([halt[2] for halt, _ in pairs])}")
    print(f"the plain script            {spread([plain for _, plain in pairs])}")
    ratios = sorted(halt[1] / plain for halt, plain in pairs)
    print(
        f"killswitch / plain script   {statistics.median(ratios):7.2f}     "
        f"({ratios[0]:.2f} to {ratios[-1]:.2f}), pair by pair"
    )


if __name__ == "__main__":
    main()
