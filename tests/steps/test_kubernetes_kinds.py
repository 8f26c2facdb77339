"""The Kubernetes step: every kind of workload, chosen pods, pods that never end, reconcilers."""

import threading
import time
from dataclasses import replace

import pytest

from killswitch.errors import RefusedError, UnreachableError, VendorError
from killswitch.model import Blind, Plan
from killswitch.steps.kubernetes import StopTrading
from killswitch.steps.kubernetes_keepers import Keeper, Reconciler, Tool
from killswitch.steps.kubernetes_port import KINDS, Lock, Pod, Workload
from killswitch.steps.side_by_side import keep, side_by_side
from tests.steps.test_kubernetes_step import FakeCluster, clear, live

KEDA = Keeper(Tool.KEDA, "freqtrade", "trading")
ARGOCD = Keeper(Tool.ARGOCD, "bots", "argocd")
FLUX = Keeper(Tool.KUSTOMIZATION, "bots", "flux-system")
PARENT = Keeper(Tool.KUSTOMIZATION, "apps", "flux-system")


@pytest.fixture
def fake() -> FakeCluster:
    fake = FakeCluster()
    fake.running = {"bot-a": Pod("bot-a", node="node-1")}
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 2)
    return fake


def step_on(fake: FakeCluster, *, latch: bool = True, pause: tuple[str, ...] = ()) -> StopTrading:
    return StopTrading(fake, "main", ("trading", "trading"), latch=latch, pause=pause)


def stopped(fake: FakeCluster) -> FakeCluster:
    fake.lock = Lock.IN_FORCE
    fake.running = {}
    fake.wants = {kind: {} for kind in KINDS}
    return fake


def perform(step: StopTrading, rounds: int = 12) -> Plan:
    """Plan and perform the lowest phase until nothing is live; return the last plan."""
    for _ in range(rounds):
        plan = step.plan()
        phase = min((action.phase for action in plan.live), default=0)
        for action in plan.live:
            if action.phase == phase:
                action.perform()
    return step.plan()


def told(plan: Plan) -> list[str]:
    return [note.text for note in plan.notes]


# Every kind.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("latch", [True, False])
def test_what_asks_for_pods_is_stopped_whatever_it_is(
    fake: FakeCluster,
    kind: str,
    latch: bool,  # noqa: FBT001 (pytest passes it by name)
) -> None:
    fake.wants[kind]["bot"] = Workload("bot", 1)
    plan = perform(step_on(fake, latch=latch))
    assert (plan.live, plan.blind) == ((), ())
    assert fake.wants[kind]["bot"].replicas == 0
    assert clear(plan)[f"trading/{kind}/bot"] is False


def test_a_workload_without_a_pod_is_stopped_beside_the_quota(fake: FakeCluster) -> None:
    fake.running = {}
    fake.wants["cronjobs"]["nightly"] = Workload("nightly", 1)
    actions = live(step_on(fake).plan())
    assert {action.phase for action in actions.values()} == {1}
    assert "trading/cronjobs/nightly" in actions


def test_a_wish_is_told_as_what_it_is(fake: FakeCluster) -> None:
    stopped(fake)
    for kind in ("deployments", "daemonsets", "cronjobs"):
        fake.wants[kind]["bot"] = Workload("bot", 2)
    saw = {it.target.partition("/")[2]: it.saw for it in step_on(fake).plan().clear}
    assert saw["deployments/bot"] == "asks for 2 pods, kept out by a quota"
    assert saw["daemonsets/bot"] == "asks for a pod on every node, kept out by a quota"
    assert saw["cronjobs/bot"] == "starts pods at its times, kept out by a quota"


def test_without_the_quota_what_asks_is_stopped_in_the_same_breath(fake: FakeCluster) -> None:
    delete = live(step_on(fake).plan())["trading/pods"]
    fake.broken["lock"] = RefusedError("not allowed (403)")
    delete.perform()
    assert fake.log == ["delete trading", "scale trading/deployments/freqtrade"]


@pytest.mark.parametrize("kind", KINDS[2:])
def test_a_kind_that_nobody_may_list_is_no_doubt_where_a_quota_keeps_its_pods_out(
    fake: FakeCluster, kind: str
) -> None:
    fake.broken[kind] = RefusedError("not allowed (403)")
    plan = step_on(fake).plan()
    assert plan.blind == ()
    assert any(text.startswith(f"{kind} in trading cannot be listed") for text in told(plan))
    assert clear(perform(step_on(fake)))[f"trading/{kind}"] is False


def test_a_kind_that_nobody_may_list_is_unknown_without_a_quota(fake: FakeCluster) -> None:
    fake.broken["daemonsets"] = RefusedError("not allowed (403)")
    plan = perform(step_on(fake, latch=False))
    assert plan.blind == (Blind("trading/daemonsets", "not allowed (403)", lasting=True),)


def test_a_kind_that_is_not_seen_for_a_moment_is_looked_at_again(fake: FakeCluster) -> None:
    stopped(fake).broken["jobs"] = UnreachableError("no answer")
    assert step_on(fake).plan().blind == (Blind("trading/jobs", "no answer"),)


# Chosen pods, and no latch.


def test_without_a_latch_no_quota_is_made_or_read(fake: FakeCluster) -> None:
    fake.broken["quota"] = RefusedError("not allowed (403)")
    plan = perform(step_on(fake, latch=False))
    assert (plan.live, plan.blind) == ((), ())
    assert "lock" not in fake.log
    assert "trading/quota" not in clear(plan)
    assert any(text.startswith("no quota keeps pods out of trading") for text in told(plan))


def test_labels_that_choose_nothing_prove_nothing(fake: FakeCluster) -> None:
    stopped(fake).selector = "app=frqtrade"
    target = "trading/pods with app=frqtrade"  # what a run with other labels saw is no part of it
    for latch in (True, False):
        assert clear(step_on(fake, latch=latch).plan())[target] is True
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0)
    assert clear(step_on(fake, latch=False).plan())[target] is False


def test_no_latch_beside_labels_is_told_with_the_labels(fake: FakeCluster) -> None:
    fake.selector = "app=bot"
    assert any(
        "keeps pods with app=bot out of" in it for it in told(step_on(fake, latch=False).plan())
    )


# Pods that never end.


def test_an_overdue_pod_is_unknown_and_named_with_its_node(fake: FakeCluster) -> None:
    stopped(fake).running = {"bot": Pod("bot", node="node-7", ending=True, overdue_s=9)}
    plan = step_on(fake).plan()
    words = "pod bot on node-7: stop not confirmed; its process may still run"
    assert plan.live == ()
    assert plan.blind == (Blind("trading/late pods", words), Blind("trading/pods", words))
    assert f"trading: {words}" in told(plan)


def test_an_overdue_pod_holds_up_no_other(fake: FakeCluster) -> None:
    fake.running["stuck"] = Pod("stuck", node="node-7", ending=True, overdue_s=9)
    action = live(step_on(fake).plan())["trading/pods"]
    assert (action.verb, action.amount) == ("delete", 1)


def test_a_pod_that_only_a_finalizer_keeps_listed_has_ended(fake: FakeCluster) -> None:
    pod = Pod("bot", node="node-7", ending=True, overdue_s=9, held_by="bots.example/settle")
    stopped(fake).running = {"bot": pod}
    plan = step_on(fake).plan()
    assert (plan.live, plan.blind) == ((), ())
    assert clear(plan)["trading/pods"] is False
    words = "pod trading/bot on node-7: its containers have ended; bots.example/settle keeps it"
    assert any(text.startswith(words) for text in told(plan))


# Who may bring pods back.


def test_everyone_who_keeps_a_workload_is_named_once_with_all_of_it(fake: FakeCluster) -> None:
    for name in ("freqtrade", "hedger"):
        fake.wants["deployments"][name] = Workload(name, 1, (ARGOCD, FLUX))
    notes = {note.text: note.hint for note in step_on(fake).plan().notes}
    argocd = (
        f"{ARGOCD} may ask for pods again in trading: deployments/freqtrade, deployments/hedger"
    )
    assert notes[argocd].startswith("kubectl --namespace argocd annotate application bots")
    flux = f"{FLUX} may ask for pods again in trading: deployments/freqtrade, deployments/hedger"
    assert notes[flux].endswith("""--patch '{"spec":{"suspend":true}}'""")


def test_autoscalers_are_named(fake: FakeCluster) -> None:
    hpa = Keeper(Tool.HPA, "bots", "trading")
    fake.scaled_by = {
        Tool.HPA: [Reconciler(hpa, scales="Deployment freqtrade")],
        Tool.KEDA: [Reconciler(KEDA, scales="Deployment freqtrade")],
    }
    notes = {note.text: note.hint for note in step_on(fake).plan().notes}
    found = [text for text in notes if text.endswith("in trading: Deployment freqtrade")]
    assert [notes[text].partition(" ")[0] for text in found] == ["kubectl", "nothing"]


def test_labels_leave_out_who_scales_something_else(fake: FakeCluster) -> None:
    fake.selector = "app=freqtrade"
    other = Keeper(Tool.KEDA, "web", "trading")
    scaled = [
        Reconciler(KEDA, scales="Deployment freqtrade"),
        Reconciler(other, scales="Deployment web"),
    ]
    fake.scaled_by = {Tool.KEDA: scaled}
    assert set(live(step_on(fake, latch=False, pause=("keda",)).plan())) == {
        "trading/pods with app=freqtrade",
        "trading/deployments/freqtrade",
        "trading/scaledobjects/freqtrade",
    }


def test_what_nobody_may_look_for_is_told_and_no_failure(fake: FakeCluster) -> None:
    stopped(fake).broken[Tool.KEDA] = RefusedError("not allowed (403)")
    plan = step_on(fake).plan()
    assert plan.blind == ()
    assert "not seen whether any KEDA ScaledObject asks for pods: no right to list them" in told(
        plan
    )


def test_while_pods_end_nobody_looks_for_autoscalers(fake: FakeCluster) -> None:
    fake.running = {"bot-a": Pod("bot-a", ending=True)}
    fake.broken = {Tool.KEDA: RefusedError("not allowed (403)")}
    assert told(step_on(fake).plan()) == []


@pytest.mark.parametrize(
    ("word", "keeper", "target"),
    [
        ("argocd", ARGOCD, "argocd/applications/bots"),
        ("flux", FLUX, "flux-system/kustomizations/bots"),
        ("keda", KEDA, "trading/scaledobjects/freqtrade"),
    ],
)
def test_what_may_be_paused_is_paused_and_read_back(
    fake: FakeCluster, word: str, keeper: Keeper, target: str
) -> None:
    if keeper.tool is Tool.KEDA:
        fake.scaled_by = {Tool.KEDA: [Reconciler(keeper, scales="Deployment freqtrade")]}
    else:
        fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 2, (keeper,))
        fake.reconcilers[keeper] = Reconciler(keeper)
    step = step_on(fake, pause=(word,))
    action = live(step.plan())[target]
    assert (action.verb, action.reversible) == ("pause", True)
    assert action.phase == max(other.phase for other in step.plan().live)
    plan = perform(step)
    assert plan.live == ()
    assert clear(plan)[target] is False
    assert f"pause {keeper}" in fake.log
    assert not any("may ask for pods again" in text for text in told(plan))


def test_without_a_latch_a_reconciler_is_paused_while_pods_are_deleted(fake: FakeCluster) -> None:
    fake.scaled_by = {Tool.KEDA: [Reconciler(KEDA, scales="Deployment freqtrade")]}
    actions = live(step_on(fake, latch=False, pause=("keda",)).plan())
    assert actions["trading/scaledobjects/freqtrade"].phase == actions["trading/pods"].phase


def test_a_pause_that_fails_keeps_no_pod_alive(fake: FakeCluster) -> None:
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 2, (ARGOCD,))
    fake.broken["bots"] = RefusedError("not allowed (403)")
    plan = perform(step_on(fake, pause=("argocd",)))
    assert fake.running == {}
    assert plan.blind == (Blind("argocd/applications/bots", "not allowed (403)", lasting=True),)


def test_who_may_take_a_pause_back_is_told(fake: FakeCluster) -> None:
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0, (FLUX,))
    fake.reconcilers[FLUX] = Reconciler(FLUX, paused=True, keepers=(PARENT,))
    plan = step_on(fake, pause=("flux",)).plan()
    assert f"{PARENT} may take back the pause of {FLUX}" in told(plan)


def test_a_reconciler_in_another_cluster_is_told(fake: FakeCluster) -> None:
    fake.wants["deployments"]["freqtrade"] = Workload("freqtrade", 0, (ARGOCD,))
    plan = step_on(fake, pause=("argocd",)).plan()
    assert clear(plan)["argocd/applications/bots"] is False
    assert any(str(ARGOCD) in text for text in told(plan))


def test_a_rehearsal_pauses_nothing(fake: FakeCluster) -> None:
    fake.scaled_by = {Tool.KEDA: [Reconciler(KEDA, scales="Deployment freqtrade")]}
    live(step_on(fake, pause=("keda",)).plan())["trading/scaledobjects/freqtrade"].rehearse()
    assert fake.log == [f"dry run: pause {KEDA}"]


# Side by side.


def test_calls_run_side_by_side_but_not_too_many() -> None:
    running, most = 0, 0
    guard = threading.Lock()
    meet = threading.Barrier(3)

    def call() -> bool:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
        meet.wait(5)
        with guard:
            running -= 1
        return True

    side_by_side([call] * 9, width=3)
    assert most == 3


def test_a_vendors_error_is_an_answer_and_a_bug_is_not() -> None:
    answers: dict[str, int | VendorError] = {}

    def bug() -> int:
        raise ZeroDivisionError

    def refuse() -> int:
        raise RefusedError("no")

    side_by_side([keep(answers, "one", lambda: 1), keep(answers, "no", refuse)])
    assert answers["one"] == 1
    assert isinstance(answers["no"], RefusedError)
    with pytest.raises(ZeroDivisionError):
        side_by_side([keep(answers, "bug", bug)])


def test_what_was_not_asked_in_time_is_not_seen() -> None:
    answers: dict[int, int | VendorError] = {}

    def slowly() -> int:
        time.sleep(0.2)
        return 1

    calls = [keep(answers, number, slowly) for number in range(4)]
    side_by_side(calls, width=1, enough_s=0.1)
    assert answers[0] == 1
    assert all(isinstance(answers[number], UnreachableError) for number in (1, 2, 3))


def test_an_action_is_not_made_for_each_namespace_named_twice(fake: FakeCluster) -> None:
    targets = [action.target for action in step_on(fake).plan().live]
    assert len(targets) == len(set(targets))
    assert replace(step_on(fake), namespaces=()).plan() == Plan()
