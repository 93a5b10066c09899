"""What the final model says about the server's test records, kept for the report.

Not an attack, but evidence in the same way: labels and predicted classes go into the store, so
that accuracy for each class can be computed again without any data.
"""

from __future__ import annotations

import numpy as np
import torch
from safetensors.numpy import load

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.shared.data import load_split
from calyx.shared.models import build_model
from calyx.shared.protocol.arrays import load_weights
from calyx.simulations.run_folder import RunFolder

NAME = "evaluation"
_BATCH = 500


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Evaluate the final model and put labels and predictions into evidence.

    Raises:
        DataError: the test records cannot be loaded.
    """
    config = folder.stored_config()
    test = load_split(config.data, config.seed).test
    model = build_model(config.model, test.spec, test.classes, config.seed)
    load_weights(model, load(folder.model()))
    model.eval()
    predicted = np.empty(len(test), dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(test), _BATCH):
            features = torch.from_numpy(test.features[start : start + _BATCH])
            predicted[start : start + _BATCH] = model(features).argmax(dim=1).numpy()
            progress("evaluation", min(1.0, (start + _BATCH) / len(test)))
    store.put_arrays(
        NAME,
        {
            "labels": test.labels.astype(np.int64),
            "predicted": predicted,
            "classes": np.array(test.classes),
        },
    )
