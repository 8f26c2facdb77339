"""The Kubernetes client and step with every kind of workload, labels and reconcilers."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.converge import Limits
from killswitch.errors import GarbledError, RefusedError
from killswitch.halt import Assignment, carry_out
from killswitch.late_step import LateStep
from killswitch.model import HaltReport, Mode, Outcome, Step
from killswitch.runner import Runner
from killswitch.sandbox.kubernetes import KubernetesServer
from killswitch.sandbox.kubernetes_controllers import Workload
from killswitch.sandbox.kubernetes_objects import OPEN
from killswitch.steps.kubernetes import StopTrading
from killswitch.steps.kubernetes_keepers import Keeper, Tool
from killswitch.steps.kubernetes_port import KINDS
from killswitch.verdict import Intent
from tests.engine.simulator import make_order

LIMITS = Limits(deadline_s=20, wrap_up_s=1, phase_s=1, patience_s=2, stay_down_s=0.4)
OF_KIND = {
    "deployments": "Deployment",
    "statefulsets": "StatefulSet",
    "daemonsets": "DaemonSet",
    "jobs": "Job",
    "cronjobs": "CronJob",
    "replicasets": "ReplicaSet",
    "replicationcontrollers": "ReplicationController",
}
Serve = Callable[..., KubernetesServer]
Connect = Callable[..., KubernetesClient]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*workloads: Workload, **options: Any) -> KubernetesServer:
            spaces = {"trading": list(workloads)} if workloads else None
            server = KubernetesServer(**{"namespaces": spaces} | options)
            server.start()
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture
def connect(tmp_path: Path) -> Connect:
    def make(server: KubernetesServer, **options: Any) -> KubernetesClient:
        path = tmp_path / f"kubeconfig-{server.url.rpartition(':')[2]}"
        path.write_text(server.kubeconfig())
        client = KubernetesClient(kubeconfig=path, context="sandbox", **options)
        client.login(may_write=True)
        return client

    return make


def one_of_each() -> list[Workload]:
    return [Workload(kind=kind, name=name[:-1]) for name, kind in OF_KIND.items()]


def halt(
    *steps: Step,
    intent: Intent = Intent.PERFORM,
    limits: Limits = LIMITS,
    known: Mapping[tuple[str, str], frozenset[str]] | None = None,
) -> HaltReport:
    mode = Mode.LIVE if intent is Intent.PERFORM else Mode.DRILL
    assignment = Assignment(
        order=make_order(mode),
        proof=None,
        intent=intent,
        steps=steps,
        started_at=datetime.now(UTC),
        known=known or {},
    )
    return Runner().run(lambda now: carry_out(assignment, limits, now))


def notes(report: HaltReport) -> list[str]:
    return [note.text for note in report.not_done]


# Every kind.


def test_every_kind_is_read_with_what_it_asks_for(serve: Serve, connect: Connect) -> None:
    client = connect(serve(*one_of_each()))
    for kind in KINDS:
        (workload,) = client.workloads("trading", kind)
        assert (workload.name, workload.replicas, workload.keepers) == (kind[:-1], 1, ())


def test_every_kind_is_stopped_and_then_asks_for_nothing(serve: Serve, connect: Connect) -> None:
    server = serve(*one_of_each())
    client = connect(server)
    for kind in KINDS:
        client.rehearsal.scale_to_zero("trading", kind, kind[:-1])
    assert server.writes == []
    for kind in KINDS:
        client.writes.scale_to_zero("trading", kind, kind[:-1])
        assert [workload.replicas for workload in client.workloads("trading", kind)] == [0]
    assert all("fieldManager=killswitch" in write.query for write in server.writes)


def test_a_replica_set_of_a_deployment_is_the_deployments(serve: Serve, connect: Connect) -> None:
    mine = Workload(kind="ReplicaSet", name="bot-1", owner=("Deployment", "bot"))
    rollout = Workload(kind="ReplicaSet", name="bot-2", owner=("Rollout", "bot"))
    client = connect(serve(mine, rollout))
    (found,) = client.workloads("trading", "replicasets")
    assert (found.name, [str(it) for it in found.keepers]) == ("bot-2", ["Rollout bot"])


@pytest.mark.parametrize("latch", [True, False])
def test_all_kinds_and_a_bare_pod_are_halted(
    serve: Serve,
    connect: Connect,
    latch: bool,  # noqa: FBT001 (pytest gives it)
) -> None:
    server = serve(*one_of_each())
    server.world.add_pod("trading", "bare")
    server.world.add_pod("trading", "finished", phase="Succeeded")
    report = halt(StopTrading(connect(server), "main", ("trading",), latch=latch))
    assert report.halted, report
    assert server.live() == []
    assert server.world.namespaces["trading"].pods == {}
    assert all(workload.asks == 0 for workload in server.world.namespaces["trading"].workloads)


def test_a_pod_that_ignores_sigterm_is_dead_within_2_6_seconds(
    serve: Serve, connect: Connect
) -> None:
    server = serve(*one_of_each(), term_s=60, floor_s=2)
    step = StopTrading(connect(server), "main", ("trading",))
    started = time.monotonic()
    first: list[float] = []
    for _ in range(100):
        plan = step.plan()
        for action in plan.live:
            if action.phase == min(other.phase for other in plan.live):
                action.perform()
        if not server.live():
            first.append(time.monotonic() - started)
            break
        time.sleep(0.02)
    assert first
    assert 2.0 <= first[0] <= 2.6


def test_a_finished_job_asks_for_nothing_and_is_not_listed(serve: Serve, connect: Connect) -> None:
    server = serve(Workload(kind="Job", name="done"), Workload(kind="Job", name="running"))
    server.world.namespaces["trading"].workloads[0].finished = True
    (running,) = connect(server).workloads("trading", "jobs")
    assert running.name == "running"


@pytest.mark.parametrize("latch", [True, False])
def test_freeze_only_scales_and_deletes_no_pod(serve: Serve, connect: Connect, latch: bool) -> None:  # noqa: FBT001
    server = serve(Workload(kind="Deployment", name="bot"), quota_lag_s=0.3)
    server.world.add_pod("trading", "bare")
    step = StopTrading(connect(server), "main", ("trading",), latch=latch)
    halt(LateStep("kubernetes", "main", evidence=False, build=lambda: step, freeze_only=True))
    assert [write.path for write in server.writes if write.method == "DELETE"] == []
    space = server.world.namespaces["trading"]
    assert [it.asks for it in space.workloads] == [0]
    assert space.pods["bare"].delete_at is None


# Chosen pods.


def test_only_pods_with_the_labels_are_ended(serve: Serve, connect: Connect) -> None:
    server = serve(
        Workload(kind="Deployment", name="freqtrade", replicas=2, pod_labels={"desk": "a"}),
        Workload(kind="CronJob", name="report", pod_labels={"desk": "a"}),
        Workload(kind="Deployment", name="web", replicas=1),
    )
    client = connect(server, selector={"desk": "a"})
    assert client.selector == "desk=a"
    report = halt(StopTrading(client, "main", ("trading",), latch=False))
    assert report.halted, report
    left = {pod.labels["app"] for pod in server.world.namespaces["trading"].pods.values()}
    assert left == {"web"}
    assert "no quota keeps pods with desk=a out of trading" in " ".join(notes(report))
    assert not any("resourcequotas" in seen.path for seen in server.seen)


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet", "DaemonSet"])
def test_a_pod_without_the_labels_of_its_template_is_ended_too(
    serve: Serve, connect: Connect, kind: str
) -> None:
    bot, web = Workload(kind=kind, name="bot"), Workload(kind=kind, name="web")
    server = serve(bot, web)
    bot.pod_labels = {"halt": "yes"}  # and the pod was made before
    client = connect(server, selector={"halt": "yes"})
    report = halt(StopTrading(client, "main", ("trading",), latch=False))
    assert report.halted, report
    left = [pod.owner for pod in server.world.namespaces["trading"].pods.values()]
    assert left == [(kind, "web")]


def test_a_pod_that_loses_its_labels_after_the_first_look_is_ended_too(
    serve: Serve, connect: Connect
) -> None:
    server = serve(namespaces={"trading": []})
    pod = server.world.add_pod("trading", "bot")
    pod.labels = {"app": "bot"}
    client = connect(server, selector={"app": "bot"})
    assert [it.name for it in client.pods("trading")] == ["bot"]
    pod.labels = {}
    assert [it.name for it in client.pods("trading")] == ["bot"]
    assert connect(server, selector={"app": "bot"}).pods("trading") == ()
    client.rehearsal.delete_pods("trading")
    client.writes.delete_pods("trading")
    assert [write.path for write in server.writes if write.path.endswith("/bot")] == [
        "/api/v1/namespaces/trading/pods/bot"
    ]
    server.denied.add("delete pods")
    with pytest.raises(RefusedError, match=r"no right to delete pods by name .*: bot has not"):
        client.writes.delete_pods("trading")


def test_what_a_pod_belongs_to_must_be_seen(serve: Serve, connect: Connect) -> None:
    server = serve(Workload(kind="DaemonSet", name="web"))
    server.denied.add("list daemonsets")
    client = connect(server, selector={"app": "bot"})
    with pytest.raises(RefusedError, match="daemonsets"):
        client.pods("trading")
    server.world.add_pod("trading", "bot").labels = {"app": "bot"}
    assert [pod.name for pod in client.pods("trading")] == ["bot"]


def test_labels_that_nothing_has_are_never_halted(serve: Serve, connect: Connect) -> None:
    server = serve(Workload(kind="Deployment", name="freqtrade"))
    for latch in (False, True):
        client = connect(server, selector={"app": "frqtrade"})
        report = halt(StopTrading(client, "main", ("trading",), latch=latch))
        assert not report.halted
        assert report.results[0].outcome is Outcome.UNKNOWN


def test_what_was_seen_with_other_labels_vouches_for_nothing(
    serve: Serve, connect: Connect
) -> None:
    server = serve(Workload(kind="Deployment", name="bot"))

    def step(app: str) -> StopTrading:
        client = connect(server, selector={"app": app})
        return StopTrading(client, "main", ("trading",), latch=False)

    drill = halt(step("bot"), intent=Intent.REHEARSE)
    known = {("kubernetes", "main"): frozenset(it.target for it in drill.results[0].targets)}
    report = halt(step("bto"), known=known)
    assert report.results[0].outcome is Outcome.UNKNOWN
    assert server.live() != []


def test_a_wrong_namespace_that_is_empty_is_unknown_and_a_scaled_down_trader_is_not(
    serve: Serve, connect: Connect
) -> None:
    bot = Workload(kind="Deployment", name="bot", replicas=0)
    server = serve(namespaces={"trading": [bot], "trading-old": []})
    for intent in (Intent.REHEARSE, Intent.PERFORM):
        step = StopTrading(connect(server), "main", ("trading-old",))
        assert halt(step, intent=intent).results[0].outcome is Outcome.UNKNOWN
    step = StopTrading(connect(server), "main", ("trading",))
    assert halt(step, intent=Intent.REHEARSE).passed
    assert halt(step).halted


def test_a_namespace_of_bare_pods_is_known_once_a_run_has_seen_one(
    serve: Serve, connect: Connect
) -> None:
    server = serve(namespaces={"trading": []})
    server.world.add_pod("trading", "bare")
    step = StopTrading(connect(server), "main", ("trading",))
    assert halt(step).halted
    assert not halt(step).halted
    assert halt(step, known={("kubernetes", "main"): frozenset({"trading/pods"})}).halted


# Pods that never end.


def test_a_pod_of_a_dead_node_is_unknown_and_named(serve: Serve, connect: Connect) -> None:
    server = serve(Workload(kind="Deployment", name="bot"), traps=["stuck-pod"])
    pod = next(iter(server.world.namespaces["trading"].pods.values()))
    pod.node = "node-7"
    step = StopTrading(connect(server), "main", ("trading",))
    report = halt(step, limits=replace(LIMITS, patience_s=7, deadline_s=11))
    assert not report.halted
    (pods,) = [it for it in report.results[0].targets if it.target == "trading/pods"]
    assert (pods.outcome, pods.live) == (Outcome.SENT, False)
    assert report.results[0].outcome is Outcome.UNKNOWN
    assert "on node-7: stop not confirmed; its process may still run" in pods.saw
    assert not any("gracePeriodSeconds=0" in write.query for write in server.writes)


def test_a_pod_that_a_finalizer_keeps_listed_is_halted_and_told(
    serve: Serve, connect: Connect
) -> None:
    server = serve(traps=["finalizer-pod"])
    report = halt(StopTrading(connect(server), "main", ("trading",)))
    assert report.halted
    assert len(server.world.namespaces["trading"].pods) == 1
    assert any("its containers have ended; bots.example/settle" in text for text in notes(report))


def test_a_late_pod_that_is_deleted_by_force_is_unknown_for_the_rest_of_the_run(
    serve: Serve, connect: Connect
) -> None:
    server = serve(Workload(kind="Deployment", name="bot", replicas=2))
    client = connect(server)
    pods = server.world.namespaces["trading"].pods
    first, second = pods.values()
    for pod in (first, second):
        pod.delete_at, pod.ends_at = time.time() - 9, time.time() + 60
    step = StopTrading(client, "main", ("trading",))
    client.writes.lock("trading")
    step.plan()
    with server.lock:
        first.delete_grace_s = second.delete_grace_s = 1
        second.done, second.finalizer = True, "bots.example/settle"
    step.plan()
    with server.lock:
        pods.clear()
    (blind, _) = step.plan().blind
    assert blind.target == "trading/late pods"
    assert blind.reason == (
        f"pod {first.name} on node-1: left the list unconfirmed; its process may still run"
    )
    assert connect(server).pods("trading") == ()


def test_a_static_pod_is_never_halted_and_its_mirror_stays_for_the_next_run(
    serve: Serve, connect: Connect
) -> None:
    server = serve(Workload(kind="Deployment", name="freqtrade", replicas=2))
    server.world.add_pod("trading", "bot-node-1").static = True
    for _ in range(2):
        report = halt(StopTrading(connect(server), "main", ("trading",)))
        assert report.results[0].outcome is Outcome.UNKNOWN
        (static,) = [it for it in report.results[0].targets if not it.outcome.ended]
        assert (static.target, static.live) == ("trading/static pods", False)
        assert static.saw == (
            "static pod bot-node-1 on node-1: only its node can stop it (remove its manifest there)"
        )
        assert set(server.world.namespaces["trading"].pods) == {"bot-node-1"}
    assert server.live() == ["pod trading/bot-node-1"]


def test_a_static_pod_whose_mirror_is_deleted_is_not_forgotten(
    serve: Serve, connect: Connect
) -> None:
    server = serve(Workload(kind="Deployment", name="freqtrade"))
    server.world.add_pod("trading", "bot-node-1").static = True
    client = connect(server)
    client.pods("trading")
    connect(server).writes.delete_pods("trading")
    time.sleep(0.6)
    assert [pod.name for pod in client.pods("trading") if pod.static] == ["bot-node-1"]
    assert [pod.name for pod in connect(server).pods("trading") if pod.static] == []


def test_a_finished_phase_alone_proves_no_end(serve: Serve, connect: Connect) -> None:
    server = serve(Workload(kind="Deployment", name="bot"))
    pod = server.world.add_pod("trading", "lost")
    pod.finalizer, pod.delete_at = "bots.example/settle", time.time()
    (lost,) = [it for it in connect(server).pods("trading") if it.name == "lost"]
    assert (lost.ending, lost.held_by) == (True, "")


# Who may bring pods back.


def test_autoscalers_are_read(serve: Serve, connect: Connect) -> None:
    server = serve()
    client = connect(server)
    assert client.scalers("trading", Tool.KEDA) == client.scalers("trading", Tool.HPA) == ()
    bot = {"scaleTargetRef": {"kind": "StatefulSet", "name": "hedger"}}
    put = server.world.objects.put
    put("horizontalpodautoscalers", "trading", "hedger", bot)
    made = [{"kind": "ScaledObject", "name": "freqtrade", "uid": "1"}]
    put("horizontalpodautoscalers", "trading", "keda-hpa-x", bot, ownerReferences=made)
    put("scaledobjects", "trading", "freqtrade", {"scaleTargetRef": {"name": "freqtrade"}})
    (hpa,) = client.scalers("trading", Tool.HPA)
    (keda,) = client.scalers("trading", Tool.KEDA)
    assert (hpa.keeper.name, hpa.scales) == ("hedger", "StatefulSet hedger")
    assert (keda.keeper.name, keda.scales, keda.paused) == (
        "freqtrade",
        "Deployment freqtrade",
        False,
    )
    server.denied.add("list scaledobjects")
    with pytest.raises(RefusedError, match="cannot list resource"):
        client.scalers("trading", Tool.KEDA)


@pytest.mark.parametrize(
    ("keeper", "resource"),
    [
        (Keeper(Tool.ARGOCD, "bots", "argocd"), "applications"),
        (Keeper(Tool.KUSTOMIZATION, "bots", "flux-system"), "kustomizations"),
        (Keeper(Tool.HELMRELEASE, "bots", "flux-system"), "helmreleases"),
        (Keeper(Tool.KEDA, "bots", "trading"), "scaledobjects"),
    ],
)
def test_a_reconciler_is_paused_by_its_own_means(
    serve: Serve, connect: Connect, keeper: Keeper, resource: str
) -> None:
    server = serve()
    client = connect(server)
    with pytest.raises(GarbledError, match=f"{resource} is not served"):
        client.reconciler(keeper)
    server.world.objects.put(resource, keeper.namespace, "other", {})
    assert client.reconciler(keeper) is None
    server.world.objects.put(resource, keeper.namespace, keeper.name, {"interval": "1m"})
    client.rehearsal.pause(keeper)
    before = client.reconciler(keeper)
    client.writes.pause(keeper)
    after = client.reconciler(keeper)
    assert (before and before.paused, after and after.paused) == (False, True)
    assert [write.method for write in server.writes] == ["PATCH"]
    assert "fieldManager=killswitch" in server.writes[0].query


@pytest.mark.parametrize("tool", ["keda", "argocd", "flux"])
def test_a_version_that_is_not_served_is_not_taken_for_no_reconciler(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    server = serve(traps=[f"{tool}-scales-back"])
    for resource, (group, _, kind) in OPEN.items():
        monkeypatch.setitem(OPEN, resource, (group, "v9", kind))
    step = StopTrading(connect(server), "main", ("trading",), pause=(tool,))
    blind = step.plan().blind
    assert ["could not look (404)" in it.reason for it in blind] == [True]
    assert blind[0].target not in {it.target for it in step.plan().clear}


def test_argo_cd_that_tracks_by_label_alone_is_named(serve: Serve, connect: Connect) -> None:
    bot = Workload(kind="Deployment", name="bot", labels={"app.kubernetes.io/instance": "bots"})
    (found,) = connect(serve(bot)).workloads("trading", "deployments")
    assert [str(keeper) for keeper in found.keepers] == [
        "the Argo CD application or Helm release, if it is one, bots"
    ]


@pytest.mark.parametrize("tool", ["keda", "argocd", "flux"])
@pytest.mark.parametrize("latch", [True, False])
def test_a_reconciler_that_fights_is_paused(
    serve: Serve,
    connect: Connect,
    tool: str,
    latch: bool,  # noqa: FBT001 (as above)
) -> None:
    server = serve(traps=[f"{tool}-scales-back"])
    step = StopTrading(connect(server), "main", ("trading",), latch=latch, pause=(tool,))
    report = halt(step)
    assert report.halted, report
    assert server.live() == []
    assert all(workload.asks == 0 for workload in server.world.namespaces["trading"].workloads)


@pytest.mark.parametrize("tool", ["keda", "argocd", "flux"])
def test_a_reconciler_that_may_not_be_paused_is_kept_out_and_named(
    serve: Serve, connect: Connect, tool: str
) -> None:
    server = serve(traps=[f"{tool}-scales-back"])
    report = halt(StopTrading(connect(server), "main", ("trading",)))
    assert report.halted
    assert server.live() == []
    assert any("may ask for pods again in trading" in text for text in notes(report))


def test_without_a_latch_or_a_pause_a_reconciler_wins_and_it_is_never_halted(
    serve: Serve, connect: Connect
) -> None:
    server = serve(traps=["argocd-scales-back"])
    step = StopTrading(connect(server), "main", ("trading",), latch=False)
    assert not halt(step, limits=replace(LIMITS, deadline_s=5)).halted


@pytest.mark.parametrize("intent", [Intent.PERFORM, Intent.REHEARSE])
def test_few_rights_are_enough_where_a_quota_keeps_pods_out(
    serve: Serve, connect: Connect, intent: Intent
) -> None:
    server = serve(traps=["few-rights"])
    report = halt(StopTrading(connect(server), "main", ("trading",)), intent=intent)
    good = {Intent.PERFORM: Outcome.VERIFIED, Intent.REHEARSE: Outcome.REHEARSED}
    assert report.results[0].outcome is good[intent], report
    assert any("daemonsets in trading cannot be listed" in text for text in notes(report))


# Many at once.


def test_five_clusters_are_halted_side_by_side(serve: Serve, connect: Connect) -> None:
    spaces = [f"desk-{n}" for n in range(4)]
    servers = [
        serve(namespaces={name: [Workload(kind="Deployment", name="bot")] for name in spaces})
        for _ in range(5)
    ]
    servers[3].traps.add("down")
    steps = [
        StopTrading(connect(server), f"k3s-{number}", tuple(spaces))
        for number, server in enumerate(servers)
    ]
    report = halt(*steps)
    outcomes = [result.outcome for result in report.results]
    assert outcomes.count(Outcome.VERIFIED) == 4
    assert outcomes[3] is Outcome.FAILED
    servers[3].traps.clear()
    assert [bool(server.live()) for server in servers] == [False, False, False, True, False]
