"""A real API server: each way in works, each fault on the way has its words, and the pin holds."""

import base64
import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import RefusedError, UnreachableError, VendorError
from tests.servers.control_plane import ControlPlane
from tests.tls import Authority
from tests.toxic import Mode, ToxicProxy

FAST = (1.0, 1.5)
IN_TIME_S = 4.0
Connect = Callable[..., KubernetesClient]


@pytest.fixture
def connect(control_plane: ControlPlane, tmp_path: Path) -> Connect:
    def make(
        user: dict[str, Any] | None = None, *, cluster: dict[str, Any] | None = None, **more: Any
    ) -> KubernetesClient:
        text = json.loads(control_plane.admin_kubeconfig.read_text())
        if user is not None:
            text["users"][0]["user"] = user
        text["clusters"][0]["cluster"] |= cluster or {}
        path = tmp_path / "kubeconfig"
        path.write_text(json.dumps(text))
        client = KubernetesClient(kubeconfig=path, context="real", timeout_s=FAST, **more)
        client.login(may_write=True)
        return client

    return make


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[ToxicProxy]:
    host, port = control_plane.url.removeprefix("https://").split(":")
    with ToxicProxy((host, int(port))) as proxy:
        yield proxy


def through(proxy: ToxicProxy) -> dict[str, str]:
    return {"server": proxy.url.replace("http:", "https:")}


def pair(authority: Authority, name: str, days: float = 1) -> dict[str, str]:
    signed = authority.sign(name, days=days)
    return {
        "client-certificate-data": base64.b64encode(signed.pem).decode(),
        "client-key-data": base64.b64encode(signed.key_pem).decode(),
    }


def test_a_token_in_a_file_is_taken(
    control_plane: ControlPlane, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(control_plane.token("admin"))
    assert connect({"tokenFile": "token"}).pods("default") == ()


def test_a_plugin_s_token_is_taken(
    control_plane: ControlPlane, connect: Connect, tmp_path: Path
) -> None:
    version = "client.authentication.k8s.io/v1"
    status = {"token": control_plane.token("admin")}
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": status}
    plugin = tmp_path / "plugin"
    plugin.write_text(f"#!/bin/sh\necho '{json.dumps(answer)}'\n")
    plugin.chmod(0o700)
    user = {"exec": {"apiVersion": version, "command": "./plugin"}}
    assert connect(user, plugins=["./plugin"]).pods("default") == ()


def test_impersonation_takes_rights_away(control_plane: ControlPlane, connect: Connect) -> None:
    user = {"token": control_plane.token("admin"), "as": "nobody", "as-groups": ["a", "b"]}
    with pytest.raises(RefusedError, match='User "nobody" cannot list resource "pods"'):
        connect(user).pods("default")


def test_a_token_of_another_cluster_is_told(connect: Connect) -> None:
    with pytest.raises(RefusedError, match=r"the token was not accepted .401.: expired, or of"):
        connect({"token": "of-another-cluster"}).pods("default")


def test_a_client_certificate_that_is_over_or_unknown_is_told(connect: Connect) -> None:
    unknown = pair(Authority("another"), "operator")
    with pytest.raises(
        RefusedError, match=r"client certificate was not accepted .401.: expired, o"
    ):
        connect(unknown).pods("default")
    over = pair(Authority("another"), "operator", days=-1)
    with pytest.raises(RefusedError, match=r"was not accepted .401.: expired at 20.* UTC$"):
        connect(over).pods("default")


def test_another_authority_and_another_name_are_told(connect: Connect) -> None:
    other = {"certificate-authority-data": base64.b64encode(Authority("another").pem).decode()}
    with pytest.raises(RefusedError, match="does not verify: not by the kubeconfig's certif"):
        connect(cluster=other).pods("default")
    with pytest.raises(RefusedError, match="does not verify: it is for another name"):
        connect(cluster={"tls-server-name": "api.internal"}).pods("default")


def test_plain_http_to_its_port_is_told(control_plane: ControlPlane, connect: Connect) -> None:
    plain = {"server": control_plane.url.replace("https:", "http:")}
    with pytest.raises(RefusedError, match=r"refused .400.: this port wants https"):
        connect(cluster=plain).pods("default")


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("blackhole", "did not answer within"),
        ("reset", "was cut"),
        ("drip", "did not answer within|dripping in too slowly"),
        ("garbage", "does not answer in TLS"),
    ],
)
def test_a_broken_line_to_it_is_told_in_time(
    connect: Connect, proxy: ToxicProxy, mode: Mode, words: str
) -> None:
    client = connect(cluster=through(proxy))
    assert client.pods("default") == ()
    proxy.mode = mode
    proxy.reset()
    with suppress(VendorError):
        client.pods("default")  # it may still meet the connection that was reset
    for ask in (lambda: client.pods("default"), lambda: client.writes.delete_pods("default")):
        started = time.monotonic()
        with pytest.raises(VendorError, match=words):
            ask()
        assert time.monotonic() - started < IN_TIME_S
    proxy.mode = "pass"
    time.sleep(1.1)
    assert client.pods("default") == ()


def test_the_pin_holds_and_needs_just_one_right(
    control_plane: ControlPlane, connect: Connect
) -> None:
    _, found = control_plane.send("GET", "/api/v1/namespaces/kube-system")
    uid = found["metadata"]["uid"]
    assert connect(cluster_uid=uid).pods("default") == ()
    other = re.sub("^.", lambda first: "0" if first[0] != "0" else "1", uid)
    with pytest.raises(RefusedError, match=f"another cluster .*its uid is {uid}, cluster_uid is"):
        connect(cluster_uid=other).pods("default")
    mine = {"token": control_plane.token("third")}
    with pytest.raises(RefusedError, match=r"cluster_uid cannot be checked .403.: the right is"):
        connect(mine, cluster_uid=uid).pods("default")
    place = "/apis/rbac.authorization.k8s.io/v1/namespaces/kube-system"
    rule = {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]}
    rule["resourceNames"] = ["kube-system"]
    named = {"metadata": {"name": "uid-of-the-cluster"}}
    control_plane.send("POST", f"{place}/roles", named | {"rules": [rule]})
    binding = {
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "uid-of-the-cluster",
        },
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "third"}],
    }
    control_plane.send("POST", f"{place}/rolebindings", named | binding)
    time.sleep(1.1)
    with pytest.raises(RefusedError, match='User "third" cannot list resource "pods"'):
        connect(mine, cluster_uid=uid).pods("default")


def test_a_server_that_is_killed_is_told_and_found_again(
    control_plane: ControlPlane, connect: Connect
) -> None:
    client = connect()
    assert client.pods("default") == ()
    control_plane.kill_api()
    try:
        for _ in range(3):
            with pytest.raises(UnreachableError, match=r"was cut|takes no connection"):
                client.pods("default")
    finally:
        control_plane.start_api()
    time.sleep(1.1)
    assert client.pods("default") == ()
