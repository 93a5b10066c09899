"""A share of the digits as an archive: for demonstrations with devices of their own."""

from __future__ import annotations

import io

import numpy as np

from calyx.shared.config.schema import DataConfig
from calyx.shared.data.load import load_split
from calyx.shared.data.partition import partition


def share_of_digits(number: int, parts: int, seed: int) -> bytes:
    """An NPZ archive with the records that client `number` of `parts` has in a simulation.

    Args:
        number: from 0.
        parts: number of clients.
        seed: of the simulation.
    """
    config = DataConfig()
    train = load_split(config, seed).train
    share = train.subset(partition(train, config, parts, seed)[number])
    buffer = io.BytesIO()
    # Without the channel that the image view adds: an archive holds records as they are.
    features = share.floats[:, 0]
    np.savez_compressed(
        buffer, x_train=features, y_train=share.labels, classes=np.int64(share.classes)
    )
    return buffer.getvalue()
