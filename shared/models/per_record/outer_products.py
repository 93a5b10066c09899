"""From a layer, what went in and the gradient of what came out, to its per-record gradients."""

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
    return outer_products([(_own(layer, "weight"), a)], b, [_own(layer, "bias")])


def takes_convolution(layer: nn.Conv2d) -> bool:
    """Whether `convolution_gradients` covers this layer's settings."""
    return (
        layer.groups == 1
        and layer.dilation == (1, 1)
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
    )


def convolution_gradients(
    layer: nn.Conv2d, inputs: torch.Tensor, grad_output: torch.Tensor
) -> OuterProducts:
    """Gradients of a two-dimensional convolution; see `takes_convolution`.

    The positions are the output's pixels, and a_t is the patch of the input under the kernel.

    Args:
        layer: the layer.
        inputs: (n, in_channels, height, width).
        grad_output: (n, out_channels, output height, output width).
    """
    n, channels = inputs.shape[:2]
    (kernel_h, kernel_w), (stride_h, stride_w) = layer.kernel_size, layer.stride
    pad_h, pad_w = (int(p) for p in layer.padding)
    pixels = inputs.permute(0, 2, 3, 1)
    padded = nn.functional.pad(pixels, (0, 0, pad_w, pad_w, pad_h, pad_h))
    patches = padded.unfold(1, kernel_h, stride_h).unfold(2, kernel_w, stride_w)
    a = patches.permute(0, 1, 2, 4, 5, 3).reshape(n, -1, kernel_h * kernel_w * channels)
    b = grad_output.permute(0, 2, 3, 1).reshape(n, -1, layer.out_channels)
    return outer_products([(_own(layer, "weight"), a)], b, [_own(layer, "bias")])


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


def _own(layer: nn.Module, name: str) -> nn.Parameter | None:
    return dict(layer.named_parameters(recurse=False)).get(name)
