"""A recurrent classifier: LSTM, last step, linear layer."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError


class SequenceLSTM(nn.LSTM):
    """`torch.nn.LSTM` that returns only the top layer's states, as one tensor.

    Parameters, their names and the fast kernel are those of `nn.LSTM`. One output tensor is what
    makes per-record gradients possible: `calyx.shared.models.per_record.layer_gradients` gets them
    from the layer's input and the gradient of that one output.

    Args:
        input_size: features a step.
        hidden_size: size of the state.
        num_layers: stacked layers.
    """

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1) -> None:
        super().__init__(input_size, hidden_size, num_layers, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        """States float32 (n, steps, hidden_size) for inputs float32 (n, steps, input_size)."""
        states: torch.Tensor = super().forward(x)[0]
        return states


class Lstm(nn.Module):
    """LSTM over the rows of a record; the last state decides.

    Args:
        input_shape: (steps, features).
        classes: number of classes.
        hidden: size of the state.
        layers: stacked LSTM layers.

    Raises:
        ModelError: another input shape.
    """

    def __init__(
        self, input_shape: tuple[int, ...], classes: int, *, hidden: int = 128, layers: int = 1
    ) -> None:
        super().__init__()
        if len(input_shape) != 2 or min(input_shape) < 1:
            raise ModelError(
                "model lstm takes sequences of shape (steps, features); the data have shape "
                f"{tuple(input_shape)}",
                hint="set data.view=sequence or use another model",
            )
        self.lstm = SequenceLSTM(input_shape[1], hidden, layers)
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits, float32 (n, classes), of sequences float32 (n, steps, features)."""
        logits: torch.Tensor = self.classifier(self.lstm(x)[:, -1])
        return logits
