"""Records of your own, and whose they are: an NPZ archive with an array of client ids."""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

from calyx import run

HOSPITALS = {"north": 520, "south": 380, "east": 300, "west": 180, "valley": 70}


def write_archive(path: Path) -> None:
    """Digits stand in for your records; each row belongs to one hospital."""
    digits = load_digits()
    order = np.random.default_rng(seed=0).permutation(len(digits.target))
    images, labels = digits.images[order] / 16, digits.target[order]
    hospital = np.repeat(list(HOSPITALS), list(HOSPITALS.values()))
    train = len(hospital)  # the other 347 are the server's test set
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(
        path,
        x_train=images[:train].astype(np.float32),
        y_train=labels[:train],
        hospital=hospital,
        x_test=images[train:].astype(np.float32),
        y_test=labels[train:],
    )


archive = Path("own-data/hospitals.npz")
write_archive(archive)
result = run(
    "digits-cnn",
    data_dir=archive.parent,
    settings={
        "data.source": "npz",
        "data.partition": "natural",
        "data.natural_id": "hospital",
        "federation.clients": len(HOSPITALS),
        "secure_aggregation.min_contributors": 4,
        "training.rounds": 15,
        "privacy.epsilon": 8,
    },
)
print(f"accuracy {result.accuracy:.1%} with {result.clients} hospitals")
print(f"epsilon {result.epsilon_max} at delta {result.delta}")
print(f"run folder {result.run_dir}")
