"""A ledger of no particular records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from calyx.client.ledger.ledger import Ledger
from tests.client.ledgers import FINGERPRINT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    with Ledger.open(path, data_fingerprint=FINGERPRINT) as opened:
        yield opened
