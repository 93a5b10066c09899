"""Records of several inputs and of different lengths: exact, and independent of neighbours."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.models import check_private
from calyx.shared.models.attention import EncoderBlock, SelfAttention
from calyx.shared.models.inputs import Inputs, call, each, made_up, real_steps
from calyx.shared.models.lora import LoraLinear
from calyx.shared.models.per_record.blocks import record_blocks
from calyx.shared.models.per_record.gradients import watched
from calyx.shared.models.per_record.private import try_private
from calyx.shared.models.recurrent import RecurrentStack
from calyx.shared.record_spec import Floats, Length, Mask, RecordSpec, Tokens
from calyx.shared.target import Classes
from calyx.shared.tasks.classification import classification

STEPS, WORDS = 7, 11
THREE = Classes(3)
TASK = classification(THREE)
TEXT = RecordSpec.of(THREE, tokens=Tokens((STEPS,), WORDS), length=Length("tokens"))
MASKED = RecordSpec.of(THREE, tokens=Tokens((STEPS,), WORDS), real=Mask("tokens"))
MOTION = RecordSpec.of(THREE, signal=Floats((STEPS, 8)), length=Length("signal"))


class Recurrent(nn.Module):
    def __init__(self, cell: str, layers: int, bidirectional: bool) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8, padding_idx=0)
        self.stack = RecurrentStack(cell, 8, 8, layers=layers, bidirectional=bidirectional)  # type: ignore[arg-type]
        self.head = nn.Linear(8 * (1 + bidirectional), 3)

    def forward(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        states = self.stack(self.words(tokens), length)
        logits: torch.Tensor = self.head(self.stack.last(states, length))
        return logits


class Motion(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stack, self.head = RecurrentStack("gru", 8, 8, bidirectional=True), nn.Linear(16, 3)

    def forward(self, signal: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.stack(signal, length).sum(dim=1))
        return logits


class Transformer(nn.Module):
    """Tokens, learned positions, one encoder block, mean over the real steps."""

    def __init__(self, causal: bool) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, 8), nn.Embedding(STEPS, 8)
        self.block, self.head = EncoderBlock(8, 2, causal=causal), nn.Linear(8, 3)

    def forward(self, tokens: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        steps = torch.arange(tokens.shape[1]).expand_as(tokens)
        x = self.block(self.words(tokens) + self.positions(steps), real)
        shares = real.unsqueeze(2) / real.sum(dim=1).clamp(min=1).view(-1, 1, 1)
        logits: torch.Tensor = self.head((x * shares).sum(dim=1))
        return logits


class TiedWords(nn.Module):
    """One table for what goes in and for what comes out, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(WORDS, 8), nn.Linear(8, WORDS, bias=False)
        self.out.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(torch.tanh(self.words(x) + self.words(x.flip(1))).sum(1))
        return logits


class TwoColumns(nn.Module):
    """One table for two columns, no weight shared with another kind of layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 6), nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(torch.tanh(self.words(x[:, 0]) * self.words(x[:, 1])))
        return logits


def fine_tuned() -> nn.Module:
    torch.manual_seed(0)
    lora = LoraLinear(nn.Linear(8, 16), 8, scale=0.5)
    return nn.Sequential(lora, nn.Tanh(), nn.Linear(16, 3))


CASES: dict[str, tuple[nn.Module, RecordSpec]] = {
    "lstm": (Recurrent("lstm", 1, False), TEXT),
    "deep lstm": (Recurrent("lstm", 2, True), TEXT),
    "gru": (Recurrent("gru", 2, False), TEXT),
    "deep gru": (Recurrent("gru", 2, True), TEXT),
    "motion": (Motion(), MOTION),
    "attention": (Transformer(False), MASKED),
    "causal": (Transformer(True), MASKED),
    "tied": (TiedWords(), RecordSpec.tokens((STEPS,), WORDS, THREE)),
    "two columns": (TwoColumns(), RecordSpec.tokens((2,), WORDS, THREE)),
    "lora": (fine_tuned(), RecordSpec.floats((8,), THREE)),
}


def drawn(name: str, n: int = 6) -> tuple[nn.Module, Inputs, torch.Tensor]:
    torch.manual_seed(2)
    model, spec = copy.deepcopy(CASES[name][0]), CASES[name][1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model, made_up(spec, n, torch.Generator().manual_seed(1)), torch.arange(n) % 3


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("clip_norm", [0.05, 1.0, float("inf")])
def test_clipped_sums_are_those_of_one_autograd_call_a_record(name: str, clip_norm: float) -> None:
    model, inputs, labels = drawn(name)
    with watched(model) as gradients:
        losses = nn.functional.cross_entropy(call(model, inputs), labels, reduction="none")
        found = gradients.clipped_sum(losses, clip_norm)
    wide = copy.deepcopy(model).double()
    names = [name for name, p in wide.named_parameters() if p.requires_grad]
    parameters = [p for p in wide.parameters() if p.requires_grad]
    expected = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for i in range(len(labels)):
        one = each(
            inputs, lambda x, i=i: x[i : i + 1].double() if x.is_floating_point() else x[i : i + 1]
        )  # type: ignore[misc]
        loss = nn.functional.cross_entropy(call(wide, one), labels[i : i + 1])
        gradient = torch.autograd.grad(loss, parameters)
        norm = torch.stack([g.square().sum() for g in gradient]).sum().sqrt()
        for key, g in zip(names, gradient, strict=True):
            expected[key] += g * min(1.0, clip_norm / float(norm))
    own = dict(model.named_parameters())
    scale = max(float(g.abs().max()) for g in expected.values())
    assert set(found) == {own[name] for name in names}
    for key, g in expected.items():
        assert torch.allclose(found[own[key]], g, rtol=2e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("name", list(CASES))
def test_it_can_be_trained_privately_in_blocks(name: str) -> None:
    model, spec = CASES[name]
    check_private(model)
    try_private(model, spec, TASK)
    # Of widths of 8, for which processors add up every row alike.
    assert record_blocks(model, spec, TASK, (8, 16)).sizes != (1,)


@pytest.mark.parametrize("name", ["lstm", "deep lstm", "deep gru", "motion", "attention", "causal"])
def test_a_records_gradient_is_the_same_bits_beside_neighbours_of_any_length(name: str) -> None:
    model, inputs, _ = drawn(name, 8)
    longer = made_up(CASES[name][1], 8, torch.Generator().manual_seed(9))
    assert isinstance(inputs, dict) and isinstance(longer, dict)
    mixed = {key: torch.cat([x[3:4], longer[key][1:]]) for key, x in inputs.items()}
    alike = {key: x[3:4].expand_as(x).contiguous() for key, x in inputs.items()}
    found = []
    for batch in (mixed, alike):
        with watched(model) as gradients:
            logits = model(**batch)
            losses = nn.functional.cross_entropy(
                logits, torch.zeros(8, dtype=torch.int64), reduction="none"
            )
            found.append([logits[0].detach(), *(row[0] for row in gradients.rows(losses))])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("name", ["lstm", "deep lstm", "gru", "deep gru", "attention"])
def test_what_stands_in_the_padding_changes_nothing(name: str) -> None:
    model, inputs, labels = drawn(name)
    assert isinstance(inputs, dict)
    real = inputs["real"] if "real" in inputs else real_steps(inputs["length"], STEPS)
    noisy = dict(inputs, tokens=torch.where(real, inputs["tokens"], WORDS - 1))
    sums = []
    for batch in (inputs, noisy):
        with watched(model) as gradients:
            losses = nn.functional.cross_entropy(model(**batch), labels, reduction="none")
            sums.append(list(gradients.clipped_sum(losses, 1.0).values()))
    assert all(torch.equal(a, b) for a, b in zip(*sums, strict=True))


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_a_stack_is_the_function_of_pytorchs_packed_sequences(cell: str) -> None:
    torch.manual_seed(0)
    stack = RecurrentStack(cell, 3, 4, layers=2, bidirectional=True)  # type: ignore[arg-type]
    kind = nn.LSTM if cell == "lstm" else nn.GRU
    theirs = kind(3, 4, 2, bidirectional=True, batch_first=True)
    for layer in range(2):
        for part, suffix in ((stack.onward, ""), (stack.reverse, "_reverse")):
            for name, parameter in part[layer].named_parameters():
                with torch.no_grad():
                    parameter.copy_(getattr(theirs, name.replace("l0", f"l{layer}") + suffix))
    x, lengths = torch.randn(4, 6, 3), torch.tensor([6, 1, 3, 5])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)[0]
    assert torch.allclose(stack(x, lengths), expected, atol=1e-6)
    assert torch.allclose(stack(x), theirs(x)[0], atol=1e-6)
    last = stack.last(stack(x, lengths), lengths)
    assert torch.allclose(last[2], torch.cat([expected[2, 2, :4], expected[2, 0, 4:]]), atol=1e-6)


def test_rows_that_fill_up_a_block_have_gradients_that_are_numbers() -> None:
    for name in ("deep lstm", "deep gru", "attention", "causal"):
        model, inputs, _ = drawn(name)
        empty = each(inputs, torch.zeros_like)
        with watched(model) as gradients:
            losses = call(model, empty).square().sum(dim=1)
            rows = gradients.rows(losses)
        assert all(bool(torch.isfinite(row).all()) for row in rows)


def test_a_step_sees_itself_and_what_is_real_and_earlier() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, causal=True)
    x = torch.randn(2, 5, 8)
    nothing = torch.zeros(2, 5, dtype=torch.bool)
    values = attention.queries_keys_values(x)[:, :, 16:]
    assert torch.allclose(attention(x, nothing), attention.output(values), atol=1e-6)
    real = torch.tensor([[True, True, False, True, True]]).expand(2, -1)
    changed = x.clone()
    changed[:, 2] += 1  # not real
    changed[:, 4] += 1  # later than the others
    before, after = attention(x, real), attention(changed, real)
    assert torch.equal(before[:, [0, 1, 3]], after[:, [0, 1, 3]])
    assert not torch.allclose(before[:, 2], after[:, 2])


class LongestOfTheBatch(nn.Module):
    """Cuts a batch to its longest record: what others hold decides how a record is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(WORDS, 4), nn.Linear(4, 3)

    def forward(self, tokens: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        cut = tokens[:, : int(length.max())]
        logits: torch.Tensor = self.head(self.words(cut).mean(dim=1))
        return logits


class Broadcast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.positions = nn.Embedding(WORDS, 4), nn.Embedding(STEPS, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        positions = self.positions(torch.arange(x.shape[1]))
        logits: torch.Tensor = self.head((self.words(x) + positions).sum(dim=1))
        return logits


def test_a_model_that_cuts_a_batch_to_its_longest_record_is_refused() -> None:
    with pytest.raises(ModelError, match="other records of the batch"):
        try_private(LongestOfTheBatch(), TEXT, TASK)


def test_positions_without_a_batch_dimension_are_refused_with_the_way_out() -> None:
    with pytest.raises(ModelError, match=r"layer positions .*\nhint: .*expand\(len\(x\), steps\)"):
        try_private(Broadcast(), RecordSpec.tokens((STEPS,), WORDS, THREE), TASK)


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (nn.Embedding(4, 3, max_norm=1.0), "set max_norm=None"),
        (nn.Embedding(4, 3, scale_grad_by_freq=True), "set scale_grad_by_freq=False"),
        (nn.Embedding(4, 3, sparse=True), "set sparse=False"),
        (nn.EmbeddingBag(4, 3, max_norm=1.0), "set max_norm=None"),
        (nn.RNN(3, 3), "SequenceGRU"),
        (nn.LSTM(3, 3, bidirectional=True), "RecurrentStack"),
        (nn.GRU(3, 3, bidirectional=True), "RecurrentStack"),
        (nn.TransformerEncoderLayer(4, 2, dropout=0.0), "SelfAttention"),
    ],
)
def test_a_layer_that_would_give_records_away_is_refused_by_name(
    layer: nn.Module, words: str
) -> None:
    with pytest.raises(ModelError) as caught:
        check_private(nn.Sequential(layer))
    assert "layer 0" in str(caught.value)
    assert words in caught.value.full_text
