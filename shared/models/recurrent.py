"""Recurrent layers that can be trained privately: with lengths, both directions, several layers.

They are made of `SequenceLSTM` and `SequenceGRU`, one tensor in and one out, for which
`calyx.shared.models.per_record` has exact per-record gradients. Sequences stay filled up: a packed
sequence computes each step for as many records as are still running, so how a record is rounded
would depend on how long its neighbours are.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.models.inputs import real_steps


class _TopStates(nn.Module):
    """What both recurrent layers add to PyTorch's: one tensor out, and the batch first."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__(input_size, hidden_size, num_layers, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """States float32 (n, steps, hidden_size) for inputs float32 (n, steps, input_size)."""
        states: torch.Tensor = super().forward(x)[0]
        return states


class SequenceLSTM(_TopStates, nn.LSTM):  # type: ignore[misc]
    """`torch.nn.LSTM` that returns only the top layer's states, as one tensor.

    Parameters, their names and the fast kernel are those of `nn.LSTM`. One output tensor is what
    makes per-record gradients possible: `calyx.shared.models.per_record.layer_gradients` gets them
    from the layer's input and the gradient of that one output.

    Args:
        input_size: features a step.
        hidden_size: size of the state.
        num_layers: stacked layers.
    """


class SequenceGRU(_TopStates, nn.GRU):  # type: ignore[misc]
    """`torch.nn.GRU` that returns only the top layer's states, as one tensor.

    Args:
        input_size: features a step.
        hidden_size: size of the state.
        num_layers: stacked layers.
    """


class RecurrentStack(nn.Module):
    """Stacked LSTMs or GRUs in one or both directions, for sequences of different lengths.

    States after a record's last step are zero, so no gradient comes from there; the second
    direction starts at a record's own last step.

    Args:
        cell: ``lstm`` or ``gru``.
        input_size: features a step.
        hidden: size of a state in one direction.
        layers: stacked layers, at least 1.
        bidirectional: whether each layer also reads backwards.

    Raises:
        ModelError: another cell, or no layer.
    """

    def __init__(
        self,
        cell: Literal["lstm", "gru"],
        input_size: int,
        hidden: int,
        *,
        layers: int = 1,
        bidirectional: bool = False,
    ) -> None:
        super().__init__()
        cells = {"lstm": SequenceLSTM, "gru": SequenceGRU}
        if cell not in cells:
            raise ModelError(f"a recurrent stack cannot have cells {cell}", hint="use lstm or gru")
        if layers < 1:
            raise ModelError(
                f"a recurrent stack cannot have {layers} layers", hint="use at least one layer"
            )
        self.hidden = hidden
        width = hidden * (1 + bidirectional)
        sizes = [input_size, *[width] * (layers - 1)]
        self.onward = nn.ModuleList(cells[cell](size, hidden) for size in sizes)
        self.reverse = nn.ModuleList(
            cells[cell](size, hidden) for size in (sizes if bidirectional else ())
        )

    def forward(self, x: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """States of the top layer.

        Args:
            x: float32 (n, steps, input_size).
            lengths: int64 (n,), real steps of each record; None if all are.

        Returns:
            float32 (n, steps, directions hidden), zero after a record's last step.
        """
        for index, onward in enumerate(self.onward):
            states = onward(x)
            if self.reverse:
                other = self.reverse[index](_turned(x, lengths))
                states = torch.cat([states, _turned(other, lengths)], dim=2)
            x = states
        if lengths is None:
            return x
        return x.masked_fill(~real_steps(lengths, x.shape[1]).unsqueeze(2), 0)

    def last(self, states: torch.Tensor, lengths: torch.Tensor | None = None) -> torch.Tensor:
        """What each direction ends with, float32 (n, directions hidden), from `forward`'s states.

        The onward direction ends at a record's last step, the other one at its first.
        """
        steps = states.shape[1]
        onward = states[:, :, : self.hidden]
        if lengths is None:
            ends = onward[:, -1]
        else:
            at = (lengths.clamp(1, steps) - 1).view(-1, 1, 1).expand(-1, 1, self.hidden)
            ends = onward.gather(1, at).squeeze(1)
        return torch.cat([ends, states[:, 0, self.hidden :]], dim=1)


def _turned(x: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """(n, steps, ·) with each record's real steps in reverse; what fills them up stays behind."""
    if lengths is None:
        return x.flip(1)
    steps = torch.arange(x.shape[1], device=x.device)
    mirrored = lengths.unsqueeze(1) - 1 - steps
    order = torch.where(mirrored >= 0, mirrored, steps)
    return x.gather(1, order.unsqueeze(2).expand_as(x))
