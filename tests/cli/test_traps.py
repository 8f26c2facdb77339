"""Every trap of the sandbox, one at a time, through the installed executable.

The journal knows the world from an earlier drill: an absence could pass for evidence, and must not.
Each run is followed by a second one with the trap off and, as the runbook says, a new master key
where the first one deleted its own: running again is the repair.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from killswitch.sandbox.world import all_traps
from tests.worlds import Ran, killswitch, new_own_key, running_world, secrets_of

TRAPS = sorted(all_traps())
AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Trapped:
    """What one run in a trap, and one after it, said; and what was live then."""

    ran: Ran
    live: dict[str, list[str]]
    again: Ran
    live_again: dict[str, list[str]]
    leaked: list[str]


def halt_in_trap(trap: str, folder: Path) -> Trapped:
    folder.mkdir()
    with running_world(folder, stay_down_s=1.2, patience_s=2.0) as world:
        config = ["--yes", "--config", str(world.config_file)]
        drill = killswitch(["drill", *config], folder)
        assert drill.code == 0, drill.out + drill.err
        vendor, _, name = trap.partition("-")
        server = next(server for server in world.servers if server.name == vendor)
        server.traps.add(name)
        ran = killswitch(["--revoke", "--deadline", "20", *config], folder)
        live = world.live()
        server.traps.clear()
        secrets = secrets_of(world)
        if world.bybit.master_key not in world.bybit.books.keys:
            new_own_key(world)
        again = killswitch(["--revoke", "--deadline", "20", *config], folder)
        said = ran.out + ran.err + again.out + again.err
        leaked = [secret for secret in {*secrets, *secrets_of(world)} if secret in said]
        return Trapped(ran, live, again, world.live(), leaked)


@pytest.fixture(scope="module")
def trapped(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Trapped]]]:
    """Start every trap that a test asks for, a few at once: most of their time is waiting."""
    calls = [getattr(item, "callspec", None) for item in request.session.items]
    wanted = dict.fromkeys(call.params["trap"] for call in calls if call and "trap" in call.params)
    base = tmp_path_factory.mktemp("traps")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            trap: pool.submit(halt_in_trap, trap, base / trap) for trap in wanted if trap in TRAPS
        }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("trap", TRAPS)
def test_no_trap_makes_it_say_halted_while_something_is_live(
    trap: str, trapped: dict[str, Future[Trapped]]
) -> None:
    seen = trapped[trap].result()
    assert seen.ran.code in {0, 5, 10, 11}, seen.ran
    if seen.live:
        assert seen.ran.code in {10, 11}, f"live: {seen.live}\n{seen.ran.out}"
        assert seen.ran.out.startswith("NOT HALTED")
    assert (seen.ran.code in {0, 5}) is seen.ran.out.startswith("HALTED"), seen.ran.out
    assert "Traceback" not in seen.ran.err
    assert seen.leaked == []


@pytest.mark.timeout(900)
@pytest.mark.parametrize("trap", TRAPS)
def test_running_again_without_the_trap_is_the_repair(
    trap: str, trapped: dict[str, Future[Trapped]]
) -> None:
    seen = trapped[trap].result()
    assert seen.live_again == {}, f"{seen.again.out}\nfirst: {seen.ran.out}"
    assert seen.again.code == 0, f"{seen.again.out}\nfirst: {seen.ran.out}"
