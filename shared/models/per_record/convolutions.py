"""Per-record gradients of convolutions in one, two and three dimensions.

The positions of `calyx.shared.models.per_record.layer_gradients` are the places of the output, and
a_t is the patch of the input under the kernel (Rochette et al. 2019; Bu et al. 2022): stride,
dilation and padding only say which numbers a patch has. In a grouped convolution each group is a
small convolution of its own channels; its gradients, which are small, are formed one by one.
"""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.models.per_record.layer_gradients import Instantiated, LayerGradients
from calyx.shared.models.per_record.outer_products import outer_products, own_parameter

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


def convolution_gradients(
    layer: Convolution, inputs: torch.Tensor, grad_output: torch.Tensor
) -> list[LayerGradients]:
    """Gradients of a convolution by its weight and bias.

    Args:
        layer: the layer.
        inputs: (n, in_channels, *sizes).
        grad_output: gradient of the summed loss by the layer's output,
            (n, out_channels, *output sizes).
    """
    weight, bias = own_parameter(layer, "weight"), own_parameter(layer, "bias")
    patches = _patches(layer, inputs)
    n, channels, kernel = len(inputs), layer.in_channels, patches.shape[-2]
    b = grad_output.movedim(1, -1).reshape(n, -1, layer.out_channels)
    if layer.groups == 1:
        a = patches.reshape(n, -1, kernel * channels)
        return [outer_products([(weight, a)], b, [bias])]
    gradients: dict[nn.Parameter, torch.Tensor] = {}
    if weight is not None and weight.requires_grad:
        a = patches.reshape(n, -1, kernel, layer.groups, channels // layer.groups)
        a = a.permute(0, 3, 2, 4, 1).reshape(n * layer.groups, -1, a.shape[1])
        grouped = b.reshape(n, b.shape[1], layer.groups, -1).transpose(1, 2).flatten(0, 1)
        products = torch.bmm(a, grouped)  # (n groups, kernel channels, rows)
        by_kernel = products.view(n, layer.groups, kernel, -1, grouped.shape[2])
        gradients[weight] = by_kernel.permute(0, 1, 4, 3, 2).reshape(n, *weight.shape)
    if bias is not None and bias.requires_grad:
        gradients[bias] = b.sum(dim=1)
    return [Instantiated(gradients)] if gradients else []


def _patches(layer: Convolution, inputs: torch.Tensor) -> torch.Tensor:
    """What lies under the kernel at each place of the output, (n, *output sizes, kernel, channels).

    A view of the padded input as long as the kernel's dimensions are apart; channels come last,
    the layout in which patches are cheap to gather.
    """
    pads = [pad for pair in reversed(_padding(layer)) for pad in pair]
    if layer.padding_mode == "zeros":
        padded = nn.functional.pad(inputs.movedim(1, -1), [0, 0, *pads])
    else:
        padded = nn.functional.pad(inputs, pads, mode=layer.padding_mode).movedim(1, -1)
    patches = padded
    for axis, (size, stride, dilation) in enumerate(
        zip(layer.kernel_size, layer.stride, layer.dilation, strict=True), start=1
    ):
        windows = patches.unfold(axis, dilation * (size - 1) + 1, stride)
        patches = windows[..., ::dilation]
    dimensions = len(layer.kernel_size)
    # (n, *output sizes, channels, *kernel) to channels last.
    return patches.movedim(dimensions + 1, -1).flatten(dimensions + 1, -2)


def _padding(layer: Convolution) -> list[tuple[int, int]]:
    """(before, after) for each dimension."""
    if not isinstance(layer.padding, str):
        return [(int(pad), int(pad)) for pad in layer.padding]
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size)
    totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    return [(total // 2, total - total // 2) for total in totals]
