"""Our own client and step, through the engine, against the sandbox's cluster and a real one."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from killswitch.config import load_config
from killswitch.converge import Limits
from killswitch.model import Outcome, Step, StepResult
from killswitch.sandbox.world import World
from killswitch.sources import Sources
from killswitch.verdict import Intent
from killswitch.wiring import units
from tests.contract.kubernetes_bench import LOCK, MERGE, Bench, Seed, at
from tests.halting import aim_at_cluster
from tests.steps import test_contract
from tests.steps.test_contract import MESSAGE, targets
from tests.worlds import running_world

Make = Callable[..., Step]
# A real kubelet takes its time: two seconds to kill, and more until the list is empty. A cluster
# that learns of new kinds puts no quota in force for up to half a minute.
LIMITS = Limits(
    deadline_s=55, wrap_up_s=1, look_s=6, act_s=6, phase_s=5, patience_s=40, stay_down_s=0.4
)
run = partial(test_contract.run, limits=LIMITS)
KINDS = ("deployments", "statefulsets", "daemonsets", "jobs", "cronjobs")
DESK = (
    Seed("Deployment", "freqtrade", 2),
    Seed("StatefulSet", "hedger"),
    Seed("DaemonSet", "collector"),
    Seed("Job", "backfill"),
    Seed("CronJob", "rebalance"),
    Seed("Pod", "debug"),
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with running_world(tmp_path) as world:
        yield world


@pytest.fixture
def make(bench: Bench, world: World, tmp_path: Path) -> Make:
    def make(*namespaces: str, may_write: bool = True, token: str = "") -> Step:
        kubeconfig = bench.kubeconfig(tmp_path)
        if token:
            file = json.loads(kubeconfig.read_text())
            file["users"][0]["user"]["token"] = token
            kubeconfig.write_text(json.dumps(file))
        aim_at_cluster(world, kubeconfig, "bench", namespaces)
        config = load_config(world.config_file)
        parts = units(config, Sources(config.resolve, {}))
        unit = next(unit for unit in parts if unit.kind == "kubernetes")
        return unit.step(lambda: MESSAGE, may_write=may_write)

    return make


def state(bench: Bench, space: str) -> list[object]:
    """Return what must be the same when nothing was changed."""
    pods = bench.ask("GET", at("pods", space)).items
    specs = [
        (item["metadata"]["uid"], item["metadata"]["generation"], item["spec"])
        for kind in KINDS
        for item in bench.ask("GET", at(kind, space)).items
    ]
    quotas = bench.ask("GET", at("resourcequotas", space)).items
    pods = [(pod["metadata"]["uid"], pod["metadata"].get("deletionTimestamp")) for pod in pods]
    return [pods, specs, quotas]


def outcomes(result: StepResult) -> dict[str, Outcome]:
    return {target.target: target.outcome for target in result.targets}


def test_a_plan_changes_nothing_and_says_the_same_things_twice(bench: Bench, make: Make) -> None:
    space = bench.namespace(*DESK)
    before = state(bench, space)
    step = make(space)
    first, second = step.plan(), step.plan()
    assert first.blind == ()
    assert targets(first) == targets(second)
    assert {action.target for action in first.live} >= {
        f"{space}/quota",
        f"{space}/pods",
        f"{space}/deployments/freqtrade",
        f"{space}/statefulsets/hedger",
        f"{space}/daemonsets/collector",
        f"{space}/jobs/backfill",
        f"{space}/cronjobs/rebalance",
    }
    assert state(bench, space) == before


def test_a_halt_ends_every_pod_of_every_kind_and_a_second_one_finds_that(
    bench: Bench, make: Make
) -> None:
    space = bench.namespace(*DESK)
    result = run(make(space), Intent.PERFORM)
    assert result.outcome is Outcome.VERIFIED, outcomes(result)
    assert bench.ask("GET", at("pods", space)).items == []
    again = run(make(space), Intent.PERFORM, known=frozenset(outcomes(result)))
    assert set(outcomes(again).values()) == {Outcome.ALREADY}


def test_a_rehearsal_finds_everything_and_changes_nothing(bench: Bench, make: Make) -> None:
    space = bench.namespace(*DESK)
    before = state(bench, space)
    result = run(make(space, may_write=False), Intent.REHEARSE)
    assert result.outcome is Outcome.REHEARSED, outcomes(result)
    assert state(bench, space) == before


def test_a_scaler_that_never_gives_up_gets_no_pod(bench: Bench, make: Make) -> None:
    space = bench.namespace(Seed("Deployment", "freqtrade", 2))
    result = run(make(space), Intent.PERFORM)
    assert result.outcome is Outcome.VERIFIED, outcomes(result)
    up = {"spec": {"replicas": 3}}
    path = at("deployments", space, "freqtrade", "scale")
    assert bench.ask("PATCH", path, up, content_type=MERGE).code == 200
    plan = make(space).plan()
    assert {clear.target for clear in plan.clear} >= {f"{space}/pods", f"{space}/quota"}
    assert bench.ask("GET", at("pods", space)).items == []


def test_a_quota_of_that_name_that_allows_pods_is_mended(bench: Bench, make: Make) -> None:
    space = bench.namespace(Seed("Deployment", "freqtrade"))
    bench.ask("POST", at("resourcequotas", space), LOCK | {"spec": {"hard": {"pods": "9"}}})
    result = run(make(space), Intent.PERFORM)
    assert result.outcome is Outcome.VERIFIED, outcomes(result)
    quota = bench.ask("GET", at("resourcequotas", space, "killswitch-lock")).body
    assert quota["spec"]["hard"] == {"pods": "0"}


def test_a_quota_of_that_name_that_cannot_be_mended_keeps_nothing_else_from_being_stopped(
    bench: Bench, make: Make
) -> None:
    space = bench.namespace(Seed("Deployment", "freqtrade"))
    spec = {"hard": {"pods": "0"}, "scopes": ["Terminating"]}
    bench.ask("POST", at("resourcequotas", space), LOCK | {"spec": spec})
    result = run(make(space), Intent.PERFORM)
    assert not result.outcome.ended
    told = {target.target: target.saw for target in result.targets}
    assert "has scopes" in told[f"{space}/quota"]
    # No quota keeps pods out, so what asks for them is stopped: none takes their place.
    [deployment] = bench.ask("GET", at("deployments", space)).items
    assert deployment["spec"]["replicas"] == 0


def test_a_namespace_that_does_not_exist_is_never_taken_for_halted(make: Make) -> None:
    result = run(make("tradign"), Intent.PERFORM)
    assert not result.outcome.ended
    assert "tradign/quota" in outcomes(result)


def test_a_token_that_nobody_knows_ends_nothing_and_says_so(bench: Bench, make: Make) -> None:
    space = bench.namespace(Seed("Pod", "bot"))
    result = run(make(space, token="nobody-knows-it"), Intent.PERFORM)
    assert not result.outcome.ended
    assert "401" in result.error
    assert len(bench.ask("GET", at("pods", space)).items) == 1
