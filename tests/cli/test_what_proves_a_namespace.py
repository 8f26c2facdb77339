"""A drill passes for a namespace without PushSecrets, and never for one that is a typo."""

from pathlib import Path

import pytest

from tests.cli.test_odd_configurations import only
from tests.worlds import killswitch, running_world

PUSHING = {"pushsecrets", "clusterpushsecrets"}
ALL = PUSHING | {"externalsecrets", "clusterexternalsecrets", "secretstores"}


@pytest.mark.parametrize("removed", [PUSHING, ALL], ids=["only-pulls", "only-secrets"])
def test_a_namespace_that_is_found_passes_its_drill_and_is_halted(
    tmp_path: Path, removed: set[str]
) -> None:
    with running_world(tmp_path) as world:
        world.config_file.write_text(only(world.config_file.read_text(), "synced_secrets"))
        config = ["--yes", "--config", str(world.config_file)]
        things = world.kubernetes.synced.things
        for key in [key for key in things if key[0] in removed]:
            del things[key]
        drill = killswitch(["drill", *config], tmp_path)
        assert (drill.code, drill.out.split()[:2]) == (0, ["DRILL", "PASSED"]), drill.err
        halt = killswitch(["--revoke", *config], tmp_path)
        assert (halt.code, halt.out.split()[0]) == (0, "HALTED"), halt.err + halt.out
        assert world.kubernetes.live_secrets() == []


@pytest.mark.parametrize(
    ("right", "typo", "said"),
    [
        ('"trading', '"tradign', "tradign/pushsecrets: none is left; nothing is there"),
        ("/desk-webhook", "/desk-webhok", "trading/secrets/desk-webhok: gone"),
    ],
)
def test_a_typo_is_never_passed_or_halted(tmp_path: Path, right: str, typo: str, said: str) -> None:
    with running_world(tmp_path) as world:
        text = only(world.config_file.read_text(), "synced_secrets")
        world.config_file.write_text(text.replace(right, typo))
        config = ["--yes", "--config", str(world.config_file)]
        things = world.kubernetes.synced.things
        for key in [key for key in things if key[0] in PUSHING]:
            del things[key]
        drill = killswitch(["drill", *config], tmp_path)
        assert drill.code == 8, drill.err
        assert said in " ".join(drill.out.split())
        halt = killswitch(["--revoke", *config], tmp_path)
        assert halt.code == 11, halt.err + halt.out
