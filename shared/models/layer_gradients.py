"""Per-record gradients of single layers: their norms, and their weighted sum.

A layer's weight gradient for one record is a sum of outer products over positions t (one for
a linear layer on a vector, the pixels for a convolution, the steps for a recurrent layer):

    g = Σ_t b_t a_tᵀ          a_t: what went into the weight,  b_t: gradient of what came out

Two ways to its norm, and `OuterProducts` takes the cheaper one:

* *ghost norm* (Goodfellow 2015; Li et al. 2022):  ‖g‖² = Σ_{t,t'} (b_t·b_t')(a_t·a_t'); g itself
  never exists;
* *instantiated*: g is computed for each record and kept for the weighted sum.

Once the clip factors c_i are known, Σ_i c_i g_i is one matrix product. Keeping a and b from
one backward pass for it is the book-keeping trick of Bu et al. 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

# Float error of a ghost norm relative to the sum of the absolute values of its terms: terms
# of opposite sign cancel, their rounding errors do not. Dot products of up to some thousand
# float32 values stay below this by a wide margin.
_ROUNDING = 1e-6
# Writing and reading one number of an instantiated gradient takes as long as about this many
# multiplications of a matrix product (measured on CPUs).
_MEMORY_COST = 8

Sums = dict[nn.Parameter, torch.Tensor]


class LayerGradients(Protocol):
    """Gradients of some parameters, one for each of n records."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """The parameters, all of them trainable."""

    def squared_norms(self) -> torch.Tensor:
        """float (n,): squared L2 norm over these parameters, an upper bound after rounding."""

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        """Σ_i weights_i g_i for each parameter; `weights` is float (n,).

        A record of weight zero contributes zero even if its gradient is not finite.
        """

    def instantiated(self) -> Instantiated:
        """The same gradients, one by one."""


@dataclass(frozen=True, eq=False)
class Instantiated:
    """Gradients that exist one by one, as Opacus' grad samplers return them.

    Attributes:
        gradients: parameter to float (n, *parameter shape).
    """

    gradients: Sums

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.gradients)

    def squared_norms(self) -> torch.Tensor:
        squares = [_row_norms(g).square() for g in self.gradients.values()]
        return torch.stack(squares).sum(dim=0)

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        keep = weights != 0
        return {
            p: (weights[keep] @ g[keep].flatten(1)).view(p.shape) for p, g in self.gradients.items()
        }

    def instantiated(self) -> Instantiated:
        return self

    def __add__(self, other: Instantiated) -> Instantiated:
        """Gradients of the sum of two losses; a parameter missing in one counts as zero."""
        total = dict(self.gradients)
        for parameter, gradient in other.gradients.items():
            total[parameter] = total[parameter] + gradient if parameter in total else gradient
        return Instantiated(total)


@dataclass(frozen=True, eq=False)
class OuterProducts:
    """Gradients Σ_t b_t a_tᵀ of weights, and Σ_t b_t of biases, that share the b_t.

    Attributes:
        inputs: a, float (n, T, Σ columns).
        outputs: b, float (n, T, rows).
        weights: weight parameters with the number of columns of `inputs` each one takes, in
            order. The columns of a convolution's weight are ordered by (kernel row, kernel
            column, channel), the layout in which patches are cheap to gather.
        biases: bias parameters, (rows,) each.
    """

    inputs: torch.Tensor
    outputs: torch.Tensor
    weights: tuple[tuple[nn.Parameter, int], ...]
    biases: tuple[nn.Parameter, ...]

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [*(weight for weight, _ in self.weights), *self.biases]

    @cached_property
    def _by_ghost_norm(self) -> bool:
        positions, rows, columns = *self.outputs.shape[1:], self.inputs.shape[2]
        if positions == 1 or not columns:
            return True
        return positions**2 * (rows + columns) <= _MEMORY_COST * rows * columns

    @cached_property
    def _products(self) -> torch.Tensor:
        """gᵀ, float (n, columns, rows); this order is faster when there are few columns."""
        return torch.bmm(self.inputs.transpose(1, 2), self.outputs)

    def squared_norms(self) -> torch.Tensor:
        a, b, bias_count = self.inputs, self.outputs, len(self.biases)
        if not self._by_ghost_norm:
            squared = _row_norms(self._products).square()
            return squared + bias_count * _row_norms(b.sum(dim=1)).square()
        # A bias is a weight whose input is always 1.
        a_squared = a.square().sum(dim=2) + bias_count
        b_squared = b.square().sum(dim=2)
        if a.shape[1] == 1:
            return (a_squared * b_squared).squeeze(1)
        products = torch.bmm(a, a.transpose(1, 2)).add_(bias_count)
        products *= torch.bmm(b, b.transpose(1, 2))
        magnitude = (a_squared * b_squared).sqrt().sum(dim=1).square()
        return products.sum(dim=(1, 2)).clamp(min=0) + _ROUNDING * magnitude

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        keep = weights != 0
        if not bool(keep.all()):
            # Zero times infinity is not zero: leave such records out altogether.
            rest = OuterProducts(self.inputs[keep], self.outputs[keep], self.weights, self.biases)
            return rest.weighted_sum(weights[keep])
        scaled = (self.outputs * weights.view(-1, 1, 1)).flatten(0, 1)
        if "_products" in self.__dict__:
            total = (weights @ self._products.flatten(1)).view(self._products.shape[1:])
        else:
            total = self.inputs.flatten(0, 1).T @ scaled
        sums = self._split(total)
        if self.biases:
            bias_sum = scaled.sum(dim=0)
            sums.update({bias: bias_sum.clone() for bias in self.biases})
        return sums

    def instantiated(self) -> Instantiated:
        gradients = self._split(self._products)
        gradients.update({bias: self.outputs.sum(dim=1) for bias in self.biases})
        return Instantiated(gradients)

    def _split(self, transposed: torch.Tensor) -> Sums:
        """From (..., columns, rows) to one gradient (..., *weight shape) for each weight."""
        counts = [count for _, count in self.weights]
        parts = torch.split_with_sizes(transposed.movedim(-1, -2), counts, dim=-1)
        sums: Sums = {}
        for (weight, _), part in zip(self.weights, parts, strict=True):
            if weight.dim() == 4:
                rows, channels, height, width = weight.shape
                pixels_first = part.reshape(*part.shape[:-2], rows, height, width, channels)
                sums[weight] = pixels_first.movedim(-1, -3)
            else:
                sums[weight] = part
        return sums


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


def _row_norms(x: torch.Tensor) -> torch.Tensor:
    """L2 norm of all that belongs to one record, (n,)."""
    norms: torch.Tensor = torch.linalg.vector_norm(x.flatten(1), dim=1)
    return norms
