"""The cluster under test: the sandbox's, or a real one."""

from collections.abc import Iterator

import pytest

from tests.contract.kubernetes_bench import Bench, FakeBench, RealBench


@pytest.fixture(scope="session", params=["sandbox", pytest.param("real", marks=pytest.mark.real)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "sandbox":
        with FakeBench().running() as fake:
            yield fake
    else:
        yield RealBench(request.getfixturevalue("cluster"))
