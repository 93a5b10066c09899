"""The federations of the reference scenarios: the real parties, a record or a few each, one round.

Every scenario attacks bytes that the real server, clients and key authority exchanged. Only data
and settings are made for it: 28x28 pictures, one record per client, untrained weights. That is the
attacker's best case: what fails here also fails in a run with more records per client.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load
from torch import nn

from calyx.audit.replay.capture import Capture, client_name
from calyx.audit.replay.replay import Observers, replayed_run
from calyx.shared.config import Config
from calyx.shared.config.load import build, unflatten
from calyx.shared.data import Dataset, load_split
from calyx.shared.data.sources.digits import read_digits
from calyx.shared.models import build_model
from calyx.shared.privacy.accounting import spent
from calyx.shared.privacy.event import PrivacyEvent
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.protocol.arrays import Weights, load_weights, read_record, weights_of
from calyx.shared.protocol.messages import TrainInstruction, read_arrays
from calyx.shared.record_spec import RecordSpec
from calyx.simulations.run import partition_of

SIDE = 28
MOST_CLIENTS = 10
DELTA = 1e-5
_TEST_RECORDS = 200

Scalar = str | int | float | bool


@dataclass(frozen=True)
class Reference:
    """Pictures of the scenarios.

    Attributes:
        source: where they come from, in words.
        train: uint8 (10, 28, 28), covering as many classes as possible.
        labels: int64 (10,).
        test: uint8 (n, 28, 28), the attacker's own pictures; their mean is the baseline.
        test_labels: int64 (n,).
        classes: number of classes.
    """

    source: str
    train: NDArray[np.uint8]
    labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: int

    @property
    def mean_image(self) -> NDArray[np.float32]:
        """The baseline, float32 (28, 28), in [0, 1]."""
        return np.asarray(self.test.mean(axis=0) / 255, dtype=np.float32)


@dataclass(frozen=True)
class CapturedRound:
    """One round of one federation.

    Attributes:
        config: the federation's configuration.
        capture: what crossed the boundaries.
        records: each client's, in its own order.
        model: with the initial weights, which every party knows.
        plan: the plan in the instructions to the clients.
        final: weights after the round.
    """

    config: Config
    capture: Capture
    records: tuple[Dataset, ...]
    model: nn.Module
    plan: PrivacyPlan
    final: Weights

    @property
    def names(self) -> list[str]:
        """Parameters, in the order of gradients."""
        return [name for name, p in self.model.named_parameters() if p.requires_grad]

    def reply(self, client: int) -> Weights:
        """The weights in a client's captured plain reply."""
        (sent,) = self.capture.find("train", 1, sender=client_name(client))
        return read_record(read_arrays(sent.message.content), like=weights_of(self.model))


def reference(config: Config) -> Reference:
    """Pictures of the run itself if they are 28x28, else the digits of scikit-learn, enlarged."""
    split = load_split(config.data, config.seed)
    train, test, source = split.train, split.test, "records of the run"
    in_box = train.features.min() >= 0 and train.features.max() <= 1
    if train.input_shape != (1, SIDE, SIDE) or not in_box:
        digits = read_digits()
        order = np.random.default_rng(0).permutation(len(digits))
        train, test = digits.subset(order[:-_TEST_RECORDS]), digits.subset(order[-_TEST_RECORDS:])
        source = "handwritten digits of scikit-learn, enlarged"
    chosen = _one_of_each_class(train)
    return Reference(
        source,
        _pixels(train.features[chosen]),
        train.labels[chosen],
        _pixels(test.features[:_TEST_RECORDS]),
        test.labels[:_TEST_RECORDS],
        train.classes,
    )


def capture_round(
    data: Reference, settings: Mapping[str, Scalar], *, clients: int, records_each: int = 1
) -> CapturedRound:
    """Run one round of a federation and capture it.

    Args:
        data: the first clients x records_each of its training records are used.
        settings: model, privacy and sealing, by dotted key.
    """
    with tempfile.TemporaryDirectory(prefix="calyx-scenarios-") as name:
        count = clients * records_each
        np.savez(
            Path(name) / "scenarios.npz",
            x_train=data.train[:count],
            y_train=data.labels[:count],
            x_test=data.test,
            y_test=data.test_labels,
            classes=np.array(data.classes),
        )
        config = build(unflatten({**_base(clients, records_each, name), **settings}))
        capture = Capture(rounds=1)
        observers = Observers(tap=capture, on_release=capture.on_release)
        with replayed_run(config, observers, workers=1) as folder:
            final = load(folder.model())
        train = load_split(config.data, config.seed).train
        records = tuple(train.subset(indices) for indices in partition_of(config))
    (sent,) = capture.find("train", 1, receiver=client_name(0))[:1]
    instruction = TrainInstruction.from_content(sent.message.content)
    model = build_model(config.model, RecordSpec.floats((1, SIDE, SIDE)), data.classes, config.seed)
    weights = read_record(read_arrays(sent.message.content), like=weights_of(model))
    load_weights(model, weights)
    return CapturedRound(config, capture, records, model, instruction.plan, final)


def local_noise(multiplier: float) -> dict[str, Scalar]:
    """Settings of record-level noise of about this multiplier at clip norm 1, in one round."""
    return {
        "privacy.noise": "local",
        "privacy.sampling": "full",
        "privacy.epsilon": _epsilon(multiplier).pld,
    }


def sealed(clients: int, multiplier: float) -> dict[str, Scalar]:
    """Settings of a sealed sum of `clients`; its noise has about this multiplier, 0 for none."""
    settings: dict[str, Scalar] = {
        "secure_aggregation.scheme": "bfv",
        "secure_aggregation.min_contributors": clients,
    }
    if multiplier == 0:
        return settings
    return settings | {
        "privacy.noise": "distributed",
        "privacy.sampling": "full",
        "privacy.epsilon": _epsilon(multiplier).rdp,
    }


def _epsilon(multiplier: float) -> Any:
    event = PrivacyEvent("gaussian", "record", multiplier, "full", 1.0, 1)
    return spent([event], DELTA, "record")


def _base(clients: int, records_each: int, directory: str) -> dict[str, Scalar]:
    return {
        "name": "reference-scenarios",
        "data.source": "npz",
        "data.directory": directory,
        "training.rounds": 1,
        "training.local_steps": 1,
        "training.batch_size": records_each,
        "training.learning_rate": 1.0,
        "federation.clients": clients,
        "federation.min_replies": clients,
        "federation.server_learning_rate": 1.0,
        "privacy.noise": "none",
        "privacy.delta": DELTA,
        "privacy.clip_norm": 1.0,
    }


def _one_of_each_class(train: Dataset) -> NDArray[np.int64]:
    """Indices of ten records: one of each class first, then the first of the rest."""
    _, first = np.unique(train.labels, return_index=True)
    rest = np.setdiff1d(np.arange(min(len(train), 100)), first)
    return np.concatenate([np.sort(first), rest])[:MOST_CLIENTS].astype(np.int64)


def _pixels(features: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Features (n, ..., height, width) of one channel in [0, 1] as 28x28 pixels."""
    images = torch.from_numpy(features.reshape(len(features), 1, *features.shape[-2:]))
    if images.shape[-2:] != (SIDE, SIDE):
        images = nn.functional.interpolate(
            images, size=(SIDE, SIDE), mode="bilinear", align_corners=False
        )
    return np.asarray((images[:, 0] * 255).round().numpy(), dtype=np.uint8)
