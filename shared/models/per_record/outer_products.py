"""From a layer, its inputs and the gradients of its outputs to sums of outer products."""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.per_record.layer_gradients import OuterProducts


def linear_gradients(
    layer: nn.Linear, inputs: torch.Tensor, grad_output: torch.Tensor
) -> OuterProducts:
    """Gradients of a linear layer.

    Args:
        layer: the layer.
        inputs: (n, ..., in_features).
        grad_output: gradient of the summed loss by the layer's output, (n, ..., out_features).
    """
    n = inputs.shape[0]
    a = inputs.reshape(n, -1, inputs.shape[-1])
    b = grad_output.reshape(n, -1, grad_output.shape[-1])
    return outer_products([(own_parameter(layer, "weight"), a)], b, [own_parameter(layer, "bias")])


def outer_products(
    weights: list[tuple[nn.Parameter | None, torch.Tensor]],
    outputs: torch.Tensor,
    biases: list[nn.Parameter | None],
) -> OuterProducts:
    """Gradients of these weights, leaving out what is frozen or missing.

    Args:
        weights: each weight with its inputs a_t, (n, T, columns).
        outputs: b, (n, T, rows).
        biases: biases of (rows,).
    """
    trainable = [(w, a) for w, a in weights if w is not None and w.requires_grad]
    columns = [a for _, a in trainable] or [outputs[:, :, :0]]
    return OuterProducts(
        inputs=columns[0] if len(columns) == 1 else torch.cat(columns, dim=2),
        outputs=outputs,
        weights=tuple((w, a.shape[2]) for w, a in trainable),
        biases=tuple(b for b in biases if b is not None and b.requires_grad),
    )


def own_parameter(layer: nn.Module, name: str) -> nn.Parameter | None:
    """A layer's parameter of this name; None if it has none, or makes it of others."""
    return dict(layer.named_parameters(recurse=False)).get(name)
