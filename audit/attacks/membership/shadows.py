"""Shadow federations for membership inference: the whole run again, on half the records each time.

LiRA (Carlini et al. 2022) and RMIA (Zarifzadeh, Liu, Shokri 2024) compare a model with models that
were trained with and without a record. Here such a model is the outcome of a *whole federation*:
the run's own clients, noise, sealing and rounds, with other noise each time. Shadows come in pairs
whose halves of the records complement each other, so that every record is in exactly half of them.

Evidence: which records each shadow was trained on, and how confident each final model is in the
label of every training and test record. Scores and rates are made from that
(`calyx.audit.findings.measured.membership`).
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load

from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.shared.config import Config
from calyx.shared.data import Dataset, load_split
from calyx.shared.data.dataset import rows
from calyx.shared.errors import UsageError
from calyx.shared.models import build_model
from calyx.shared.models.inputs import call, tensors
from calyx.shared.protocol.arrays import load_weights
from calyx.shared.target import Classes
from calyx.shared.tasks.find import task_of
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

NAME = "membership"
DEFAULT_SHADOWS = 8
_AT_ONCE = 500


def run(
    folder: RunFolder,
    store: EvidenceStore,
    progress: Progress,
    *,
    shadows: int = DEFAULT_SHADOWS,
    workers: int | None = None,
) -> None:
    """Train the shadows and put their confidences into evidence.

    Args:
        folder: the run.
        store: its evidence.
        progress: receives what is being done and the share of it that is done.
        shadows: number of federations, even and at least 4.
        workers: client processes; None for one per core.

    Raises:
        UsageError: too few records or shadows.
    """
    config = folder.stored_config()
    parts = [np.asarray(part, dtype=np.int64) for part in partition_of(config)]
    if shadows < 4 or shadows % 2:
        raise UsageError(
            "membership inference needs an even number of shadow models of at least 4, not "
            f"{shadows}"
        )
    if min(map(len, parts)) < 4:
        raise UsageError(
            "a client has fewer than 4 records, too few to leave half of them out",
            hint="leave the attack out with --skip membership",
        )
    split = load_split(config.data, config.seed, config.task)
    inside = complementary_halves(shadows, parts, len(split.train), secrets.randbits(63))
    train, test, headlines = [], [], []
    total = config.training.rounds
    for number in range(shadows):

        def on_round(done: int, number: int = number) -> None:
            progress(NAME, (number + done / total) / shadows)

        observers = Observers(
            client_settings={"simulation-seed": str(secrets.randbits(62))}, on_round=on_round
        )
        halves = [part[inside[number, part]] for part in parts]
        with replayed_run(config, observers, workers=workers, partition=halves) as shadow:
            train.append(confidences(config, shadow, split.train))
            test.append(confidences(config, shadow, split.test))
            headlines.append(shadow.told().headlines()[-1])
    held = np.sort(np.concatenate(parts))
    store.put_arrays(
        NAME,
        {
            "inside": inside[:, held],
            "train": np.array(train)[:, held],
            "test": np.array(test),
            "headlines": np.array(headlines, dtype=np.float64),
            "records": held,
        },
    )


def complementary_halves(
    shadows: int, parts: list[NDArray[np.int64]], records: int, seed: int
) -> NDArray[np.bool_]:
    """Which record is in which shadow: bool (shadows, records); half of each client's records."""
    generator = np.random.default_rng(seed)
    inside = np.zeros((shadows, records), dtype=np.bool_)
    for pair in range(shadows // 2):
        for part in parts:
            order = generator.permutation(part)
            half = len(part) // 2
            inside[2 * pair, order[:half]] = True
            inside[2 * pair + 1, order[half:]] = True
    return inside


def confidences(config: Config, folder: RunFolder, data: Dataset) -> NDArray[np.float64]:
    """How sure a final model is of each record's label, float64 (records,).

    Of classes it is log p_y - log of the sum of the others' probabilities (Carlini et al. 2022); of
    other labels, the negative loss.
    """
    task = task_of(config.task, data.spec.target)
    model = build_model(config.model, data.spec, config.seed, task)
    weights: dict[str, Any] = load(folder.model())
    load_weights(model, weights)
    model.eval()
    found = []
    with torch.no_grad():
        for first in range(0, len(data), _AT_ONCE):
            some = np.arange(first, min(first + _AT_ONCE, len(data)))
            inputs = tensors(rows(data.features, some))
            labels = torch.from_numpy(data.labels[some])
            outputs = call(model, inputs)
            if not isinstance(data.spec.target, Classes):
                found.append(-task.record_losses(outputs, labels).double().numpy())
                continue
            logits = outputs.double()
            own = logits.gather(1, labels[:, None])[:, 0]
            others = logits.scatter(1, labels[:, None], -torch.inf).logsumexp(dim=1)
            found.append((own - others).numpy())
    return np.concatenate(found)
