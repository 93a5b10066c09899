from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from calyx.shared.config.schema import ModelConfig
from calyx.shared.errors import ModelError
from calyx.shared.models import build_model
from calyx.shared.models.attention import sinusoidal_positions
from calyx.shared.models.recurrent import SequenceLSTM
from calyx.shared.record_spec import RecordSpec
from calyx.shared.target import Classes

CONFIGS = [
    (ModelConfig(name="cnn"), (1, 8, 8)),
    (ModelConfig(name="lstm", hidden=16, layers=2), (8, 5)),
    (ModelConfig(name="attention", hidden=16, layers=2, heads=2), (8, 5)),
]


def test_cnn_for_mnist_has_the_standard_number_of_parameters() -> None:
    model = build_model(
        ModelConfig(name="cnn"), RecordSpec.floats((1, 28, 28), Classes(10)), seed=0
    )
    assert sum(p.numel() for p in model.parameters()) == 421_642


def test_cnn_is_the_function_that_centres_and_pools_after_the_relu() -> None:
    model = build_model(ModelConfig(name="cnn"), RecordSpec.floats((1, 8, 6), Classes(3)), seed=0)
    x, part = torch.rand(5, 1, 8, 6), nn.functional
    h = 2 * x - 1
    for layer in (model.conv1, model.conv2):
        h = part.max_pool2d(part.relu(part.conv2d(h, layer.weight, layer.bias, padding=1)), 2)
    expected = model.fc2(part.relu(model.fc1(h.flatten(1))))
    assert torch.allclose(model(x), expected, atol=1e-6)


@pytest.mark.parametrize(("config", "shape"), CONFIGS, ids=["cnn", "lstm", "attention"])
def test_every_model_gives_logits_of_any_batch(config: ModelConfig, shape: tuple[int, ...]) -> None:
    model = build_model(config, RecordSpec.floats(shape, Classes(7)), seed=0)
    assert [model(torch.rand(n, *shape)).shape for n in (1, 3)] == [(1, 7), (3, 7)]


@pytest.mark.parametrize(("config", "shape"), CONFIGS, ids=["cnn", "lstm", "attention"])
def test_weights_depend_on_the_seed_and_nothing_else(
    config: ModelConfig, shape: tuple[int, ...]
) -> None:
    first = build_model(config, RecordSpec.floats(shape, Classes(7)), seed=1).state_dict()
    torch.rand(100)
    again = build_model(config, RecordSpec.floats(shape, Classes(7)), seed=1).state_dict()
    other = build_model(config, RecordSpec.floats(shape, Classes(7)), seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_building_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    build_model(ModelConfig(name="cnn"), RecordSpec.floats((1, 8, 8), Classes(10)), seed=3)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("config", "shape"), CONFIGS, ids=["cnn", "lstm", "attention"])
def test_weights_are_contiguous_so_that_they_can_be_stored(
    config: ModelConfig, shape: tuple[int, ...]
) -> None:
    model = build_model(config, RecordSpec.floats(shape, Classes(7)), seed=1)
    assert all(tensor.is_contiguous() for tensor in model.state_dict().values())


def test_lstm_has_the_names_and_the_function_of_pytorchs() -> None:
    ours, theirs = SequenceLSTM(5, 6, 2), nn.LSTM(5, 6, 2, batch_first=True)
    ours.load_state_dict(theirs.state_dict())
    x = torch.rand(3, 4, 5)
    assert torch.equal(ours(x), theirs(x)[0])


def test_positions_are_the_sines_and_cosines_of_the_paper() -> None:
    table = sinusoidal_positions(6, 5)
    assert table.shape == (6, 5)
    assert table[3, 2] == pytest.approx(torch.sin(torch.tensor(3 / 10_000 ** (2 / 5))).item())
    assert table[3, 3] == pytest.approx(torch.cos(torch.tensor(3 / 10_000 ** (2 / 5))).item())


@pytest.mark.parametrize(
    ("config", "shape", "words"),
    [
        (ModelConfig(name="cnn"), (1, 3, 8), "at least 4x4"),
        (ModelConfig(name="cnn"), (17, 8, 8), "(channels, height, width)"),
        (ModelConfig(name="cnn"), (8, 8), "data.view=image"),
        (ModelConfig(name="lstm"), (1, 8, 8), "data.view=sequence"),
        (ModelConfig(name="attention"), (1, 8, 8), "data.view=sequence"),
        (ModelConfig(name="attention", hidden=6, heads=4), (8, 8), "must divide"),
        (ModelConfig(name="transformer"), (8, 8), "module:function"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_with_the_way_out(
    config: ModelConfig, shape: tuple[int, ...], words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build_model(config, RecordSpec.floats(shape, Classes(10)), seed=0)
    assert words in caught.value.full_text
    assert "\n" not in str(caught.value)


USERS_MODULE = """
from torch import nn
NUMBER = 3
def good(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], classes))
def no_module(shape, classes):
    return "a string"
def raises(shape, classes):
    raise ValueError("two\\nlines")
def wrong_shape(shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1], classes + 1))
def wrong_input(shape, classes):
    return nn.Linear(99, classes)
def returns_tuple(shape, classes):
    return nn.LSTM(shape[1], classes)
"""


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = "models_of_a_user"
    (tmp_path / f"{name}.py").write_text(USERS_MODULE)
    (tmp_path / "broken_module_of_a_user.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, name, raising=False)
    return name


def test_a_users_own_model_is_built_from_the_same_seed(users_module: str) -> None:
    config = ModelConfig(name=f"{users_module}:good")
    first, second = (
        build_model(config, RecordSpec.floats((4, 5), Classes(3)), seed=5) for _ in range(2)
    )
    assert first(torch.ones(2, 4, 5)).shape == (2, 3)
    assert torch.equal(first[1].weight, second[1].weight)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("missing", "cannot be imported"),
        ("NUMBER", "not a function"),
        ("no_module", "return a torch.nn.Module, not a str"),
        ("raises", "ValueError: two lines"),
        ("wrong_shape", "it returned (2, 4); return a tensor of shape (2, 3)"),
        ("wrong_input", "does not take records of shape (4, 5)"),
        ("returns_tuple", "tuple"),
    ],
)
def test_a_users_model_that_cannot_be_used_is_refused_with_the_reason(
    users_module: str, function: str, words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build_model(
            ModelConfig(name=f"{users_module}:{function}"),
            RecordSpec.floats((4, 5), Classes(3)),
            seed=0,
        )
    assert words in caught.value.full_text
    assert f"{users_module}:{function}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_module_anywhere:f", "ModuleNotFoundError"),
        ("broken_module_of_a_user:f", "ZeroDivisionError"),
        (":f", "module:function"),
        ("math:", "module:function"),
    ],
)
def test_a_name_that_cannot_be_imported_is_refused_with_the_reason(
    users_module: str, name: str, words: str
) -> None:
    with pytest.raises(ModelError, match=words):
        build_model(ModelConfig(name=name), RecordSpec.floats((4, 5), Classes(3)), seed=0)
