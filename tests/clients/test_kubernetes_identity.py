"""Which cluster it is: asked before anything else, and another one is neither seen nor changed."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import RefusedError, UnreachableError
from killswitch.model import Note
from killswitch.sandbox.kubernetes import KubernetesServer
from killswitch.sandbox.kubernetes_identity import OTHER_UID, UID
from killswitch.steps.kubernetes import StopTrading
from killswitch.steps.kubernetes_identity import Identified

KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
FAST = (0.5, 0.5)


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    server.start()
    yield server
    server.stop()


@pytest.fixture
def client(server: KubernetesServer, tmp_path: Path) -> Callable[..., KubernetesClient]:
    def make(uid: str) -> KubernetesClient:
        path = tmp_path / "kubeconfig"
        path.write_text(server.kubeconfig())
        made = KubernetesClient(kubeconfig=path, context="sandbox", cluster_uid=uid, timeout_s=FAST)
        made.login(may_write=True)
        return made

    return make


Make = Callable[[str], KubernetesClient]


def test_the_pinned_cluster_is_asked_once_and_first(server: KubernetesServer, client: Make) -> None:
    pinned = client(UID)
    for _ in range(3):
        assert len(pinned.pods("trading")) == 3
    assert [seen.path for seen in server.seen].index(KUBE_SYSTEM) == 0
    assert [seen.path for seen in server.seen].count(KUBE_SYSTEM) == 1
    pinned.identify()
    assert pinned.notes() == ()


def test_threads_that_begin_at_once_ask_once(server: KubernetesServer, client: Make) -> None:
    pinned = client(UID)
    threads = [threading.Thread(target=pinned.pods, args=("trading",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [seen.path for seen in server.seen].count(KUBE_SYSTEM) == 1


def test_another_cluster_is_neither_looked_at_nor_changed(
    server: KubernetesServer, client: Make
) -> None:
    server.traps.add("another-cluster")
    pinned = client(UID)
    before = server.live()
    for call in (
        partial(pinned.pods, "trading"),
        partial(pinned.writes.lock, "trading"),
        partial(pinned.writes.delete_pods, "trading"),
        partial(pinned.rehearsal.delete_pods, "trading"),
    ):
        with pytest.raises(RefusedError) as caught:
            call()
        assert str(caught.value) == (
            "this kubeconfig leads to another cluster than the one configured: its uid is"
            f" {OTHER_UID}, cluster_uid is {UID}"
        )
    assert {seen.path for seen in server.seen} == {KUBE_SYSTEM}
    assert (server.live(), server.writes) == (before, [])


def test_the_whole_step_is_refused_for_another_cluster(
    server: KubernetesServer, client: Make
) -> None:
    server.traps.add("another-cluster")
    pinned = client(UID)
    step = Identified(StopTrading(pinned, "k3s", ("trading",)), pinned)
    with pytest.raises(RefusedError, match="another cluster than the one configured"):
        step.plan()


def test_a_pin_that_may_not_be_read_is_refused_with_the_right_that_is_missing(
    server: KubernetesServer, client: Make
) -> None:
    server.denied.add("get namespaces")
    with pytest.raises(RefusedError) as caught:
        client(UID).pods("trading")
    assert str(caught.value) == (
        "cluster_uid cannot be checked (403): the right is missing: get on namespaces,"
        " resourceNames [kube-system], by a Role in kube-system"
    )


def test_a_pin_that_could_not_be_read_is_read_again(server: KubernetesServer, client: Make) -> None:
    pinned = client(UID)
    server.traps.add("down")
    with pytest.raises(UnreachableError, match=r"not well .503."):
        pinned.pods("trading")
    server.traps.clear()
    time.sleep(1.01)
    assert len(pinned.pods("trading")) == 3


def test_many_questions_to_a_cluster_that_does_not_say_wait_for_one_answer(
    server: KubernetesServer, client: Make
) -> None:
    server.traps.add("hang")
    pinned = client(UID)
    problems: list[str] = []

    def ask() -> None:
        with pytest.raises(UnreachableError) as caught:
            pinned.pods("trading")
        problems.append(str(caught.value))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - started < 3 * FAST[1]
    assert len(problems) == 8
    assert all("did not answer within 0.5 s" in problem for problem in problems)


@pytest.mark.parametrize("uid", ["k3s-fra", UID.upper(), f"{UID} ", f"{UID}0", "0" * 36])
def test_what_is_no_uid_is_an_error_of_the_configuration(client: Make, uid: str) -> None:
    with pytest.raises(ValueError, match="cluster_uid is not the uid of a namespace: kubectl get"):
        client(uid)


def wait_for_notes(step: Identified) -> tuple[Note, ...]:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if notes := [note for note in step.plan().notes if note.kind == "not pinned"]:
            return tuple(notes)
        time.sleep(0.02)
    return ()


def test_an_unpinned_cluster_says_what_to_write(server: KubernetesServer, client: Make) -> None:
    loose = client("")
    step = Identified(StopTrading(loose, "k3s", ("trading",)), loose)
    loose.identify()
    (note,) = wait_for_notes(step)
    assert note.hint == f'cluster_uid = "{UID}"'
    assert (step.name, step.system, step.evidence) == ("kubernetes", "k3s", False)
    assert [seen.path for seen in server.seen].count(KUBE_SYSTEM) == 1


def test_an_unpinned_cluster_that_may_not_be_asked_is_halted_all_the_same(
    server: KubernetesServer, client: Make
) -> None:
    server.denied.add("get namespaces")
    loose = client("")
    step = Identified(StopTrading(loose, "k3s", ("trading",)), loose)
    loose.identify()
    (note,) = wait_for_notes(step)
    assert note.hint.startswith("its uid: kubectl get namespace kube-system -o ")
    assert step.plan().live


def test_an_unpinned_cluster_that_does_not_say_costs_no_time(
    server: KubernetesServer, client: Make
) -> None:
    server.traps.add("hang")
    loose = client("")
    started = time.monotonic()
    loose.identify()
    assert loose.notes() == ()
    assert time.monotonic() - started < 0.4
