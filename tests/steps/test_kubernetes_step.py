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
    fake: FakeCluster
    dry_run: bool

    def lock(self, namespace: str) -> Receipt:
        if namespace != "trading":
            raise RefusedError(f"namespace {namespace!r} does not exist (404)")
        self.fake.fail("lock")
        return self._do("lock", lambda: setattr(self.fake, "lock", Lock.IN_FORCE))

    def delete_pods(self, namespace: str) -> Receipt:
        def end() -> None:
            for name, pod in list(self.fake.running.items()):
                if pod.ending:
                    del self.fake.running[name]
                else:
                    self.fake.running[name] = replace(pod, ending=True)

        return self._do(f"delete {namespace}", end)

    def scale_to_zero(self, namespace: str, kind: str, name: str) -> Receipt:
        wants = self.fake.wants[kind]
        zero = replace(wants[name], replicas=0)
        return self._do(f"scale {namespace}/{kind}/{name}", lambda: wants.update({name: zero}))

    def pause(self, keeper: Keeper) -> Receipt:
        def hold() -> None:
            if keeper in self.fake.reconcilers:
                was = self.fake.reconcilers[keeper]
                self.fake.reconcilers[keeper] = replace(was, paused=True)
            listed = self.fake.scaled_by.get(keeper.tool, [])
            listed[:] = [replace(it, paused=it.paused or it.keeper == keeper) for it in listed]

        return self._do(f"pause {keeper}", hold)

    def _do(self, what: str, change: Any) -> Receipt:
        self.fake.log.append(f"dry run: {what}" if self.dry_run else what)
        if not self.dry_run:
            change()
        return Receipt(what)


@pytest.fixture
def fake() -> FakeCluster:
    fake = FakeCluster()
    fake.running = {name: Pod(name, node="node-1") for name in ("bot-a", "bot-b")}
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 2)
    return fake


def step_on(fake: FakeCluster, *namespaces: str) -> StopTrading:
    return StopTrading(fake, "main", namespaces or ("trading",))


def live(plan: Plan) -> dict[str, Action]:
    return {action.target: action for action in plan.live}


def clear(plan: Plan) -> dict[str, bool]:
    return {clear.target: clear.only_if_known for clear in plan.clear}


def test_the_latch_and_the_deletes_come_first_and_the_sweep_comes_last(
    fake: FakeCluster,
) -> None:
    step = step_on(fake)
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
        "trading/late pods": False,
        "trading/deployments/freqtrade": False,
    } | {f"trading/{kind}": False for kind in KINDS}


def test_a_look_changes_nothing(fake: FakeCluster) -> None:
    step_on(fake).plan()
    assert fake.log == []


def test_a_rehearsal_makes_every_call_as_a_dry_run(fake: FakeCluster) -> None:
    before = dict(fake.running)
    for action in step_on(fake).plan().live:
        action.rehearse()
    assert fake.log == [
        "dry run: lock",
        "dry run: delete trading",
        "dry run: lock",
        "dry run: delete trading",
        "dry run: scale trading/deployments/freqtrade",
    ]
    assert (fake.lock, fake.running) == (Lock.MISSING, before)


def test_pods_that_are_ending_are_still_live_and_are_named(fake: FakeCluster) -> None:
    fake.lock = Lock.IN_FORCE
    fake.running = {"bot-a": Pod("bot-a", node="node-7", ending=True)}
    action = live(step_on(fake).plan())["trading/pods"]
    assert (action.phase, action.amount) == (4, 1)
    assert "bot-a on node-7" in action.perform().summary


def test_zero_replicas_are_no_evidence_while_a_pod_is_listed(fake: FakeCluster) -> None:
    fake.lock = Lock.IN_FORCE
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0)
    assert set(live(step_on(fake).plan())) == {"trading/pods"}


@pytest.mark.parametrize("lock", [Lock.MISSING, Lock.OTHER, Lock.PENDING])
def test_without_a_quota_that_holds_scaling_does_not_wait_for_the_deletes(
    fake: FakeCluster, lock: Lock
) -> None:
    fake.lock = lock
    actions = live(step_on(fake).plan())
    assert actions["trading/pods"].phase <= actions["trading/deployments/freqtrade"].phase == 2


def test_without_a_quota_the_pods_are_deleted_before_their_controller_can(
    fake: FakeCluster,
) -> None:
    live(step_on(fake).plan())["trading/deployments/freqtrade"].perform()
    assert fake.log == ["delete trading", "scale trading/deployments/freqtrade"]


def test_a_quota_with_another_spec_is_live(fake: FakeCluster) -> None:
    fake.lock = Lock.OTHER
    assert live(step_on(fake).plan())["trading/quota"].phase == 1


def test_a_quota_that_is_not_in_force_is_live_but_holds_nothing_up(fake: FakeCluster) -> None:
    fake.lock = Lock.PENDING
    assert live(step_on(fake).plan())["trading/quota"].phase == 4


def test_a_missing_namespace_is_never_clear(fake: FakeCluster) -> None:
    plan = step_on(fake, "tradign").plan()
    assert set(live(plan)) == {"tradign/quota"}
    assert all(clear(plan).values())
    with pytest.raises(RefusedError, match="does not exist"):
        plan.live[0].perform()


@pytest.mark.parametrize("lock", list(Lock))
def test_no_pod_counts_only_beside_what_asks_for_pods_or_did(fake: FakeCluster, lock: Lock) -> None:
    fake.running = {}
    fake.lock = lock
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0)
    assert clear(step_on(fake).plan())["trading/pods"] is False
    fake.wants["deployments"] = {}
    assert clear(step_on(fake).plan())["trading/pods"] is True


def test_what_is_scaled_back_for_ever_is_clear_once_the_quota_holds(fake: FakeCluster) -> None:
    fake.lock = Lock.IN_FORCE
    fake.running = {}
    plan = step_on(fake).plan()
    assert plan.live == ()
    assert clear(plan)["trading/deployments/freqtrade"] is False
    assert any("may ask for pods again" in note.text for note in plan.notes)


@pytest.mark.parametrize("part", ["quota", "pods", "deployments", "statefulsets"])
def test_a_part_that_cannot_be_seen_is_blind_and_hides_no_other(
    fake: FakeCluster, part: str
) -> None:
    fake.broken[part] = RefusedError("not allowed (403)")
    plan = step_on(fake).plan()
    assert [(blind.target, blind.lasting) for blind in plan.blind] == [(f"trading/{part}", True)]
    assert f"trading/{part}" not in {**live(plan), **clear(plan)}
    assert plan.live


def test_nothing_seen_at_all_raises_and_is_not_lasting_if_anything_may_change(
    fake: FakeCluster,
) -> None:
    fake.broken = dict.fromkeys(("quota", "pods"), RefusedError("not allowed (403)"))
    fake.broken |= dict.fromkeys(KINDS, UnreachableError("no answer"))
    with pytest.raises(UnreachableError):
        step_on(fake).plan()


def test_one_unreadable_namespace_costs_only_itself(fake: FakeCluster) -> None:
    plan = step_on(fake, "trading", "other").plan()
    assert {target.partition("/")[0] for target in live(plan)} == {"trading", "other"}


def test_a_pod_that_is_long_overdue_is_told(fake: FakeCluster) -> None:
    fake.running = {
        "bot-a": Pod("bot-a", node="node-7", ending=True, overdue_s=6),
        "bot-b": Pod("bot-b", node="node-1", ending=True, overdue_s=2),
    }
    told = [note.text for note in step_on(fake).plan().notes]
    assert told == [
        "trading: pod bot-a on node-7: stop not confirmed; its process may still run",
    ]


def test_who_may_scale_back_is_told(fake: FakeCluster) -> None:
    keeper = Keeper(Tool.ARGOCD, "bots", "argocd")
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0, (keeper,))
    (note,) = step_on(fake).plan().notes
    assert "Argo CD application argocd/bots may ask for pods again in trading" in note.text
    assert note.hint.startswith("kubectl --namespace argocd annotate application bots argocd.")


def test_who_is_left_is_named_up_to_a_bound(fake: FakeCluster) -> None:
    fake.running = {str(n): Pod(f"bot-{n}") for n in range(11)}
    summary = live(step_on(fake).plan())["trading/pods"].perform().summary
    assert summary.endswith("bot-7 on no node and 3 more")


def test_a_step_without_namespaces_clears_nothing(fake: FakeCluster) -> None:
    assert StopTrading(fake, "main", ()).plan() == Plan()
