"""Credential plugins: run only when allowed by name, before the touch, bounded, and never told."""

import base64
import json
import stat
import sys
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from killswitch.clients.kubeconfig_exec import issue
from killswitch.clients.kubeconfig_file import read_entry
from killswitch.clients.kubernetes import KubernetesClient
from killswitch.errors import RefusedError, UnreachableError
from killswitch.sandbox.kubernetes import TOKEN, KubernetesServer
from tests.tls import Authority
from tests.toxic import ToxicProxy

V1 = "client.authentication.k8s.io/v1"
FAST = (2.0, 2.0)
HIDDEN = "token-that-nobody-was-told-of-0123456789"


@pytest.fixture
def server() -> Iterator[KubernetesServer]:
    server = KubernetesServer()
    server.start()
    yield server
    server.stop()


class Plugin:
    """A program beside the kubeconfig; it prints `prints`, and counts how often it was run."""

    def __init__(self, folder: Path, server: str = "http://127.0.0.1:1") -> None:
        self.folder = folder
        self.path = folder / "bin" / "plugin"
        self.path.parent.mkdir()
        self.kubeconfig = folder / "kubeconfig"
        self.cluster: dict[str, Any] = {"server": server}
        self.exec: dict[str, Any] = {"apiVersion": V1, "command": "./bin/plugin"}
        self.does("")
        self.prints(status={"token": TOKEN})

    def does(self, code: str) -> None:
        self.path.write_text(
            f"#!{sys.executable} -I\nimport os, pathlib, sys, time\n"
            f"here = pathlib.Path({str(self.folder)!r})\n"
            "with (here / 'runs').open('a') as file:\n    file.write('x')\n"
            "(here / 'info').write_text(os.environ['KUBERNETES_EXEC_INFO'])\n"
            f"{code}\n"
            "sys.stdout.write((here / 'answer').read_text())\n"
        )
        self.path.chmod(0o700)

    def prints(self, text: str = "", **answer: Any) -> None:
        whole = {"apiVersion": V1, "kind": "ExecCredential"} | answer
        (self.folder / "answer").write_text(text or json.dumps(whole))

    def expires(self, seconds: float, token: str = TOKEN) -> None:
        end = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.prints(status={"token": token, "expirationTimestamp": end})

    @property
    def runs(self) -> int:
        file = self.folder / "runs"
        return len(file.read_text()) if file.exists() else 0

    @property
    def info(self) -> Any:
        return json.loads((self.folder / "info").read_text())

    def write(self) -> Path:
        parts = {
            "contexts": [{"name": "here", "context": {"cluster": "c", "user": "eks"}}],
            "clusters": [{"name": "c", "cluster": self.cluster}],
            "users": [{"name": "eks", "user": {"exec": self.exec}}],
        }
        self.kubeconfig.write_text(json.dumps(parts))
        return self.kubeconfig

    def client(self, *allowed: str, **more: Any) -> KubernetesClient:
        plugins = allowed or (self.exec["command"],)
        return KubernetesClient(
            kubeconfig=self.write(), context="here", plugins=plugins, timeout_s=FAST, **more
        )

    def issue(self, timeout_s: float = 5, **environment: str) -> Any:
        entry = read_entry(self.write(), "here")
        assert entry.user.exec is not None
        path = {"PATH": "/usr/bin:/bin"} | environment
        allowed = [self.exec["command"]]
        return issue(entry, entry.user.exec, allowed, timeout_s=timeout_s, environment=path)


@pytest.fixture
def plugin(tmp_path: Path, server: KubernetesServer) -> Plugin:
    return Plugin(tmp_path, server.url)


# What works.


def test_a_plugin_s_token_is_shown_and_it_is_run_once_before_the_touch(plugin: Plugin) -> None:
    client = plugin.client()
    assert client.warm() == "kubernetes v1.36.2+sandbox"
    client.login(may_write=True)
    assert len(client.pods("trading")) == 3
    assert plugin.runs == 1


def test_a_plugin_in_path_is_found_by_its_bare_name(plugin: Plugin) -> None:
    plugin.exec["command"] = "plugin"
    assert plugin.issue(PATH=f"/nowhere:{plugin.path.parent}").token == TOKEN
    with pytest.raises(RefusedError, match=r"the plugin 'plugin' is not in PATH$"):
        plugin.issue()


def test_a_plugin_that_is_missing_is_told_with_its_install_hint(plugin: Plugin) -> None:
    plugin.exec |= {"command": "no-such-plugin", "installHint": "Install\nit  like so"}
    with pytest.raises(RefusedError, match=r"plugin' is not in PATH: Install it like so$"):
        plugin.issue()


def test_a_plugin_s_client_certificate_is_shown(plugin: Plugin, tmp_path: Path) -> None:
    authority = Authority()
    signed = authority.sign("operator")
    pair = {"clientCertificateData": signed.pem.decode(), "clientKeyData": signed.key_pem.decode()}
    plugin.prints(status=pair | {"token": TOKEN})
    context = authority.server(tmp_path, clients="required")
    host, port = plugin.cluster["server"].removeprefix("http://").split(":")
    with ToxicProxy((host, int(port)), tls=context) as front:
        ca = base64.b64encode(authority.pem).decode()
        plugin.cluster = {"server": front.url, "certificate-authority-data": ca}
        client = plugin.client()
        assert "client certificate, or the plugin's token, until" in client.warm()
        client.login(may_write=False)
        assert len(client.pods("trading")) == 3


def test_a_plugin_is_told_what_it_asks_for_and_nothing_is_interactive(
    plugin: Plugin, tmp_path: Path
) -> None:
    plugin.issue()
    spec = {"interactive": False}
    assert plugin.info == {"apiVersion": V1, "kind": "ExecCredential", "spec": spec}
    (tmp_path / "ca.pem").write_bytes(b"authority")
    plugin.exec |= {"provideClusterInfo": True, "interactiveMode": "IfAvailable"}
    extension = {"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}
    plugin.cluster = {
        "server": "https://api.example",
        "tls-server-name": "api.internal",
        "certificate-authority": "ca.pem",
        "extensions": [{"name": "other", "extension": 1}, extension],
    }
    plugin.issue()
    assert plugin.info["spec"]["cluster"] == {
        "server": "https://api.example",
        "tls-server-name": "api.internal",
        "certificate-authority-data": base64.b64encode(b"authority").decode(),
        "config": {"audience": "a"},
    }


def test_its_arguments_and_its_variables_are_the_kubeconfig_s(plugin: Plugin) -> None:
    plugin.exec |= {"args": ["a b", "$HOME"], "env": [{"name": "AWS_PROFILE", "value": "halt"}]}
    plugin.does(
        "(here / 'seen').write_text(repr((sys.argv[1:], os.environ['AWS_PROFILE'],"
        " os.environ['OURS'], sys.stdin.read())))"
    )
    plugin.issue(OURS="kept")
    seen = (plugin.folder / "seen").read_text()
    assert seen == repr((["a b", "$HOME"], "halt", "kept", ""))


def test_v1beta1_is_spoken_and_answered(plugin: Plugin) -> None:
    version = "client.authentication.k8s.io/v1beta1"
    plugin.exec["apiVersion"] = version
    plugin.prints(apiVersion=version, status={"token": TOKEN})
    assert plugin.issue().token == TOKEN
    assert plugin.info["apiVersion"] == version


# What is not run.


@pytest.mark.parametrize("allowed", ["plugin", "bin/plugin", "/bin/plugin", "plug", "*"])
def test_only_exactly_what_is_allowed_is_run(plugin: Plugin, allowed: str) -> None:
    client = plugin.client(allowed)
    line = json.dumps([allowed, "./bin/plugin"])
    for call in (client.warm, lambda: client.login(may_write=True)):
        with pytest.raises(RefusedError) as caught:
            call()
        assert str(caught.value) == (
            "kubeconfig user 'eks' gets its credential from the plugin './bin/plugin', which is"
            f" not allowed to run: write exec = {line} in its section, or give it"
            " a token"
        )
    assert plugin.runs == 0


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"interactiveMode": "Always"}, "wants to ask a person .interactiveMode Always."),
        ({"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "speaks '.*v1alpha1'"),
        ({"apiVersion": ""}, "speaks no apiVersion: only v1 and v1beta1 are spoken"),
        ({"command": "./bin/none"}, "cannot be run: No such file"),
        ({"command": "./bin"}, "cannot be run: Permission denied"),
        ({"args": ["\0"]}, "cannot be run"),
    ],
)
def test_what_cannot_be_run_is_refused_in_words(
    plugin: Plugin, changed: dict[str, Any], words: str
) -> None:
    plugin.exec |= changed
    with pytest.raises(RefusedError, match=words):
        plugin.issue()
    assert plugin.runs == 0


def test_a_file_that_is_not_executable_is_refused(plugin: Plugin) -> None:
    plugin.path.chmod(stat.S_IRUSR)
    with pytest.raises(RefusedError, match=r"'\./bin/plugin' cannot be run: Permission denied"):
        plugin.issue()


# What goes wrong in it.


def test_a_plugin_that_hangs_costs_its_time_and_its_children_end_with_it(plugin: Plugin) -> None:
    plugin.does(
        "if not os.fork():\n    time.sleep(1)\n    (here / 'late').touch()\n    os._exit(0)\n"
        "time.sleep(30)"
    )
    started = time.monotonic()
    with pytest.raises(UnreachableError, match=r"'\./bin/plugin' was not done within 0\.5 s"):
        plugin.issue(timeout_s=0.5)
    assert time.monotonic() - started < 3
    time.sleep(1)
    assert not (plugin.folder / "late").exists()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("not json", "printed something else than a credential"),
        ("[]", "printed something else than a credential"),
        ('{"status": {"token": "x"}}', "printed something else than a credential"),
        ({"kind": "Token", "status": {"token": HIDDEN}}, "something else than a credential"),
        ({"status": {"token": 5}}, "something else than a credential"),
        ({"status": None}, "something else than a credential"),
        ({"status": {}}, "gave neither a token nor a client certificate"),
        ({"status": {"token": ""}}, "gave neither a token nor a client certificate"),
        ({"status": {"clientCertificateData": "pem"}}, "a client certificate without its key"),
        ({"status": {"clientKeyData": HIDDEN}}, "a client certificate without its key, or a key"),
        (
            {"apiVersion": "client.authentication.k8s.io/v1beta1", "status": {"token": HIDDEN}},
            "answered in another apiVersion",
        ),
        ({"status": {"token": HIDDEN, "expirationTimestamp": "soon"}}, "something else than"),
        (
            {"status": {"token": HIDDEN, "expirationTimestamp": "2030-01-01T00:00:00"}},
            "without a time zone",
        ),
        ("x" * 300_000, "printed more than 256 KiB"),
    ],
)
def test_only_a_whole_credential_is_taken(
    plugin: Plugin, answer: str | dict[str, Any], words: str
) -> None:
    if isinstance(answer, str):
        plugin.prints(answer)
    else:
        plugin.prints(**answer)
    with pytest.raises(RefusedError, match=words) as caught:
        plugin.issue()
    assert HIDDEN not in "".join(traceback.format_exception(caught.value))


def test_a_failure_is_told_without_what_it_may_give_away(plugin: Plugin) -> None:
    plugin.exec["env"] = [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hush-hush"}]
    plugin.does(
        f"sys.stderr.write('long ago\\n' * 99 + 'no\\x1b[1m session for hush-hush, {HIDDEN}\\n')\n"
        f"print({TOKEN!r})\nsys.exit(7)"
    )
    with pytest.raises(RefusedError) as caught:
        plugin.issue()
    said = str(caught.value)
    assert said == "the plugin './bin/plugin' failed (exit code 7); run it by hand to see why"


# How long it lasts.


def test_a_credential_that_lasts_is_told_with_its_end(plugin: Plugin) -> None:
    plugin.expires(7200)
    assert ", plugin's token until 20" in plugin.client(needed_s=60).warm()


def test_one_that_ends_within_a_halt_is_told_and_fetched_again_at_the_login(
    plugin: Plugin,
) -> None:
    plugin.expires(30, token="of-the-first-run")
    client = plugin.client(needed_s=60)
    with pytest.raises(RefusedError, match=r"plugin's token expires at .*, within the 60 s that"):
        client.warm()
    client._loaded_at -= 60  # the operator took a minute to touch
    plugin.expires(3600)
    client.login(may_write=False)
    assert len(client.pods("trading")) == 3
    assert plugin.runs == 2


def test_what_ended_while_waiting_for_the_touch_is_never_used_in_silence(plugin: Plugin) -> None:
    plugin.expires(-30)
    client = plugin.client(needed_s=60)
    with pytest.raises(RefusedError, match="the plugin's token expired at"):
        client.warm()
    client._loaded_at -= 60
    plugin.does("sys.exit(1)")
    with pytest.raises(RefusedError, match=r"failed .exit code 1."):
        client.login(may_write=False)


def test_one_that_still_lasts_a_little_is_used_when_no_other_is_to_be_had(plugin: Plugin) -> None:
    plugin.expires(30)
    client = plugin.client(needed_s=60)
    with pytest.raises(RefusedError):
        client.warm()
    client._loaded_at -= 60
    plugin.does("sys.exit(1)")
    client.login(may_write=False)
    assert len(client.pods("trading")) == 3


def test_a_plugin_that_failed_once_is_run_again_at_the_login(plugin: Plugin) -> None:
    client = plugin.client()
    plugin.does("sys.exit(1)")
    with pytest.raises(RefusedError, match="exit code 1"):
        client.warm()
    plugin.does("")
    client.login(may_write=False)
    assert len(client.pods("trading")) == 3


def test_nothing_shows_what_a_plugin_gave(plugin: Plugin) -> None:
    plugin.prints(status={"token": HIDDEN})
    client = plugin.client()
    client.login(may_write=False)
    with pytest.raises(RefusedError, match=r"the plugin's token was not accepted .401.") as caught:
        client.pods("trading")
    told = repr(client) + repr(plugin.issue()) + "".join(traceback.format_exception(caught.value))
    assert HIDDEN not in told
