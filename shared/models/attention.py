"""A small self-attention encoder for sequences (Vaswani et al. 2017), made of linear layers.

Attention is written with `nn.Linear` instead of `nn.MultiheadAttention`, which hides its
weights from per-record gradients; so plain and private runs share one set of parameters.
Layer norm works within a record, and positions are computed, not stored.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.models.inputs import real_steps
from calyx.shared.models.steps import (
    check_sequence,
    mean_over_steps,
    token_embedding,
    token_lengths,
)


class SelfAttention(nn.Module):
    """Multi-head scaled dot-product attention of a sequence with itself.

    Args:
        hidden: size of a step's vector.
        heads: attention heads; must divide `hidden`.
        causal: whether a step sees no later one, as in a model of the next token.

    Raises:
        ModelError: heads that do not divide `hidden`.
    """

    def __init__(self, hidden: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        if heads < 1 or hidden % heads:
            raise ModelError(
                f"self-attention cannot have {heads} heads: {hidden} is not a multiple of {heads}"
                if heads > 0
                else f"self-attention cannot have {heads} heads",
                hint=f"use a number of heads that divides {hidden}",
            )
        self.heads, self.causal = heads, causal
        self.queries_keys_values = nn.Linear(hidden, 3 * hidden)
        self.output = nn.Linear(hidden, hidden)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """What each step gathers from the steps it may see.

        Args:
            x: float32 (n, steps, hidden).
            real: bool (n, steps), False where a step only fills up a record; None if none does.

        Returns:
            float32 (n, steps, hidden). Steps that fill up have values too, which nothing must use.
        """
        n, steps, hidden = x.shape
        split = self.queries_keys_values(x).view(n, steps, 3, self.heads, hidden // self.heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._visible(steps, real, x.device)
        )
        attended: torch.Tensor = self.output(mixed.transpose(1, 2).reshape(n, steps, hidden))
        return attended

    def _visible(
        self, steps: int, real: torch.Tensor | None, device: torch.device
    ) -> torch.Tensor | None:
        """Which step (row) sees which (column), bool, to be broadcast over (n, heads).

        A step always sees itself: a softmax over nothing has no value, and a record without a
        real step must not have NaN for a gradient.
        """
        if real is None and not self.causal:
            return None
        visible = torch.ones(steps, steps, dtype=torch.bool, device=device)
        if self.causal:
            visible = visible.tril()
        if real is None:
            return visible
        itself = torch.eye(steps, dtype=torch.bool, device=device)
        return (visible & real[:, None, None, :]) | itself


class EncoderBlock(nn.Module):
    """Attention and a two-layer perceptron, each behind a layer norm and around a shortcut."""

    def __init__(
        self, hidden: int, heads: int, *, causal: bool = False, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = SelfAttention(hidden, heads, causal=causal)
        self.perceptron_norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, 2 * hidden)
        self.contract = nn.Linear(2 * hidden, hidden)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(n, steps, hidden) to (n, steps, hidden); `real` as for `SelfAttention`."""
        x = x + self.dropout(self.attention(self.attention_norm(x), real))
        expanded = nn.functional.relu(self.expand(self.perceptron_norm(x)))
        x = x + self.dropout(self.contract(expanded))
        return x


class AttentionEncoder(nn.Module):
    """Embedding, positions, encoder blocks, mean over the real steps, linear layer.

    Args:
        input_shape: (steps, features), or (steps,) of tokens.
        outputs: numbers to give, for a record or for each step.
        hidden: embedding size.
        layers: encoder blocks.
        heads: attention heads; must divide `hidden`.
        values: tokens are in [0, values), and 0 is padding; None for floats.
        token_scale: what vectors of tokens are multiplied by, see `token_embedding`.
        each_step: whether to answer at each step; a step then sees no later one.
        dropout: share of values left out of the embedding and of what each block adds.

    Raises:
        ModelError: another input shape, or heads that do not divide `hidden`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        hidden: int = 128,
        layers: int = 1,
        heads: int = 4,
        values: int | None = None,
        token_scale: float = 1.0,
        each_step: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sequence("attention", input_shape, values)
        if hidden % heads:
            raise ModelError(
                f"model.heads = {heads} must divide model.hidden = {hidden}",
                hint="choose model.heads and model.hidden so that the first divides the second",
            )
        self.each_step, self.token_scale = each_step, token_scale
        self.embedding: nn.Linear | nn.Embedding = (
            nn.Linear(input_shape[1], hidden)
            if values is None
            else token_embedding(values, hidden, token_scale)
        )
        self.blocks = nn.ModuleList(
            EncoderBlock(hidden, heads, causal=each_step, dropout=dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (n, outputs), or (n, steps, outputs) for answers at each step.

        Args:
            x: float32 (n, steps, features), or tokens int64 (n, steps).
        """
        lengths = real = None
        if isinstance(self.embedding, nn.Embedding):
            lengths = token_lengths(x)
            # Where a step sees no later one, no real step sees padding either.
            real = None if self.each_step else real_steps(lengths, x.shape[1])
        x = self.embedding(x) if lengths is None else self.token_scale * self.embedding(x)
        x = self.dropout(x + sinusoidal_positions(x.shape[1], x.shape[2]).to(x))
        for block in self.blocks:
            x = block(x, real)
        x = self.norm(x)
        answers: torch.Tensor = self.classifier(
            x if self.each_step else mean_over_steps(x, lengths)
        )
        return answers


def sinusoidal_positions(steps: int, hidden: int) -> torch.Tensor:
    """Positional encoding, float32 (steps, hidden): section 3.5 of Vaswani et al. 2017.

    Column 2i holds sin(t / 10000^(2i/hidden)), column 2i+1 the cosine of the same angle.
    """
    time = torch.arange(steps, dtype=torch.float32).unsqueeze(1)
    even = torch.arange(0, hidden, 2, dtype=torch.float32)
    angles = time * torch.exp(even * (-math.log(10_000.0) / hidden))
    positions = torch.zeros(steps, hidden)
    positions[:, 0::2] = torch.sin(angles)
    positions[:, 1::2] = torch.cos(angles[:, : hidden // 2])
    return positions
