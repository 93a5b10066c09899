"""Scaled vectors of tokens, and what of a sequence decides."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig
from calyx.shared.models import build_model
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes

TEXT = RecordSpec.tokens((6,), 20, Classes(2))
SIGNAL = RecordSpec.floats((6, 3), Classes(2))
TOKENS = torch.tensor([[3, 7, 9, 0, 0, 0], [1, 2, 3, 4, 5, 6]])


def model(name: str, spec: RecordSpec, **settings: object) -> nn.Module:
    config = ModelConfig.model_validate({"name": name, "hidden": 8, "heads": 2, **settings})
    return build_model(config, spec, 0)


@pytest.mark.parametrize("name", ["lstm", "attention"])
def test_a_scaled_table_gives_the_same_and_has_a_larger_gradient(name: str) -> None:
    plain, scaled = model(name, TEXT), model(name, TEXT, token_scale=100.0)
    outputs = [built(TOKENS) for built in (plain, scaled)]
    assert torch.allclose(*outputs, atol=1e-6)
    tables = [dict(built.named_parameters())["embedding.weight"] for built in (plain, scaled)]
    assert torch.allclose(tables[0], 100 * tables[1])
    by_table = [
        torch.autograd.grad(out.square().sum(), table)[0]
        for out, table in zip(outputs, tables, strict=True)
    ]
    assert torch.allclose(100 * by_table[0], by_table[1], rtol=1e-3, atol=1e-6)


def test_the_last_step_of_a_signal_decides_unless_the_mean_is_asked_for() -> None:
    last, mean = model("lstm", SIGNAL), model("lstm", SIGNAL, mean_over_steps=True)
    x = torch.rand(2, 6, 3, generator=torch.Generator().manual_seed(1))
    weights = {name: p.clone() for name, p in last.named_parameters()}
    assert all(torch.equal(p, weights[name]) for name, p in mean.named_parameters())
    states = last.lstm(x)  # type: ignore[operator]
    classify = last.classifier
    assert isinstance(classify, nn.Linear)
    assert torch.allclose(last(x), classify(states[:, -1]), atol=1e-6)
    assert torch.allclose(mean(x), classify(states.mean(dim=1)), atol=1e-6)
