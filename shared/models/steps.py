"""The steps of a record in models of sequences: which are real, and what they say together."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.models.inputs import real_steps

# What PyTorch draws is ten times as large: then what a table learns of a few thousand sentences
# stays small beside what was drawn, and test accuracy one to four points lower.
_TOKEN_STD = 0.1


def token_embedding(values: int, width: int, scale: float) -> nn.Embedding:
    """A vector of `width` for each token in [0, values); that of padding, 0, is not learned.

    The model multiplies what it looks up by `scale`, and the table starts smaller by as much. So a
    sentence's gradient by the table is `scale` times as large, while the noise on each number of
    the table is not: what few sentences say about a word is else lost in it.
    """
    table = nn.Embedding(values, width, padding_idx=0)
    with torch.no_grad():
        table.weight *= _TOKEN_STD / scale
    return table


def check_sequence(model: str, input_shape: tuple[int, ...], values: int | None) -> None:
    """Refuse records that are no sequence.

    Args:
        model: its name.
        input_shape: of a record: (steps, features), or (steps,) of tokens.
        values: tokens are below it; None for floats.

    Raises:
        ModelError: another shape.
    """
    dimensions, form = (2, "(steps, features)") if values is None else (1, "(steps,)")
    if len(input_shape) != dimensions or min(input_shape) < 1:
        kind = "sequences" if values is None else "tokens"
        raise ModelError(
            f"model {model} takes {kind} of shape {form}; the data have shape {tuple(input_shape)}",
            hint="set data.view=sequence, or use another model: cnn for images, mlp for tables",
        )


def token_lengths(tokens: torch.Tensor) -> torch.Tensor:
    """Steps up to the last that is not padding, int64 (n,), of tokens (n, steps)."""
    places = torch.arange(1, tokens.shape[1] + 1, device=tokens.device)
    return ((tokens != 0) * places).amax(dim=1)


def mean_over_steps(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Mean over the real steps of each record, (n, width).

    Args:
        x: (n, steps, width).
        lengths: int64 (n,), real steps of each record; None if all are. A record without any has
            mean 0.
    """
    if lengths is None:
        return x.mean(dim=1)
    total = x.masked_fill(~real_steps(lengths, x.shape[1]).unsqueeze(2), 0).sum(dim=1)
    return total / lengths.clamp(min=1).unsqueeze(1)
