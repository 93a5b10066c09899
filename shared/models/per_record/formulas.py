"""Which layers have a formula of their own for per-record gradients.

A formula takes the layer, its input (n, ...) and the gradient of the summed loss by its output. All
other layers go to Opacus' grad samplers, or to functorch where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from calyx.shared.models.per_record.convolutions import convolution_gradients
from calyx.shared.models.per_record.embeddings import embedding_gradients
from calyx.shared.models.per_record.ghost_gru import gru_gradients
from calyx.shared.models.per_record.ghost_lstm import lstm_gradients
from calyx.shared.models.per_record.layer_gradients import LayerGradients
from calyx.shared.models.per_record.normalisation import norm_gradients, standardised_gradients
from calyx.shared.models.per_record.outer_products import linear_gradients
from calyx.shared.models.recurrent import SequenceGRU, SequenceLSTM
from calyx.shared.models.standardised import (
    StandardisedConv1d,
    StandardisedConv2d,
    StandardisedConv3d,
)

Formula = Callable[[Any, torch.Tensor, torch.Tensor], Sequence[LayerGradients]]


FORMULAS: Mapping[type[nn.Module], Formula] = {
    nn.Linear: lambda layer, inputs, grad_output: [linear_gradients(layer, inputs, grad_output)],
    nn.Embedding: embedding_gradients,
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), convolution_gradients),
    **dict.fromkeys(
        (StandardisedConv1d, StandardisedConv2d, StandardisedConv3d),
        standardised_gradients,
    ),
    **dict.fromkeys(
        (nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
        norm_gradients,
    ),
    SequenceLSTM: lstm_gradients,
    SequenceGRU: gru_gradients,
}
