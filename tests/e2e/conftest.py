"""Real processes on 127.0.0.1, started once for all tests of a module.

`bench.deployment_harness.Deployment` sets a whole deployment up. ``federation`` is one with three
devices that draw noise from the system's entropy, and with a proxy that sees what they say; tests
that take something away from it (a device, the server) make one of their own with
``make_deployment``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.deployment_harness import Deployment
from tests.e2e.network import Network, behind_proxy


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A running deployment of three devices, sealed."""
    with behind_proxy(tmp_path_factory.mktemp("federation"), is_open=True) as network:
        yield network


@pytest.fixture
def make_deployment(tmp_path: Path) -> Iterator[Callable[..., Deployment]]:
    """Sets deployments up, for the test to start; all processes end with the test."""
    made: list[Deployment] = []

    def make(**options: Any) -> Deployment:
        made.append(Deployment(tmp_path / f"deployment-{len(made)}", **options))
        return made[-1]

    yield make
    for deployment in made:
        deployment.stop()
