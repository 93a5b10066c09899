"""A recurrent model: LSTM over floats or tokens, linear layer."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError
from calyx.shared.models.recurrent import RecurrentStack, SequenceLSTM
from calyx.shared.models.steps import (
    check_sequence,
    mean_over_steps,
    token_embedding,
    token_lengths,
)


class Lstm(nn.Module):
    """LSTM over the steps of a record. Floats: the last state decides; tokens: the mean of all.

    Args:
        input_shape: (steps, features), or (steps,) of tokens.
        outputs: numbers to give, for a record or for each step.
        hidden: size of the state, in each direction.
        layers: stacked LSTM layers.
        values: tokens are in [0, values), and 0 is padding; None for floats.
        embedding: size of a token's vector; 0 is `hidden`.
        token_scale: what vectors of tokens are multiplied by, see `token_embedding`.
        bidirectional: whether each layer also reads backwards.
        mean: whether the mean of all states decides for floats too.
        each_step: whether to answer at each step.
        dropout: share of values left out of tokens' vectors and before the linear layer.

    Raises:
        ModelError: another input shape, or answers at each step from what comes after it.
    """

    def __init__(
        self,
        input_shape: tuple[int, ...],
        outputs: int,
        *,
        hidden: int = 128,
        layers: int = 1,
        values: int | None = None,
        embedding: int = 0,
        token_scale: float = 1.0,
        bidirectional: bool = False,
        mean: bool = False,
        each_step: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sequence("lstm", input_shape, values)
        if bidirectional and each_step:
            raise ModelError(
                "model.bidirectional: a model that reads backwards sees what it is to predict",
                hint="set model.bidirectional=false",
            )
        self.mean, self.each_step = mean or values is not None, each_step
        self.token_scale = token_scale
        self.embedding: nn.Embedding | None = None
        width = input_shape[-1]
        if values is not None:
            width = embedding or hidden
            self.embedding = token_embedding(values, width, token_scale)
        self.lstm: SequenceLSTM | RecurrentStack = (
            RecurrentStack("lstm", width, hidden, layers=layers, bidirectional=True)
            if bidirectional
            else SequenceLSTM(width, hidden, layers)
        )
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden * (1 + bidirectional), outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float32 (n, outputs), or (n, steps, outputs) for answers at each step.

        Args:
            x: float32 (n, steps, features), or tokens int64 (n, steps).
        """
        lengths = None
        if self.embedding is not None:
            lengths = token_lengths(x)
            x = self.dropout(self.token_scale * self.embedding(x))
        stack = self.lstm
        states = stack(x, lengths) if isinstance(stack, RecurrentStack) else stack(x)
        if not self.each_step:
            if self.mean:
                states = mean_over_steps(states, lengths)
            elif isinstance(stack, RecurrentStack):
                states = stack.last(states)
            else:
                states = states[:, -1]
        answers: torch.Tensor = self.classifier(self.dropout(states))
        return answers
