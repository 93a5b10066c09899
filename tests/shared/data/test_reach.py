"""What loading data must not touch: the network, and libraries that are not needed."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calyx.shared.config.schema import DataConfig
from calyx.shared.data import Dataset, load_folder, load_split, partition


def test_the_guard_of_these_tests_sees_a_connection(no_network: list[str]) -> None:
    with pytest.raises(OSError, match="allows no getaddrinfo"):
        socket.create_connection(("localhost", 9))
    with socket.socket() as unconnected, pytest.raises(OSError, match="allows no connect"):
        unconnected.connect(("127.0.0.1", 9))
    assert len(no_network) == 2
    no_network.clear()


@pytest.mark.usefixtures("no_network")
def test_no_source_but_the_hub_opens_a_connection(idx_folder: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.zeros((20, 4, 4)), y=np.arange(20) % 2)
    for config in (
        DataConfig(),
        DataConfig(source="idx", directory=str(idx_folder)),
        DataConfig(source="npz", directory=str(tmp_path / "set.npz")),
    ):
        assert len(load_split(config, 0).train) > 0
        assert len(load_folder(config)) > 0


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "natural"])
def test_no_partition_opens_a_connection(labelled: Dataset, kind: str) -> None:
    config = DataConfig.model_validate({"source": "npz", "partition": kind})
    assert len(partition(labelled, config, 6, 0)) == 6


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import calyx.shared.data, sys; "
        "print(sorted({m.partition('.')[0] for m in sys.modules} & "
        "{'sklearn', 'scipy', 'datasets', 'flwr_datasets', 'pandas', 'pyarrow', 'torch', "
        "'pydantic', 'flwr', 'PIL'}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert shown.stdout == "[]\n"
