"""The pytest plugin of the real servers: the option --real, the marker, the fixtures."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.servers.control_plane import ControlPlane
from tests.servers.external_secrets import ExternalSecrets
from tests.servers.fake_node import FakeNode
from tests.servers.node import Node, why_no_node
from tests.servers.s3 import SeaweedFS
from tests.servers.vault_server import DevVault, RaftVault

FIXTURES = frozenset(
    {
        "control_plane",
        "cluster",
        "dev_vault",
        "raft_vault",
        "external_secrets",
        "seaweedfs",
        "namespace",
    }
)
_REAL = Path(__file__).parents[1] / "real"
_numbers = itertools.count(1)
_LEFT_OUT = pytest.StashKey[int]()


@dataclass(frozen=True, slots=True)
class Cluster:
    """A control plane with the node that runs its pods: a real one if this machine can."""

    control_plane: ControlPlane
    node: Node | FakeNode


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --real."""
    parser.addoption(
        "--real",
        action="store_true",
        help="run only the tests that need real servers (scripts/servers build)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "real: needs real servers; runs only with --real")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests of real servers apart: with --real only they run, else all the others."""
    wanted = bool(config.getoption("--real"))
    left_out = [item for item in items if is_real(item) != wanted]
    items[:] = [item for item in items if is_real(item) == wanted]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
    config.stash[_LEFT_OUT] = 0 if wanted else len(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that has the terminal how many were left out."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["left_out"] = session.config.stash.get(_LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a test process left out; each of them collects the same tests."""
    output = getattr(node, "workeroutput", {})
    node.config.stash[_LEFT_OUT] = output.get("left_out", 0)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say in one line what was left out."""
    count = config.stash.get(_LEFT_OUT, 0)
    if count:
        terminalreporter.write_line(
            f"left out: {count} tests against real servers; scripts/check --real runs them"
        )
    if config.getoption("--real") and why_no_node():
        terminalreporter.write_line(f"the node of these tests was played: {why_no_node()}")


def is_real(item: pytest.Item) -> bool:
    """Whether a test needs real servers: by its marker, its folder or its fixtures."""
    known = getattr(getattr(item, "_fixtureinfo", None), "name2fixturedefs", {})
    # Ours, not another of the same name: "cluster" is a good name for a fake, too.
    wants = any(known[name][-1].func.__module__ == __name__ for name in FIXTURES & known.keys())
    return wants or item.get_closest_marker("real") is not None or _REAL in item.path.parents


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane for the whole run; tests keep to a `namespace` of their own."""
    with ControlPlane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Iterator[Cluster]:
    """The control plane with a node: a real one where this machine can have it."""
    joining = FakeNode(control_plane) if why_no_node() else Node(control_plane)
    with joining as node:
        yield Cluster(control_plane, node)


@pytest.fixture(scope="session")
def dev_vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevVault]:
    """A dev Vault for the whole run; tests keep to mounts of their own."""
    with DevVault(tmp_path_factory.mktemp("dev-vault")) as running:
        yield running


@pytest.fixture
def raft_vault(tmp_path: Path) -> Iterator[RaftVault]:
    """A Vault on raft storage for one test."""
    with RaftVault(tmp_path / "vault") as running:
        yield running


@pytest.fixture(scope="session")
def external_secrets(
    control_plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExternalSecrets]:
    """The External Secrets Operator for the whole run."""
    with ExternalSecrets(control_plane, tmp_path_factory.mktemp("external-secrets")) as running:
        yield running


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """An S3 server for the whole run."""
    with SeaweedFS(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture
def namespace(request: pytest.FixtureRequest, control_plane: ControlPlane) -> Iterator[str]:
    """A fresh namespace; what is left in it is deleted afterwards."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    name = f"{words}-{next(_numbers)}"
    control_plane.send("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    here = f"/api/v1/namespaces/{name}"
    control_plane.send("DELETE", f"{here}/resourcequotas")
    control_plane.send("DELETE", f"{here}/pods", query={"gracePeriodSeconds": 1})
    control_plane.send("DELETE", here)
