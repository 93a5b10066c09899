"""Each inversion attack recovers what it should, and its figures mean what they say."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from calyx.audit.attacks.inversion import closed_form, fedavg, labels
from calyx.audit.attacks.inversion.fedsgd import (
    Observed,
    gradient_of,
    invert_piecewise,
    invert_smooth,
)
from calyx.audit.attacks.inversion.networks import FullyConnected, SmoothNet
from calyx.audit.attacks.inversion.quality import match, psnr
from calyx.shared.data.sources.digits import read_digits
from calyx.shared.models.attention import AttentionEncoder
from calyx.shared.models.cnn import Cnn
from calyx.shared.models.lstm import Lstm
from calyx.shared.models.seeding import torch_seeded

SHAPE = (1, 8, 8)


def quiet(share: float) -> None:
    assert 0 <= share <= 1


def digits(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = read_digits()
    features = torch.from_numpy(data.features[:count]).unsqueeze(1)
    return features, torch.from_numpy(data.labels[:count])


def observed(model: nn.Module, records: torch.Tensor, of: torch.Tensor) -> Observed:
    gradient = tuple(g.detach() for g in gradient_of(model, records, of))
    return Observed(model, gradient, of, tuple(records.shape[1:]))


def seeded(kind: type[nn.Module]) -> nn.Module:
    with torch_seeded(0):
        return kind(SHAPE, 10)


def test_psnr_follows_its_definition() -> None:
    truth = np.zeros((2, 1, 4, 4))
    pictures = np.stack([np.full((1, 4, 4), 0.1), np.full((1, 4, 4), -3.0)])
    # A mean squared error of 0.01 is 20 dB; what is below 0 is cut off, so the second is perfect.
    np.testing.assert_allclose(psnr(pictures, truth), [20, 150])


def test_pairing_finds_the_order_of_the_records() -> None:
    generator = np.random.default_rng(0)
    records = generator.random((6, 1, 5, 5))
    order = generator.permutation(6)[:4]
    pictures = records[order] + 0.01 * generator.standard_normal((4, 1, 5, 5))
    np.testing.assert_array_equal(match(pictures, records), order)


def test_closed_form_reads_one_record_exactly() -> None:
    model, (records, of) = seeded(FullyConnected), digits(1)
    names = closed_form.first_layer(model, SHAPE)
    assert names == ("fc1.weight", "fc1.bias")
    gradient = dict(
        zip(dict(model.named_parameters()), gradient_of(model, records, of), strict=True)
    )
    found = closed_form.layer_inputs(gradient[names[0]], gradient[names[1]], 1).detach()
    assert psnr(found.reshape(1, *SHAPE).numpy(), records.numpy())[0] > 100


def test_closed_form_applies_only_where_a_layer_sees_whole_records() -> None:
    assert closed_form.first_layer(seeded(Cnn), SHAPE) is None
    assert closed_form.first_layer(AttentionEncoder((8, 8), 10), (8, 8)) is None
    assert closed_form.first_layer(nn.Linear(64, 10, bias=False), SHAPE) is None


@pytest.mark.parametrize("count", [1, 4, 12])
def test_labels_of_a_batch_leak_through_the_output_bias(count: int) -> None:
    model, (records, of) = seeded(Cnn), digits(count)
    name = labels.output_bias(model, 10)
    gradient = dict(
        zip(dict(model.named_parameters()), gradient_of(model, records, of), strict=True)
    )
    bias = gradient[str(name)].detach()
    named = set(torch.nonzero(labels.present(bias)).flatten().tolist())
    # Never a class that is not there; every class while there are few records.
    assert named <= set(of.tolist()) and named
    assert count > 4 or named == set(of.tolist())
    with torch.no_grad():
        probability = torch.softmax(model(torch.rand(50, *SHAPE)), dim=1).mean(dim=0)
    assert labels.guessed(bias, count, probability).tolist() == sorted(of.tolist())


def test_smooth_network_gives_a_picture_away_to_60_db() -> None:
    records, of = digits(1)
    found = invert_smooth(observed(seeded(SmoothNet), records, of), 1, quiet)
    assert psnr(found.numpy(), records.numpy())[0] >= 60


def test_unrolled_training_gives_a_picture_away() -> None:
    records, of = digits(2)
    model = seeded(SmoothNet)
    trained = seeded(SmoothNet)
    optimizer = torch.optim.SGD(trained.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(trained(records), of).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    update = tuple(
        (b - a).detach() for a, b in zip(model.parameters(), trained.parameters(), strict=True)
    )
    found = fedavg.invert_training(
        model, update, of, SHAPE, steps=3, learning_rate=0.1, seed=1, tick=quiet
    ).numpy()
    assert psnr(found, records.numpy()[match(found, records.numpy())]).min() > 40


@pytest.mark.parametrize("kind", [Lstm, AttentionEncoder])
def test_sequence_models_can_be_attacked(kind: type[nn.Module]) -> None:
    """Second derivatives exist, so that views of their runs are attacked like all others."""
    with torch_seeded(0):
        model = kind((8, 8), 10, hidden=16)
    records, of = digits(1)
    seen = observed(model, records[:, 0], of)
    found = invert_piecewise(seen, 1, quiet)
    before = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(1)).numpy()
    truth = records[:, 0].numpy()
    assert psnr(found.numpy(), truth)[0] > psnr(before, truth)[0]
