"""A cluster that cannot be reached, or is another one: the command says so, and never HALTED."""

import base64
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from killswitch.sandbox.kubernetes_identity import OTHER_UID, UID
from killswitch.sandbox.world import World
from tests.tls import Authority
from tests.toxic import ToxicProxy
from tests.worlds import Ran, killswitch, running_world, secrets_of

DEADLINE_S = 12
OF_THE_CLUSTER = {"kubernetes", "synced-secrets"}
"""The steps that one kubeconfig of the sandbox leads to."""


def change_kubeconfig(world: World, part: str, **values: object) -> None:
    """Replace the kubeconfig's only user, or add to its only cluster."""
    path = world.folder / "kubeconfig.yaml"
    parsed = json.loads(path.read_text())
    entry = parsed[f"{part}s"][0]
    entry[part] = values if part == "user" else entry[part] | values
    path.write_text(json.dumps(parsed))


def behind(world: World, proxy: ToxicProxy) -> None:
    """Lead the kubeconfig to the proxy."""
    change_kubeconfig(world, "cluster", server=proxy.url)


def target(world: World) -> tuple[str, int]:
    host, port = world.kubernetes.url.removeprefix("http://").split(":")
    return host, int(port)


def halt(world: World, *more: str) -> Ran:
    config = ["--yes", "--config", str(world.config_file)]
    return killswitch(["--revoke", "--deadline", str(DEADLINE_S), *config, *more], world.folder)


def says_not_halted(ran: Ran, world: World, words: str) -> None:
    said = " ".join((ran.out + ran.err).split())
    assert ran.code in {10, 11}, ran
    assert ran.out.startswith("NOT HALTED")
    assert words in said, said
    assert "Traceback" not in said
    assert not [secret for secret in secrets_of(world) if secret in said]
    assert set(world.live()) == OF_THE_CLUSTER, "the others were halted all the same"


def blackhole(proxy: ToxicProxy) -> None:
    proxy.mode = "blackhole"


def reset(proxy: ToxicProxy) -> None:
    proxy.mode = "reset"


@pytest.mark.parametrize(
    ("spoil", "words"), [(blackhole, "did not answer within"), (reset, "was cut")]
)
def test_a_cluster_behind_a_broken_line_costs_only_itself_and_ends_in_time(
    tmp_path: Path, spoil: Callable[[ToxicProxy], None], words: str
) -> None:
    with running_world(tmp_path) as world, ToxicProxy(target(world)) as proxy:
        behind(world, proxy)
        spoil(proxy)
        started = time.monotonic()
        ran = halt(world)
        assert time.monotonic() - started < DEADLINE_S + 5
        says_not_halted(ran, world, words)
        proxy.mode = "pass"
        again = halt(world)
        assert "kubernetes" not in world.live(), again


def test_a_cluster_of_another_authority_is_refused_in_words(tmp_path: Path) -> None:
    context = Authority().server(tmp_path)
    with running_world(tmp_path) as world, ToxicProxy(target(world), tls=context) as proxy:
        another = base64.b64encode(Authority("another").pem).decode()
        change_kubeconfig(
            world, "cluster", server=proxy.url, **{"certificate-authority-data": another}
        )
        words = "does not verify: not by the kubeconfig's certificate-authority"
        says_not_halted(halt(world), world, words)
        assert world.kubernetes.seen == [], "not even the token was sent there"


def test_a_cluster_that_dies_in_the_middle_of_a_halt_is_never_called_halted(
    tmp_path: Path,
) -> None:
    with running_world(tmp_path) as world, ToxicProxy(target(world), "cut") as proxy:
        behind(world, proxy)
        proxy.cut_after = 3000
        ran = halt(world)
        assert "Traceback" not in ran.err
        if world.kubernetes.live():
            assert ran.out.startswith("NOT HALTED")


def test_another_cluster_is_left_alone_and_told(tmp_path: Path) -> None:
    with running_world(tmp_path, traps=["kubernetes-another-cluster"]) as world:
        words = f"leads to another cluster than the one configured: its uid is {OTHER_UID}"
        says_not_halted(halt(world), world, words)
        assert world.kubernetes.writes == []


def test_a_cluster_that_is_not_pinned_is_halted_and_says_what_to_write(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        config = world.config_file.read_text().replace(f'cluster_uid = "{UID}"\n', "")
        world.config_file.write_text(config)
        ran = halt(world)
        assert (ran.code, world.live()) == (0, {}), ran
        said = " ".join(ran.out.split())
        assert "the cluster is not pinned" in said
        assert f'cluster_uid = "{UID}"' in said


def test_a_plugin_is_run_before_the_touch_and_only_when_it_is_allowed(tmp_path: Path) -> None:
    with running_world(tmp_path) as world:
        credential = {
            "apiVersion": "client.authentication.k8s.io/v1",
            "kind": "ExecCredential",
            "status": {"token": world.kubernetes.token},
        }
        plugin = tmp_path / "plugin"
        plugin.write_text(f"#!/bin/sh\necho x >>{tmp_path}/runs\necho '{json.dumps(credential)}'\n")
        plugin.chmod(0o700)
        named = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./plugin"}
        change_kubeconfig(world, "user", exec=named)
        words = 'write exec = ["./plugin"] in its section'
        says_not_halted(halt(world), world, words)
        assert not (tmp_path / "runs").exists()
        config = world.config_file.read_text()
        world.config_file.write_text(
            config.replace('context = "sandbox"\n', 'context = "sandbox"\nexec = ["./plugin"]\n')
        )
        halt(world)
        assert "kubernetes" not in world.live()
        assert (tmp_path / "runs").read_text() == "x\n" * len(OF_THE_CLUSTER), "once by each step"
