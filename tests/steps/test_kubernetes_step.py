"""The Kubernetes step against a cluster that holds its state in memory."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.model import Action, Plan, Receipt
from killswitch.steps.kubernetes import StopTrading
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool
from killswitch.steps.kubernetes_port import KINDS, Lock, Pod, Workload


@dataclass
class FakeCluster:
    """One namespace, "trading"; every other name is of a namespace that does not exist."""

    lock: Lock = Lock.MISSING
    running: dict[str, Pod] = field(default_factory=dict)
    wants: dict[str, dict[str, Workload]] = field(
        default_factory=lambda: {kind: {} for kind in KINDS}
    )
    scaled_by: dict[Tool, list[Reconciler]] = field(default_factory=dict)
    reconcilers: dict[Keeper, Reconciler] = field(default_factory=dict)
    selector: str = ""
    broken: dict[str, VendorError] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)

    @property
    def writes(self) -> "FakeWrites":
        return FakeWrites(self, dry_run=False)

    @property
    def rehearsal(self) -> "FakeWrites":
        return FakeWrites(self, dry_run=True)

    def lock_state(self, namespace: str) -> Lock:
        self.fail("quota")
        return self.lock if namespace == "trading" else Lock.MISSING

    def pods(self, namespace: str) -> tuple[Pod, ...]:
        self.fail("pods")
        return tuple(self.running.values()) if namespace == "trading" else ()

    def workloads(self, namespace: str, kind: str) -> tuple[Workload, ...]:
        self.fail(kind)
        return tuple(self.wants[kind].values()) if namespace == "trading" else ()

    def scalers(self, namespace: str, tool: Tool) -> tuple[Reconciler, ...]:
        self.fail(tool)
        return tuple(self.scaled_by.get(tool, ())) if namespace == "trading" else ()

    def reconciler(self, keeper: Keeper) -> Reconciler | None:
        self.fail(keeper.name)
        return self.reconcilers.get(keeper)

    def fail(self, part: str) -> None:
        if part in self.broken:
            raise self.broken[part]


@dataclass
class FakeWrites:
    cluster: FakeCluster
    dry_run: bool

    def lock(self, namespace: str) -> Receipt:
        if namespace != "trading":
            raise RefusedError(f"namespace {namespace!r} does not exist (404)")
        return self._do("lock", lambda: setattr(self.cluster, "lock", Lock.IN_FORCE))

    def delete_pods(self, namespace: str) -> Receipt:
        def end() -> None:
            for name, pod in list(self.cluster.running.items()):
                if pod.ending:
                    del self.cluster.running[name]
                else:
                    self.cluster.running[name] = replace(pod, ending=True)

        return self._do(f"delete {namespace}", end)

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        wants = self.cluster.wants[kind]
        zero = replace(wants[name], replicas=0)
        return self._do(f"scale {namespace}/{kind}/{name}", lambda: wants.update({name: zero}))

    def pause(self, keeper: Keeper) -> Receipt:
        def hold() -> None:
            if keeper in self.cluster.reconcilers:
                was = self.cluster.reconcilers[keeper]
                self.cluster.reconcilers[keeper] = replace(was, paused=True)
            listed = self.cluster.scaled_by.get(keeper.tool, [])
            listed[:] = [replace(it, paused=it.paused or it.keeper == keeper) for it in listed]

        return self._do(f"pause {keeper}", hold)

    def _do(self, what: str, change: Any) -> Receipt:
        self.cluster.log.append(f"dry run: {what}" if self.dry_run else what)
        if not self.dry_run:
            change()
        return Receipt(what)


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.running = {name: Pod(name, node="node-1") for name in ("bot-a", "bot-b")}
    cluster.wants["deployments"]["freqtrade"] = Workload("freqtrade", 2)
    return cluster


def step_on(cluster: FakeCluster, *namespaces: str) -> StopTrading:
    return StopTrading(cluster, "main", namespaces or ("trading",))


def live(plan: Plan) -> dict[str, Action]:
    return {action.target: action for action in plan.live}


def clear(plan: Plan) -> dict[str, bool]:
    return {clear.target: clear.only_if_known for clear in plan.clear}


def test_the_latch_and_the_deletes_come_first_and_the_sweep_comes_last(
    cluster: FakeCluster,
) -> None:
    step = step_on(cluster)
    done = []
    while plan := step.plan():
        if not plan.live:
            break
        phase = min(action.phase for action in plan.live)
        for action in plan.live:
            if action.phase == phase:
                done.append((phase, action.verb, action.target))
                action.perform()
    assert done == [
        (1, "delete", "trading/pods"),
        (1, "contain", "trading/quota"),
        (3, "stop", "trading/deployments/freqtrade"),
        (4, "delete again", "trading/pods"),
    ]
    assert clear(step.plan()) == {
        "trading/quota": False,
        "trading/pods": False,
        "trading/deployments/freqtrade": False,
    } | {f"trading/{kind}": False for kind in KINDS}


def test_a_look_changes_nothing(cluster: FakeCluster) -> None:
    step_on(cluster).plan()
    assert cluster.log == []


def test_a_rehearsal_makes_every_call_as_a_dry_run(cluster: FakeCluster) -> None:
    before = dict(cluster.running)
    for action in step_on(cluster).plan().live:
        action.rehearse()
    assert cluster.log == [
        "dry run: lock",
        "dry run: delete trading",
        "dry run: lock",
        "dry run: delete trading",
        "dry run: scale trading/deployments/freqtrade",
    ]
    assert (cluster.lock, cluster.running) == (Lock.MISSING, before)


def test_pods_that_are_ending_are_still_live_and_are_named(cluster: FakeCluster) -> None:
    cluster.lock = Lock.IN_FORCE
    cluster.running = {"bot-a": Pod("bot-a", node="node-7", ending=True)}
    action = live(step_on(cluster).plan())["trading/pods"]
    assert (action.phase, action.amount) == (4, 1)
    assert "bot-a on node-7" in action.perform().summary


def test_zero_replicas_are_no_evidence_while_a_pod_is_listed(cluster: FakeCluster) -> None:
    cluster.lock = Lock.IN_FORCE
    cluster.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0)
    assert set(live(step_on(cluster).plan())) == {"trading/pods"}


@pytest.mark.parametrize("lock", [Lock.MISSING, Lock.OTHER, Lock.PENDING])
def test_without_a_quota_that_holds_scaling_does_not_wait_for_the_deletes(
    cluster: FakeCluster, lock: Lock
) -> None:
    cluster.lock = lock
    actions = live(step_on(cluster).plan())
    assert actions["trading/pods"].phase <= actions["trading/deployments/freqtrade"].phase == 2


def test_without_a_quota_the_pods_are_deleted_before_their_controller_can(
    cluster: FakeCluster,
) -> None:
    live(step_on(cluster).plan())["trading/deployments/freqtrade"].perform()
    assert cluster.log == ["delete trading", "scale trading/deployments/freqtrade"]


def test_a_quota_with_another_spec_is_live(cluster: FakeCluster) -> None:
    cluster.lock = Lock.OTHER
    assert live(step_on(cluster).plan())["trading/quota"].phase == 1


def test_a_quota_that_is_not_in_force_is_live_but_holds_nothing_up(cluster: FakeCluster) -> None:
    cluster.lock = Lock.PENDING
    assert live(step_on(cluster).plan())["trading/quota"].phase == 4


def test_a_missing_namespace_is_never_clear(cluster: FakeCluster) -> None:
    plan = step_on(cluster, "tradign").plan()
    assert set(live(plan)) == {"tradign/quota"}
    assert all(clear(plan).values())
    with pytest.raises(RefusedError, match="does not exist"):
        plan.live[0].perform()


def test_no_pod_counts_only_beside_a_quota_that_was_seen(cluster: FakeCluster) -> None:
    cluster.running = {}
    cluster.wants["deployments"] = {}
    assert clear(step_on(cluster).plan())["trading/pods"] is True
    cluster.lock = Lock.IN_FORCE
    assert clear(step_on(cluster).plan())["trading/pods"] is False


def test_what_is_scaled_back_for_ever_is_clear_once_the_quota_holds(cluster: FakeCluster) -> None:
    cluster.lock = Lock.IN_FORCE
    cluster.running = {}
    plan = step_on(cluster).plan()
    assert plan.live == ()
    assert clear(plan)["trading/deployments/freqtrade"] is False
    assert any("may ask for pods again" in note.text for note in plan.notes)


@pytest.mark.parametrize("part", ["quota", "pods", "deployments", "statefulsets"])
def test_a_part_that_cannot_be_seen_is_blind_and_hides_no_other(
    cluster: FakeCluster, part: str
) -> None:
    cluster.broken[part] = RefusedError("not allowed (403)")
    plan = step_on(cluster).plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [(f"trading/{part}", True)]
    assert f"trading/{part}" not in {**live(plan), **clear(plan)}
    assert plan.live


def test_nothing_seen_at_all_raises_and_is_not_lasting_if_anything_may_change(
    cluster: FakeCluster,
) -> None:
    cluster.broken = dict.fromkeys(("quota", "pods"), RefusedError("not allowed (403)"))
    cluster.broken |= dict.fromkeys(KINDS, UnreachableError("no answer"))
    with pytest.raises(UnreachableError):
        step_on(cluster).plan()


def test_one_unreadable_namespace_costs_only_itself(cluster: FakeCluster) -> None:
    plan = step_on(cluster, "trading", "other").plan()
    assert {target.partition("/")[0] for target in live(plan)} == {"trading", "other"}


def test_a_pod_that_is_long_overdue_is_told(cluster: FakeCluster) -> None:
    cluster.running = {
        "bot-a": Pod("bot-a", node="node-7", ending=True, overdue_s=6),
        "bot-b": Pod("bot-b", node="node-1", ending=True, overdue_s=2),
    }
    told = [note.text for note in step_on(cluster).plan().notes]
    assert told == [
        "trading: pod bot-a on node-7: stop not confirmed; its process may still run",
    ]


def test_who_may_scale_back_is_told(cluster: FakeCluster) -> None:
    keeper = Keeper(Tool.ARGOCD, "bots", "argocd")
    cluster.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0, (keeper,))
    (note,) = step_on(cluster).plan().notes
    assert "Argo CD application argocd/bots may ask for pods again in trading" in note.text
    assert note.hint.startswith("kubectl --namespace argocd annotate application bots argocd.")


def test_who_is_left_is_named_up_to_a_bound(cluster: FakeCluster) -> None:
    cluster.running = {str(n): Pod(f"bot-{n}") for n in range(11)}
    summary = live(step_on(cluster).plan())["trading/pods"].perform().summary
    assert summary.endswith("bot-7 on no node and 3 more")


def test_a_step_without_namespaces_clears_nothing(cluster: FakeCluster) -> None:
    assert StopTrading(cluster, "main", ()).plan() == Plan()
