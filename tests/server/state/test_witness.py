"""What the server remembers of the authority's releases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from calyx.server.state.witness import FILE_NAME, Witness
from calyx.shared.errors import CheckpointError, ReleaseRefused
from calyx.shared.protocol.authority.interface import Released


def released(index: int) -> Released:
    return Released(np.zeros(3, np.int64), index, f"{index:064x}")


def test_newest_release_survives_the_process(tmp_path: Path) -> None:
    witness = Witness(tmp_path)
    assert witness.head is None
    for index in (4, 9):
        witness.saw(released(index))
        assert Witness(tmp_path).head == witness.head == (index, f"{index:064x}")


@pytest.mark.parametrize("index", [3, 4])
def test_release_that_stands_no_later_than_one_before_is_refused(
    tmp_path: Path, index: int
) -> None:
    witness = Witness(tmp_path)
    witness.saw(released(4))
    with pytest.raises(ReleaseRefused, match="^rolled-back: .*restored from a backup"):
        witness.saw(released(index))
    assert Witness(tmp_path).head == (4, f"{4:064x}")


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"index": "4", "hash": "' + "0" * 64 + '"}', '{"index": 4, "hash": "0"}'],
)
def test_damaged_record_is_not_taken_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE_NAME).write_text(content)
    with pytest.raises(CheckpointError, match=r"cannot be used.*\nhint: .* restored from a backup"):
        Witness(tmp_path)


def test_simulation_leaves_no_record(tmp_path: Path) -> None:
    witness = Witness(None)
    witness.saw(released(4))
    assert witness.head == (4, f"{4:064x}") and not list(tmp_path.iterdir())
