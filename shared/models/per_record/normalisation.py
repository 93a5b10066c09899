"""Per-record gradients of LayerNorm, GroupNorm, InstanceNorm and weight standardisation.

A norm within a record gives γ x̂ + β, where x̂ comes of that record alone: the gradient by γ is
Σ δ x̂ and by β is Σ δ over all positions that share an entry of γ. That is one small vector a
record, so it is formed, and its norm is that of the very values that are summed.

A standardised weight ŵ = (w - mean) / sqrt(var + ε) depends on weights only. So a record's gradient
by w is its gradient by ŵ, taken through the Jacobian of ŵ by w, the same for all records.
"""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.per_record.convolutions import convolution_gradients
from calyx.shared.models.per_record.layer_gradients import Instantiated, Sums
from calyx.shared.models.per_record.outer_products import own_parameter
from calyx.shared.models.standardised import (
    StandardisedConv1d,
    StandardisedConv2d,
    StandardisedConv3d,
    standardised,
)

Norm = nn.LayerNorm | nn.GroupNorm | nn.InstanceNorm1d | nn.InstanceNorm2d | nn.InstanceNorm3d


def norm_gradients(
    layer: Norm, inputs: torch.Tensor, grad_output: torch.Tensor
) -> list[Instantiated]:
    """Gradients of a norm's weight and bias.

    Args:
        layer: the layer.
        inputs: (n, ...).
        grad_output: gradient of the summed loss by the layer's output, of the same shape.
    """
    functional = nn.functional
    with torch.no_grad():
        if isinstance(layer, nn.LayerNorm):
            last = len(layer.normalized_shape)
            summed = tuple(range(1, inputs.dim() - last))
            normed = functional.layer_norm(inputs, layer.normalized_shape, eps=layer.eps)
        elif isinstance(layer, nn.GroupNorm):
            summed = tuple(range(2, inputs.dim()))
            normed = functional.group_norm(inputs, layer.num_groups, eps=layer.eps)
        else:
            summed = tuple(range(2, inputs.dim()))
            normed = functional.instance_norm(inputs, eps=layer.eps)
        gradients: Sums = {}
        for name, entries in (("weight", normed), ("bias", None)):
            parameter = own_parameter(layer, name)
            if parameter is None or not parameter.requires_grad:
                continue
            products = grad_output if entries is None else entries * grad_output
            gradients[parameter] = products.sum(dim=summed) if summed else products
    return [Instantiated(gradients)] if gradients else []


def standardised_gradients(
    layer: StandardisedConv1d | StandardisedConv2d | StandardisedConv3d,
    inputs: torch.Tensor,
    grad_output: torch.Tensor,
) -> list[Instantiated]:
    """Gradients of a convolution with standardised weights; arguments as for a convolution's."""
    gradients: Sums = {}
    for part in convolution_gradients(layer, inputs, grad_output):
        gradients.update(part.instantiated().gradients)
    weight = own_parameter(layer, "weight")
    if weight is not None and weight in gradients:
        by_weight = torch.func.vjp(lambda w: standardised(w, layer.eps), weight.detach())[1]
        (gradients[weight],) = torch.vmap(by_weight)(gradients[weight])
    return [Instantiated(gradients)] if gradients else []
