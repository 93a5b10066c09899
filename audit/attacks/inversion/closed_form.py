"""The closed form: a fully connected layer with a bias reveals its input.

With z = W x + b, dL/dW = (dL/dz) x' and dL/db = dL/dz, so x = (dL/dW_j) / (dL/db_j) for each unit j
with a gradient (Phong et al. 2018; Geiping et al. 2020, proposition 3.1). A single record is
recovered exactly; of several, a unit shows the mean, weighted by how much each moved it.
"""

from __future__ import annotations

import math

import torch
from torch import nn


def first_layer(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[str, str] | None:
    """Names of weight and bias of the layer that sees whole records, None if there is none.

    It must be the first with parameters, fully connected, with a bias, and as wide as a record.
    """
    for name, layer in model.named_modules():
        if next(layer.parameters(recurse=False), None) is None:
            continue
        fits = isinstance(layer, nn.Linear) and layer.in_features == math.prod(input_shape)
        if fits and isinstance(layer, nn.Linear) and layer.bias is not None:
            return f"{name}.weight", f"{name}.bias"
        return None
    return None


def layer_inputs(weight: torch.Tensor, bias: torch.Tensor, records: int) -> torch.Tensor:
    """Inputs of the layer, (records, inputs).

    Args:
        weight: gradient of the weight, (units, inputs).
        bias: gradient of the bias, (units,).
        records: how many to return. For one, all units are used: the least-squares solution of
            dL/dW = (dL/db) x', which is the exact input without noise and the best guess with
            noise. For several, those of the units that moved most.
    """
    weight, bias = weight.double(), bias.double()
    if records == 1:
        return (bias @ weight / bias.square().sum().clamp_min(1e-300)).unsqueeze(0)
    strongest = bias.abs().topk(min(records, len(bias))).indices
    ratios = weight[strongest] / bias[strongest].unsqueeze(1)
    return torch.nan_to_num(ratios, nan=0.0, posinf=0.0, neginf=0.0)
