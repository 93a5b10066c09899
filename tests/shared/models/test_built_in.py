"""What built-in models do with images, tables, signals and text, and for each kind of target."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from calyx.shared.config.load import build, digest
from calyx.shared.config.schema import ModelConfig
from calyx.shared.errors import ConfigError, ModelError
from calyx.shared.models import build_model, check_private
from calyx.shared.models.build import BUILT_IN
from calyx.shared.models.inputs import call
from calyx.shared.models.lstm import Lstm
from calyx.shared.models.per_record.blocks import record_blocks, sampled_blocks
from calyx.shared.models.per_record.formulas import FORMULAS
from calyx.shared.models.per_record.gradients import layers_with_parameters, watched
from calyx.shared.models.per_record.private import try_private
from calyx.shared.models.steps import token_lengths
from calyx.shared.models.vector import dimension, frozen_names, trainable_names
from calyx.shared.record_spec import RecordSpec, Tokens
from calyx.shared.target import Classes, NextTokens
from tests.shared.models.built_in import BUILT, OF_TEXT, STEPS, WORDS, built, records


@pytest.mark.parametrize("name", list(BUILT))
def test_it_answers_what_the_target_asks_for(name: str) -> None:
    model, spec, _ = built(name)
    for n in (1, 3):
        outputs = call(model, records(spec, n)[0])
        assert outputs.shape == (n, *spec.target.output_shape)


@pytest.mark.parametrize("name", list(BUILT))
def test_it_can_be_trained_privately_in_blocks_without_being_tried_each_round(name: str) -> None:
    model, spec, task = built(name)
    assert type(model) in BUILT_IN
    assert all(type(layer) in FORMULAS for _, layer in layers_with_parameters(model))
    check_private(model)
    try_private(model, spec, task)
    assert record_blocks(model, spec, task, sampled_blocks(24)).sizes != (1,)


@pytest.mark.parametrize("name", list(BUILT))
@pytest.mark.parametrize("clip_norm", [0.05, float("inf")])
def test_clipped_sums_are_those_of_one_autograd_call_a_record(name: str, clip_norm: float) -> None:
    model, spec, task = built(name)
    x, labels = records(spec, 5)
    assert isinstance(x, torch.Tensor)
    with watched(model) as gradients:
        found = gradients.clipped_sum(task.record_losses(model(x), labels), clip_norm)
    wide = copy.deepcopy(model).double()
    expected = [torch.zeros_like(p) for p in wide.parameters()]
    for i in range(len(labels)):
        one = x[i : i + 1].double() if x.is_floating_point() else x[i : i + 1]
        loss = task.record_losses(wide(one), labels[i : i + 1]).sum()
        gradient = torch.autograd.grad(loss, list(wide.parameters()))
        norm = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
        for total, g in zip(expected, gradient, strict=True):
            total += g * min(1.0, clip_norm / float(norm))
    scale = max(float(g.abs().max()) for g in expected)
    for parameter, g in zip(model.parameters(), expected, strict=True):
        assert torch.allclose(found[parameter], g, rtol=2e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", list(BUILT))
def test_rows_that_fill_up_a_block_have_gradients_that_are_numbers(name: str) -> None:
    model, spec, task = built(name)
    x, labels = records(spec, 3)
    assert isinstance(x, torch.Tensor)
    with watched(model) as gradients:
        losses = task.record_losses(model(torch.zeros_like(x)), torch.zeros_like(labels))
        assert all(bool(torch.isfinite(row).all()) for row in gradients.rows(losses))


@pytest.mark.parametrize("name", OF_TEXT)
def test_a_longer_public_length_changes_no_real_step(name: str) -> None:
    model, spec, _ = built(name)
    x, _ = records(spec, 6)
    assert isinstance(x, torch.Tensor)
    longer = torch.cat([x, torch.zeros(6, 5, dtype=torch.int64)], dim=1)
    model.eval()
    short, long = model(x), model(longer)
    if isinstance(spec.target, NextTokens):
        real = x != 0
        short, long = short[real], long[:, :STEPS][real]
    assert torch.allclose(short, long, atol=1e-5)


@pytest.mark.parametrize("name", OF_TEXT)
def test_the_vector_of_padding_is_neither_seen_nor_learned(name: str) -> None:
    model, spec, task = built(name)
    x, labels = records(spec, 6)
    assert isinstance(x, torch.Tensor)
    if isinstance(spec.target, NextTokens):
        labels = labels * (x != 0)
    found = []
    for size in (0.0, 50.0):
        with torch.no_grad():
            model.embedding.weight[0] = size  # type: ignore[union-attr,operator,index]
        with watched(model) as gradients:
            sums = gradients.clipped_sum(task.record_losses(model(x), labels), 1.0)
        table = model.embedding.weight  # type: ignore[union-attr]
        assert not sums[table].eq(0).all()  # type: ignore[index]
        assert sums[table][0].eq(0).all()  # type: ignore[index]
        found.append(list(sums.values()))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["lstm of next tokens", "attention of next tokens"])
def test_no_step_sees_the_tokens_after_it(name: str) -> None:
    model = built(name)[0]
    x = torch.full((1, STEPS), 3)
    other = x.clone()
    other[0, 4:] = 7
    model.eval()
    first, second = model(x), model(other)
    assert torch.allclose(first[0, :4], second[0, :4], atol=1e-6)
    assert not torch.allclose(first[0, 4], second[0, 4], atol=1e-3)


def test_lengths_count_up_to_the_last_token() -> None:
    tokens = torch.tensor([[4, 5, 0, 0], [1, 2, 3, 4], [0, 0, 0, 0], [4, 0, 2, 0]])
    assert token_lengths(tokens).tolist() == [2, 4, 0, 3]


def test_the_lstm_of_text_is_the_mean_of_the_states_of_real_tokens() -> None:
    model = built("lstm of text")[0]
    assert isinstance(model, Lstm) and model.embedding is not None
    x = torch.tensor([[3, 4, 5, 0, 0, 0, 0]])
    states = model.lstm(model.embedding(x[:, :3]))
    assert torch.allclose(model(x), model.classifier(states.mean(dim=1)), atol=1e-6)


def test_the_lstm_that_reads_both_ways_ends_at_both_ends() -> None:
    model = built("lstm both ways")[0]
    x = torch.rand(2, 8, 5)
    turned = copy.deepcopy(model)
    turned.lstm.onward, turned.lstm.reverse = model.lstm.reverse, model.lstm.onward  # type: ignore[union-attr]
    weight = turned.classifier.weight.data  # type: ignore[union-attr]
    turned.classifier.weight.data = torch.cat([weight[:, 8:], weight[:, :8]], dim=1)  # type: ignore[union-attr]
    assert torch.allclose(model(x), turned(x.flip(1)), atol=1e-6)


def test_the_cnn_of_colour_images_is_the_function_that_centres_and_pools_after_the_relu() -> None:
    model = built("cnn in colour")[0]
    x, part = torch.rand(5, 3, 13, 9), nn.functional
    h = 2 * x - 1
    for layer in (model.conv1, model.conv2):
        h = part.max_pool2d(part.relu(layer(h)), 2)  # type: ignore[operator]
    expected = model.fc2(part.relu(model.fc1(h.flatten(1))))  # type: ignore[operator]
    assert torch.allclose(model(x), expected, atol=1e-5)


def test_the_groups_of_a_cnn1d_have_at_least_four_channels() -> None:
    for hidden, groups in ((1, 1), (4, 1), (7, 1), (8, 2), (12, 3), (30, 6), (128, 8)):
        config = ModelConfig(name="cnn1d", hidden=hidden)
        model = build_model(config, RecordSpec.floats((4, 2), Classes(2)), seed=0)
        (norm,) = (layer for layer in model.modules() if isinstance(layer, nn.GroupNorm))
        assert norm.num_groups == groups


@pytest.mark.parametrize(
    ("config", "spec", "words"),
    [
        (ModelConfig(name="cnn"), RecordSpec.floats((17, 8, 8), Classes(3)), "up to 16 channels"),
        (ModelConfig(name="cnn"), RecordSpec.floats((30,), Classes(3)), "mlp for tables"),
        (ModelConfig(name="cnn"), RecordSpec.floats((3, 3, 9), Classes(3)), "data.image_size"),
        (ModelConfig(name="cnn1d"), RecordSpec.floats((30,), Classes(3)), "mlp for tables"),
        (ModelConfig(name="lstm"), RecordSpec.tokens((3, 4), 9, Classes(3)), "(steps,)"),
        (ModelConfig(name="mlp"), RecordSpec.tokens((7,), 9, Classes(3)), "lstm or attention"),
        (
            ModelConfig(name="attention"),
            RecordSpec.of(Classes(3), a=Tokens((7,), 9), b=Tokens((7,), 9)),
            "one input a record",
        ),
        (
            ModelConfig(name="cnn1d"),
            RecordSpec.floats((7, 2), NextTokens((7,), 9)),
            "answer at each step",
        ),
        (
            ModelConfig(name="lstm"),
            RecordSpec.tokens((7,), 9, NextTokens((6,), 9)),
            "one label a step",
        ),
        (
            ModelConfig(name="lstm", bidirectional=True),
            RecordSpec.tokens((7,), 9, NextTokens((7,), 9)),
            "model.bidirectional=false",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_records_and_targets_that_a_model_does_not_take_are_refused_with_the_way_out(
    config: ModelConfig, spec: RecordSpec, words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        build_model(config, spec, seed=0)
    assert words in caught.value.full_text


@pytest.mark.parametrize("name", list(BUILT))
def test_dropout_is_for_training_without_record_level_privacy(name: str) -> None:
    model, spec, _ = built(name, dropout=0.5)
    plain = built(name)[0]
    assert [*model.state_dict()] == [*plain.state_dict()]
    x = records(spec, 4)[0]
    torch.manual_seed(0)
    assert not torch.equal(call(model.train(), x), call(model.train(), x))
    assert torch.equal(call(model.eval(), x), call(plain.eval(), x))
    with pytest.raises(ModelError, match=r"layer [\w.]*dropout \(Dropout\)") as caught:
        check_private(model)
    assert "model.dropout=0" in caught.value.full_text


def test_frozen_parameters_take_no_part_in_gradients_and_norms() -> None:
    model, spec, task = built("lstm of text", freeze="embedding.*, lstm.bias_?h_l0")
    whole, *_ = built("lstm of text")
    frozen = {"embedding.weight", "lstm.bias_ih_l0", "lstm.bias_hh_l0"}
    assert frozen_names(model) == frozen
    assert trainable_names(model) == [n for n in trainable_names(whole) if n not in frozen]
    assert dimension(model) == dimension(whole) - WORDS * 16 - 2 * 32
    x, labels = records(spec, 5)
    assert isinstance(x, torch.Tensor)
    sums = []
    for each in (model, whole):
        with watched(each) as gradients:
            losses = task.record_losses(each(x), labels)
            found = gradients.clipped_sum(losses, float("inf"))
            named = dict(each.named_parameters())
            sums.append({n: found[named[n]] for n in named if named[n] in found})
    assert sums[0].keys() == set(trainable_names(model))
    assert all(torch.allclose(total, sums[1][name]) for name, total in sums[0].items())
    try_private(model, spec, task)
    with watched(model) as gradients:
        clipped = gradients.clipped_sum(task.record_losses(model(x[:1]), labels[:1]), 1e-3)
    norm = torch.stack([g.square().sum() for g in clipped.values()]).sum().sqrt()
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize(
    ("freeze", "words"),
    [
        ("conv9.*", "no parameter of the model has such a name"),
        ("conv1.*,conv2", "model.freeze = conv2"),
        ("*", "all parameters are frozen"),
        ("conv*, fc*", "all parameters are frozen"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(freeze: str, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        built("cnn", freeze=freeze)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"dropout": 0.0, "freeze": "", "embedding": 0, "bidirectional": False}, False),
        ({"dropout": 0.1}, True),
        ({"freeze": "conv1.*"}, True),
        ({"embedding": 16}, True),
        ({"bidirectional": True}, True),
    ],
)
def test_only_settings_that_change_something_change_the_digest(
    settings: dict[str, Any], changed: bool
) -> None:
    assert (digest(build({"model": settings})) != digest(build())) is changed


@pytest.mark.parametrize(
    ("name", "view", "fits"),
    [
        ("mlp", "image", True),
        ("mlp", "sequence", True),
        ("cnn1d", "sequence", True),
        ("cnn1d", "image", False),
    ],
)
def test_a_model_is_named_for_a_view_that_it_takes(name: str, view: str, fits: bool) -> None:
    settings = {"model": {"name": name}, "data": {"view": view}}
    if fits:
        assert build(settings).model.name == name
    else:
        with pytest.raises(ConfigError):
            build(settings)
