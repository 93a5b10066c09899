"""Real processes on 127.0.0.1, started once for all tests of this folder.

`bench.deployment.Deployment` sets a whole deployment up. ``federation`` is one with three devices
that draw noise from the system's entropy; tests that take something away from it (a device, the
server) make one of their own with ``make_deployment``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.deployment import Deployment

# A device's first policy lets one run of the default preset pass; tests are many runs.
GENEROUS = ("max_epsilon = 4.0", "max_epsilon = 100.0")


def generous(deployment: Deployment) -> None:
    """Let the owners of all devices allow many runs."""
    for number in range(deployment.clients):
        path = deployment.device(number).policy_path
        path.write_text(path.read_text().replace(*GENEROUS))


@pytest.fixture(scope="session")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """A running deployment of three devices, sealed."""
    deployment = Deployment(tmp_path_factory.mktemp("federation"))
    generous(deployment)
    with deployment:
        yield deployment


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
