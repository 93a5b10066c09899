"""A small self-attention encoder for sequences (Vaswani et al. 2017), made of linear layers.

Attention is written with `nn.Linear` instead of `nn.MultiheadAttention`, which hides its
weights from per-record gradients; so plain and private runs share one set of parameters.
Layer norm works within a record, there is no dropout, and positions are computed, not stored.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from calyx.shared.errors import ModelError


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

    def __init__(self, hidden: int, heads: int, *, causal: bool = False) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(hidden)
        self.attention = SelfAttention(hidden, heads, causal=causal)
        self.perceptron_norm = nn.LayerNorm(hidden)
        self.expand = nn.Linear(hidden, 2 * hidden)
        self.contract = nn.Linear(2 * hidden, hidden)

    def forward(self, x: torch.Tensor, real: torch.Tensor | None = None) -> torch.Tensor:
        """(n, steps, hidden) to (n, steps, hidden); `real` as for `SelfAttention`."""
        x = x + self.attention(self.attention_norm(x), real)
        x = x + self.contract(nn.functional.relu(self.expand(self.perceptron_norm(x))))
        return x


class AttentionEncoder(nn.Module):
    """Embedding, positions, encoder blocks, mean over the steps, linear layer.

    Args:
        input_shape: (steps, features).
        classes: number of classes.
        hidden: embedding size.
        layers: encoder blocks.
        heads: attention heads; must divide `hidden`.

    Raises:
        ModelError: another input shape, or heads that do not divide `hidden`.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        classes: int,
        *,
        hidden: int = 128,
        layers: int = 1,
        heads: int = 4,
    ) -> None:
        super().__init__()
        if len(input_shape) != 2 or min(input_shape) < 1:
            raise ModelError(
                "model attention takes sequences of shape (steps, features); the data have shape "
                f"{tuple(input_shape)}",
                hint="set data.view=sequence or use another model",
            )
        if hidden % heads:
            raise ModelError(
                f"model.heads = {heads} must divide model.hidden = {hidden}",
                hint="choose model.heads and model.hidden so that the first divides the second",
            )
        self.embedding = nn.Linear(input_shape[1], hidden)
        self.blocks = nn.ModuleList(EncoderBlock(hidden, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (n, classes), of sequences float32 (n, steps, features)."""
        x = self.embedding(x)
        x = x + sinusoidal_positions(x.shape[1], x.shape[2]).to(x)
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.classifier(self.norm(x).mean(dim=1))
        return logits


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
