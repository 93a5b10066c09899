"""What a run's clients could not train is found before the run begins."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from calyx.shared.config import Config
from calyx.shared.config.load import build, from_settings
from calyx.shared.errors import ModelError
from calyx.shared.models.tryout import torch_device, try_model
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes

SPEC = RecordSpec.floats((1, 8, 8), Classes(10))


def normed(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, classes))


class _Centred(nn.Module):
    """Mixes the records of a batch where no layer shows it."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = x.flatten(1)
        return self.last(flat - flat.mean(0))  # type: ignore[no-any-return]


def centred(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return _Centred()


def config(*settings: str) -> Config:
    return build(from_settings(settings))


def own(name: str, *settings: str) -> Config:
    return config(f"model.name={__name__}:{name}", *settings)


@pytest.mark.parametrize("name", ["normed", "centred"])
def test_a_model_in_which_records_mix_is_refused_where_records_are_protected(name: str) -> None:
    private = ("privacy.unit=record", "privacy.noise=local")
    with pytest.raises(ModelError, match="cannot be trained privately"):
        try_model(own(name, *private), SPEC)
    try_model(own(name, "privacy.noise=none"), SPEC)
    try_model(own(name, "privacy.unit=client", "privacy.noise=local"), SPEC)


def test_a_built_in_model_passes() -> None:
    assert isinstance(try_model(config(), SPEC), nn.Module)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(ModelError, match=r"finds no CUDA .*\nhint: set training\.device=cpu"):
        try_model(config("training.device=cuda"), SPEC)
    assert torch_device("cpu").type == "cpu"
