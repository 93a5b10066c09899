"""What each party of this run really received, and every attack on it.

The run is repeated for one round with its own configuration (`calyx.audit.replay.replay`), so
noise, sealing and numbers of clients and records are those of the run, and the bytes that cross
each boundary are kept (`calyx.audit.replay.capture`). From them each observer makes its best
estimate of a gradient (`calyx.audit.attacks.gradient_estimates`), and all attacks of
`calyx.audit.attacks.inversion` are tried on it.

Only the first round is captured: weights are then untrained, which is when gradients reveal most.
What several rounds reveal together is for epsilon and the canaries to say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from calyx.audit.attacks.gradient_estimates import GradientEstimate, gradient_estimates
from calyx.audit.attacks.inversion import closed_form, labels
from calyx.audit.attacks.inversion.estimates import as_gradient
from calyx.audit.attacks.inversion.fedsgd import Observed, invert_piecewise, invert_smooth
from calyx.audit.attacks.inversion.quality import match
from calyx.audit.attacks.inversion.reference_federation import CapturedRound
from calyx.audit.evidence.store import EvidenceStore
from calyx.audit.progress import Progress, Tick
from calyx.audit.replay.capture import (
    PUBLIC,
    SERVER,
    Capture,
    CaptureComplete,
    CapturedMessage,
    table,
)
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.shared.config import Config
from calyx.shared.data import Dataset, load_split
from calyx.shared.errors import UsageError
from calyx.shared.models import build_model
from calyx.shared.models.lstm import Lstm
from calyx.shared.protocol.arrays import load_weights, read_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction, read_arrays
from calyx.shared.target import Classes
from calyx.shared.tasks.find import task_of
from calyx.simulations.run import partition_of
from calyx.simulations.run_folder import RunFolder

Vector = NDArray[np.float64]

NAME, CAPTURED, PICTURES = "views", "views-captured", "views-pictures"
# A sum over many records is searched for this many; more pictures would share what little there is.
MOST_PICTURES = 8
_FEW_RECORDS = 5000
_SEED = 1


def run(folder: RunFolder, store: EvidenceStore, progress: Progress) -> None:
    """Capture a round, attack every view of it, and put bytes and results into evidence.

    Raises:
        UsageError: inversion is not for records of this kind.
        CalyxError: the run could not be repeated.
    """
    config = folder.stored_config()
    progress("views", 0.0)
    captured, test = replay(config)
    spec = test.spec
    if spec.float_shape is None or not isinstance(spec.target, Classes):
        raise UsageError(
            "gradient inversion searches for float32 inputs with one class each; here a record is "
            f"{spec} with {spec.target}"
        )
    model_file = folder.model()
    public = CapturedMessage(config.training.rounds, "final model", SERVER, PUBLIC, (model_file,))
    messages = [*captured.capture.messages, public]
    estimates = gradient_estimates(captured, public)
    rows: list[dict[str, Any]] = []
    attacked: dict[int, tuple[dict[str, Any], dict[str, NDArray[Any]]]] = {}
    low, high = _range(test)
    mean = (test.floats.mean(axis=0) - low) / (high - low)
    arrays: dict[str, NDArray[Any]] = {"baseline": mean.astype(np.float32)}
    for number, estimate in enumerate(estimates):

        def tick(share: float, number: int = number) -> None:
            progress("views", (number + 1 + share) / (len(estimates) + 1))

        # Server and authority see the same sum: another search would find the same.
        if (key := id(estimate.vector)) not in attacked:
            attacked[key] = _attack(estimate, captured, test, mean, tick)
        figures, found = attacked[key]
        rows.append(
            {
                "name": estimate.name,
                "party": estimate.party,
                "sees": estimate.sees,
                "crossings": [messages.index(c) for c in estimate.messages],
                **figures,
            }
        )
        arrays |= {f"{estimate.name}-{key}": array for key, array in found.items()}
    used = sorted({index for row in rows for index in row["crossings"]})
    progress("views", 1.0)
    store.put_json(NAME, {"crossings": table(messages), "sights": rows})
    store.put_arrays(
        CAPTURED,
        {
            f"crossing-{index}": np.frombuffer(b"".join(messages[index].parts), dtype=np.uint8)
            for index in used
        },
    )
    store.put_arrays(PICTURES, arrays)


def replay(config: Config) -> tuple[CapturedRound, Dataset]:
    """The first round of a run, repeated and captured; and the server's test records."""
    capture, split = Capture(rounds=1), load_split(config.data, config.seed, config.task)
    observers = Observers(tap=capture, on_release=capture.on_release)
    # Worker processes take longer to start than a round over few records takes.
    workers = 1 if len(split.train) <= _FEW_RECORDS else None
    try:
        with replayed_run(config, observers, workers=workers):
            pass
    except CaptureComplete:
        pass
    spec = split.test.spec
    model = build_model(config.model, spec, config.seed, task_of(config.task, spec.target))
    sent = capture.find("train", 1)[0]
    plan = TrainInstruction.from_content(sent.message.content).plan
    load_weights(model, read_record(read_arrays(sent.message.content), like=weights_of(model)))
    model.eval()
    records = tuple(split.train.subset(indices) for indices in partition_of(config))
    after = capture.find("train", 2, sender=SERVER)
    final = (
        read_record(read_arrays(after[0].message.content), like=weights_of(model)) if after else {}
    )
    return CapturedRound(config, capture, records, model, plan, final), split.test


def _attack(
    estimate: GradientEstimate,
    captured: CapturedRound,
    test: Dataset,
    mean: NDArray[Any],
    tick: Tick,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """All attacks on one estimate: the facts of each, and their pictures."""
    model, shape = captured.model, test.input_shape
    low, high = _range(test)
    behind = [captured.records[client] for client in estimate.clients]
    truth = np.concatenate([(r.floats - low) / (high - low) for r in behind])
    present = np.isin(np.arange(test.classes), np.concatenate([r.labels for r in behind]))
    gradient = as_gradient(estimate.vector, captured)
    by_name = dict(zip(captured.names, gradient, strict=True))
    count = min(MOST_PICTURES, len(truth))
    arrays: dict[str, NDArray[Any]] = {}

    bias = labels.output_bias(model, test.classes)
    guess = torch.arange(count) % test.classes
    if bias is not None:
        arrays["bias"], arrays["present"] = by_name[bias].double().numpy(), present
        guess = labels.guessed(by_name[bias], count, _mean_probability(model, test))

    def keep(name: str, found: torch.Tensor) -> None:
        pictures = ((found.double() - low) / (high - low)).clamp(0, 1).numpy()
        chance = np.broadcast_to(mean, pictures.shape)
        arrays[name] = pictures.astype(np.float32)
        arrays[f"{name}-truth"] = truth[match(pictures, truth)].astype(np.float32)
        arrays[f"{name}-baseline-truth"] = truth[match(chance, truth)].astype(np.float32)

    is_smooth, unfit = isinstance(model, Lstm), ""
    invert = invert_smooth if is_smooth else invert_piecewise
    try:
        keep("inverted", invert(Observed(model, gradient, guess, shape, low, high), _SEED, tick))
    except RuntimeError as error:
        # What PyTorch raises where a user's own model has no second derivative; NotImplementedError
        # is a kind of it.
        unfit = " ".join(str(error).split())[:200]
    names = closed_form.first_layer(model, shape)
    if names is not None:
        inputs = closed_form.layer_inputs(by_name[names[0]], by_name[names[1]], count)
        keep("closed", inputs.reshape(-1, *shape))
    return {
        "clients": len(estimate.clients),
        "records": len(truth),
        "search": "L-BFGS" if is_smooth else "Adam on the angle",
        "search_failed": unfit,
        "closed_form": names is not None,
        "labels": bias is not None,
    }, arrays


def _range(test: Dataset) -> tuple[float, float]:
    """The values between which records lie, as far as test records show."""
    low, high = float(test.floats.min()), float(test.floats.max())
    return low, high if high > low else low + 1.0


def _mean_probability(model: torch.nn.Module, test: Dataset) -> torch.Tensor:
    with torch.no_grad():
        logits = model(torch.from_numpy(test.floats[:200]))
        return torch.softmax(logits, dim=1).mean(dim=0)
