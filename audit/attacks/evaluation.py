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
from calyx.shared.data.dataset import rows
from calyx.shared.errors import UsageError
from calyx.shared.models import build_model
from calyx.shared.models.inputs import call, tensors
from calyx.shared.protocol.arrays import load_weights
from calyx.shared.target import Classes
from calyx.shared.tasks.find import task_of
from calyx.simulations.run_folder import RunFolder

NAME = "evaluation"
_BATCH = 500


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Evaluate the final model and put labels and predictions into evidence.

    Raises:
        DataError: the test records cannot be loaded.
        UsageError: they have no class each.
    """
    config = folder.stored_config()
    test = load_split(config.data, config.seed, config.task).test
    if not isinstance(test.spec.target, Classes):
        raise UsageError(
            f"accuracy by class needs one class a record; here a label is {test.spec.target}"
        )
    task = task_of(config.task, test.spec.target)
    model = build_model(config.model, test.spec, config.seed, task)
    load_weights(model, load(folder.model()))
    model.eval()
    predicted = np.empty(len(test), dtype=np.int64)
    with torch.no_grad():
        for start in range(0, len(test), _BATCH):
            some = np.arange(start, min(start + _BATCH, len(test)))
            outputs = call(model, tensors(rows(test.features, some)))
            predicted[some] = outputs.argmax(dim=1).numpy()
            progress("evaluation", min(1.0, (start + _BATCH) / len(test)))
    store.put_arrays(
        NAME,
        {
            "labels": test.labels.astype(np.int64),
            "predicted": predicted,
            "classes": np.array(test.classes),
        },
    )
