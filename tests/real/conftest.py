"""What the tests of deploy/ share: killswitch's own account, and a namespace that it may halt."""

import pytest

from tests.real.accounts import Account, grant, open_account
from tests.real.manifests import documents
from tests.real.workloads import make_all, make_secret
from tests.servers.control_plane import ControlPlane


@pytest.fixture(scope="session")
def account(control_plane: ControlPlane) -> Account:
    return open_account(control_plane)


@pytest.fixture
def trader(account: Account, namespace: str) -> str:
    """Return a namespace with workloads of every kind and exactly the rights of trader.yaml."""
    make_all(account.cluster, namespace)
    grant(account, documents("trader.yaml"), namespace)
    return namespace


@pytest.fixture(scope="session")
def idle(account: Account) -> str:
    """Return such a namespace for tests that change nothing in it: dry runs and refusals."""
    namespace = "idle-trader"
    make_all(account.cluster, namespace)
    make_secret(account.cluster, namespace, "exchange", "the-key")
    grant(account, documents("trader.yaml"), namespace)
    return namespace
