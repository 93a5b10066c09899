"""The handwritten digits that ship with scikit-learn."""

from __future__ import annotations

import numpy as np

from calyx.shared.data.dataset import Dataset
from calyx.shared.host.optional_packages import require


def read_digits() -> Dataset:
    """All 1,797 images: features (1797, 8, 8) in [0, 1], ten classes.

    They are the test part of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and
    Kaynak 1998), counts of dark pixels from 0 to 16. Nothing is downloaded.
    """
    require("sklearn", "simulation", "the data source digits")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return Dataset(
        features=(bunch.images / 16.0).astype(np.float32),
        labels=bunch.target.astype(np.int64),
        target=10,
    )
