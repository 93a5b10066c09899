"""No weights make one record move the clipped sum by more than the clip norm.

A search for a counterexample: weights and records that are huge, tiny, denormal, that cancel or are
equal, in models of every kind of layer. Neighbours are the same records without one of them, which
moves all later ones in the batch, and with another one in its place.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calyx.client.training.dp_sgd import clipped_gradient_sum
from calyx.shared.data import Dataset
from calyx.shared.models.attention import AttentionEncoder, EncoderBlock
from calyx.shared.models.cnn import Cnn
from calyx.shared.models.lstm import Lstm
from calyx.shared.models.recurrent import RecurrentStack, SequenceGRU, SequenceLSTM
from calyx.shared.models.standardised import StandardisedConv1d
from calyx.shared.privacy.noise import SeededNoise, seeded_key
from tests.client.training.private_training import CLIP, NoNoise, make_private_plan

CLASSES = 3
STYLES = ("fresh", "huge", "large", "tiny", "denormal", "cancelling", "nearly", "equal", "zero")


class Whole(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.nan_to_num(0, 0, 0).abs().remainder(9).long()


class Scale(nn.Module):
    """A layer no library has a formula for."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(5, 5), nn.Linear(5, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.relu(self.layer(self.layer(x))).mean(dim=1))
        return logits


class Last(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, -1]


class Lengths(nn.Module):
    """A record's length is the sign pattern of its first column."""

    def __init__(self) -> None:
        super().__init__()
        self.stack = RecurrentStack("gru", 5, 4, layers=2, bidirectional=True)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lengths = (x[:, :, 0] > 0).sum(dim=1).clamp(min=1)
        logits: torch.Tensor = self.head(self.stack.last(self.stack(x, lengths), lengths))
        return logits


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.whole, self.words = Whole(), nn.Embedding(9, 8)
        self.block, self.head = EncoderBlock(8, 2, causal=True), nn.Linear(8, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.whole(x)
        states = self.block(self.words(tokens), tokens > 0)
        logits: torch.Tensor = self.head(states.masked_fill((tokens == 0).unsqueeze(2), 0).sum(1))
        return logits


class TiedWords(nn.Module):
    """One table for what goes in, twice, and for what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.whole, self.words = Whole(), nn.Embedding(9, 4)
        self.out = nn.Linear(4, 9, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.whole(x)
        first = self.words(tokens[:, :1])
        logits: torch.Tensor = self.out((self.words(tokens) + first).sum(dim=1))
        return logits


def models() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    head = nn.Linear(4, CLASSES)
    normed = [nn.Conv2d(2, 4, 3, groups=2), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten()]
    wide = nn.Linear(48, CLASSES)
    standardised = [
        StandardisedConv1d(2, 4, 3, groups=2, dilation=2, padding=2),
        nn.InstanceNorm1d(4, affine=True),
        nn.ReLU(),
        StandardisedConv1d(4, 4, 3),
        nn.Flatten(),
    ]
    return {
        "linear": (nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, CLASSES)), (5,)),
        "steps": (nn.Sequential(nn.Linear(5, 4), nn.ReLU(), Last(), head), (6, 5)),
        "cnn": (Cnn((1, 8, 8), CLASSES), (1, 8, 8)),
        "lstm": (Lstm((6, 5), CLASSES, hidden=8, layers=2), (6, 5)),
        "long lstm": (nn.Sequential(SequenceLSTM(3, 4), Last(), head), (20, 3)),
        "attention": (AttentionEncoder((6, 5), CLASSES, hidden=8, heads=2), (6, 5)),
        "group norm": (nn.Sequential(*normed, nn.Linear(64, CLASSES)), (2, 6, 6)),
        "embedding": (
            nn.Sequential(Whole(), nn.Embedding(9, 4), nn.Flatten(), nn.Linear(28, CLASSES)),
            (7,),
        ),
        "padded": (
            nn.Sequential(
                Whole(), nn.Embedding(9, 4, padding_idx=0), SequenceGRU(4, 4, 2), Last(), head
            ),
            (7,),
        ),
        "bidirectional": (
            nn.Sequential(RecurrentStack("lstm", 3, 4, bidirectional=True), nn.Flatten(), wide),
            (6, 3),
        ),
        "lengths": (Lengths(), (6, 5)),
        "standardised": (nn.Sequential(*standardised, nn.Linear(24, CLASSES)), (2, 8)),
        "volume": (
            nn.Sequential(nn.Conv3d(1, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES)),
            (1, 3, 3, 3),
        ),
        "tied": (TiedWords(), (7,)),
        "masked": (Masked(), (6,)),
        "own": (nn.Sequential(nn.Linear(5, 5), Scale(), nn.ReLU(), nn.Linear(5, CLASSES)), (5,)),
        "shared": (Twice(), (4, 5)),
    }


def in_style(style: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    fresh = rng.standard_normal(shape)
    signs = (-1.0) ** np.indices(shape).sum(axis=0) if shape else np.ones(shape)
    values = {
        "fresh": fresh,
        "huge": fresh * 1e30,
        "large": fresh * 1e6,
        "tiny": fresh * 1e-20,
        "denormal": fresh * 1e-41,
        "cancelling": signs * 1e6,
        "nearly": signs * 1e6 + fresh,
        "equal": np.full(shape, 1e3),
        "zero": np.zeros(shape),
    }
    return values[style].astype(np.float32)


def total(model: nn.Module, data: Dataset, sampling: str, batch: list[int]) -> np.ndarray:
    plan = replace(make_private_plan(len(data), 4, multiplier=1.0), noise="distributed")
    if sampling == "full":
        plan = replace(plan, sampling="full", sampling_rate=1.0)
        noise = SeededNoise(seeded_key("none is drawn"))
        return clipped_gradient_sum(model, data.subset(np.array(batch)), plan, noise)[0]
    plan = replace(plan, sampling="poisson", sampling_rate=0.5)
    return clipped_gradient_sum(model, data, plan, NoNoise(batch))[0]


@pytest.mark.parametrize("sampling", ["full", "poisson"])
@pytest.mark.parametrize("name", list(models()))
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    weights=st.lists(st.sampled_from(STYLES), min_size=1, max_size=6),
    features=st.lists(st.sampled_from(STYLES), min_size=1, max_size=3),
    count=st.integers(1, 20),
    left_out=st.integers(0, 19),
)
def test_one_record_moves_the_sum_by_at_most_the_clip_norm(
    name: str,
    sampling: str,
    seed: int,
    weights: list[str],
    features: list[str],
    count: int,
    left_out: int,
) -> None:
    rng = np.random.default_rng(seed)
    model, shape = models()[name]
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            style = weights[number % len(weights)]
            parameter.copy_(torch.from_numpy(in_style(style, tuple(parameter.shape), rng)))
    x = np.stack([in_style(features[i % len(features)], shape, rng) for i in range(count)])
    data = Dataset(x, rng.integers(0, CLASSES, count), CLASSES)
    record = left_out % count
    everyone = list(range(count))
    others = [i for i in everyone if i != record]
    with np.errstate(all="ignore"):
        whole = total(model, data, sampling, everyone)
        rest = total(model, data, sampling, others) if others else np.zeros_like(whole)
    assert np.linalg.norm(whole - rest) <= CLIP * (1 + 1e-6)
    x[record] = np.finfo(np.float32).max  # this one often overflows
    other = total(model, data, sampling, everyone)
    assert np.linalg.norm(other - rest) <= CLIP * (1 + 1e-6)


@pytest.mark.parametrize("magnitude", [1.0, 1e6, 1e12, 1e30])
def test_a_bias_whose_gradient_cancels_gives_nothing_away(magnitude: float) -> None:
    # Gradients of +M and -M by the same bias, at two places: their sum over places is rounded in
    # one order for the norm, and was in another, over all records, for what was summed.
    model = Cnn((1, 28, 28), 10)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.conv1.bias.fill_(-1.0)
        model.conv2.bias.fill_(-1.0)
        model.conv2.bias[0] = 1 / magnitude
        model.fc1.weight[0, 0], model.fc1.weight[0, 24] = magnitude, -magnitude
        model.fc1.bias.fill_(-1.0)
        model.fc1.bias[0] = 1.0
        model.fc2.weight[:, 0] = torch.linspace(-1, 1, 10)
    rng = np.random.default_rng(0)
    x = rng.random((24, 1, 28, 28), dtype=np.float32)
    data = Dataset(x, rng.integers(0, 10, 24), 10)
    everyone = list(range(24))
    whole = total(model, data, "full", everyone)
    assert np.linalg.norm(whole) <= 24 * CLIP
    for record in (0, 7, 23):
        rest = total(model, data, "full", [i for i in everyone if i != record])
        assert np.linalg.norm(whole - rest) <= CLIP * (1 + 1e-6)
