"""No test touches what the user who runs it keeps outside the source tree."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest


@pytest.fixture(scope="session", autouse=True)
def _state_of_no_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


@pytest.fixture(autouse=True)
def _state_of_this_test(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry of records (`calyx.client.ledger.data_registry`) of its own."""
    path = tmp_path_factory.getbasetemp() / "states" / uuid4().hex
    monkeypatch.setenv("XDG_STATE_HOME", str(path))
