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

A sender of weights chooses how badly a sum in floating point cancels. So *what is summed is
what was bounded* (docs/adr/0016), with u = 2^-53 and n records in one sum:

* instantiated: the norm is that of the very float32 values that are summed, both in float64;
* T = 1: ‖g‖² = ‖a‖²‖b‖² and Σ c_i b_i a_iᵀ in float64, from the same a and b;
* ghost norm with T > 1: sum and norm are of the same a and b too, but the terms may cancel. Let
  M = Σ_t ‖b_t‖‖a_t‖. The norm is raised by what float32 can be wrong (γ M², γ = (r + c + 8) 2^-24,
  and underflow) and by at least `_GUARD` M². So c_i M_i <= C / sqrt(`_GUARD`), and the sum, in
  float64, is off by at most nT u Σ_i c_i M_i <= n² T u C / sqrt(`_GUARD`): 3e-8 C for 64
  records of 28 positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch
from torch import nn

# Least part of M² that is added to a squared ghost norm; see above. Without much cancellation it
# shortens a clipped gradient by less than a part in a thousand.
_GUARD = 1e-5
_FLOAT32_ROUNDING = 2.0**-24
# What a product of two float32 values can lose by underflow, flushed to zero or not.
_FLOAT32_UNDERFLOW = 2.0**-126
# Numbers converted to float64 at once: they stay in the cache.
_AT_ONCE = 2**18
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
        """float64 (n,): squared L2 norm over these parameters, an upper bound after rounding."""

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        """Σ_i weights_i g_i for each parameter, float64.

        A record of weight zero contributes zero even if its gradient is not finite.

        Args:
            weights: float64 (m,) for the first m <= n records; the others are left out.
        """

    def instantiated(self) -> Instantiated:
        """The same gradients, one by one."""

    def rows(self) -> list[torch.Tensor]:
        """All that norm and sum are made of, float (n, ...) each: row i belongs to record i."""


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

    @cached_property
    def _squared_norms(self) -> torch.Tensor:
        return torch.stack([squared_by_record(g) for g in self.gradients.values()]).sum(dim=0)

    def squared_norms(self) -> torch.Tensor:
        return self._squared_norms

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        unusable = unusable_records(self, weights)
        return {p: _weighted_rows(weights, g, unusable) for p, g in self.gradients.items()}

    def rows(self) -> list[torch.Tensor]:
        return list(self.gradients.values())

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
            order. The columns of a convolution's weight are ordered by (kernel place, channel),
            the layout in which patches are cheap to gather.
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
            return positions == 1
        return positions**2 * (rows + columns) <= _MEMORY_COST * rows * columns

    @cached_property
    def _products(self) -> torch.Tensor:
        """gᵀ, float (n, columns, rows); this order is faster when there are few columns."""
        return torch.bmm(self.inputs.transpose(1, 2), self.outputs)

    @cached_property
    def _bias_gradients(self) -> torch.Tensor:
        """Σ_t b_t, float (n, rows)."""
        return self.outputs.sum(dim=1)

    @cached_property
    def _wide(self) -> tuple[torch.Tensor, torch.Tensor]:
        """a and b in float64: products of float32 values are exact in it, and never overflow."""
        return self.inputs.double(), self.outputs.double()

    def squared_norms(self) -> torch.Tensor:
        return self._squared_norms

    @cached_property
    def _squared_norms(self) -> torch.Tensor:
        bias_count = len(self.biases)
        if not self._by_ghost_norm:
            squared = squared_by_record(self._products)
            return squared + bias_count * squared_by_record(self._bias_gradients)
        # A bias is a weight whose input is always 1.
        a, b = self._wide
        a_squared = a.square().sum(dim=2) + bias_count
        b_squared = b.square().sum(dim=2)
        if a.shape[1] == 1:
            return (a_squared * b_squared).squeeze(1)
        return self._ghost_norms(a_squared, b_squared)

    def _ghost_norms(self, a_squared: torch.Tensor, b_squared: torch.Tensor) -> torch.Tensor:
        """Squared norms for T > 1, from the squared norms of a_t (biases included) and b_t."""
        a, b = self.inputs, self.outputs
        if torch.get_float32_matmul_precision() != "highest":
            a, b = self._wide  # what the processor makes of float32 has another error then
        products = torch.bmm(a, a.transpose(1, 2)).add_(len(self.biases))
        products *= torch.bmm(b, b.transpose(1, 2))
        positions, rows, columns = *b.shape[1:], a.shape[2]
        lost_a, lost_b = columns * _FLOAT32_UNDERFLOW, rows * _FLOAT32_UNDERFLOW
        a_total, b_total = a_squared.sqrt().sum(dim=1), b_squared.sqrt().sum(dim=1)
        underflow = (
            lost_a * b_total.square()
            + lost_b * a_total.square()
            + positions**2 * 2 * _FLOAT32_UNDERFLOW
        )
        magnitude = (a_squared * b_squared).sqrt().sum(dim=1).square()
        guard = max(_GUARD, (rows + columns + 8) * _FLOAT32_ROUNDING)
        squared = products.sum(dim=(1, 2), dtype=torch.float64).clamp(min=0)
        return squared + guard * magnitude + underflow

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        unusable = unusable_records(self, weights)
        if not self._by_ghost_norm:
            sums = self._split(_weighted_rows(weights, self._products, unusable))
            if self.biases:
                bias_sum = _weighted_rows(weights, self._bias_gradients, unusable)
                sums.update({bias: bias_sum.clone() for bias in self.biases})
            return sums
        a, b = (wide[: len(weights)] for wide in self._wide)
        if unusable is not None:
            # Zero times infinity is not zero.
            a, b = (x.masked_fill(unusable.view(-1, 1, 1), 0) for x in (a, b))
        scaled = (b * weights.view(-1, 1, 1)).flatten(0, 1)
        sums = self._split((scaled.T @ a.flatten(0, 1)).T)
        if self.biases:
            bias_sum = scaled.sum(dim=0)
            sums.update({bias: bias_sum.clone() for bias in self.biases})
        return sums

    def instantiated(self) -> Instantiated:
        gradients = self._split(self._products)
        gradients.update(dict.fromkeys(self.biases, self._bias_gradients))
        return Instantiated(gradients)

    def rows(self) -> list[torch.Tensor]:
        if self._by_ghost_norm:
            # With its guard a norm can still differ by a fifth between two ways of rounding it.
            cancels = self.outputs.shape[1] > 1
            return [self.inputs, self.outputs, *([self.squared_norms()] if cancels else [])]
        return [self._products, self._bias_gradients]

    def _split(self, transposed: torch.Tensor) -> Sums:
        """From (..., columns, rows) to one gradient (..., *weight shape) for each weight."""
        counts = [count for _, count in self.weights]
        parts = torch.split_with_sizes(transposed.movedim(-1, -2), counts, dim=-1)
        sums: Sums = {}
        for (weight, _), part in zip(self.weights, parts, strict=True):
            if weight.dim() > 2:
                rows, channels, *kernel = weight.shape
                kernel_first = part.reshape(*part.shape[:-2], rows, *kernel, channels)
                sums[weight] = kernel_first.movedim(-1, -1 - len(kernel))
            else:
                sums[weight] = part
        return sums


def squared_by_record(x: torch.Tensor) -> torch.Tensor:
    """Squared L2 norm of all that belongs to one record, float64 (n,)."""
    rows = x.flatten(1)
    found = [part.double().square_().sum(dim=1) for part in torch.split(rows, _rows_at_once(rows))]
    return torch.cat(found)


def unusable_records(part: LayerGradients, weights: torch.Tensor) -> torch.Tensor | None:
    """Which of these records have numbers that are not finite, bool (m,); None if none has.

    A finite norm has only finite numbers in it. The others' weight is zero.
    """
    unusable = ~torch.isfinite(part.squared_norms()[: len(weights)])
    return unusable if bool(unusable.any()) else None


def _weighted_rows(
    weights: torch.Tensor, x: torch.Tensor, unusable: torch.Tensor | None
) -> torch.Tensor:
    """Σ_i weights_i x_i in float64, of the shape of one x_i, without what is unusable."""
    rows = x[: len(weights)].flatten(1)
    if unusable is not None:
        rows = rows.masked_fill(unusable.unsqueeze(1), 0)  # zero times infinity is not zero
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=x.device)
    size = _rows_at_once(rows)
    for weight, part in zip(torch.split(weights, size), torch.split(rows, size), strict=True):
        total += weight @ part.double()
    return total.view(x.shape[1:])


def _rows_at_once(rows: torch.Tensor) -> int:
    return max(1, _AT_ONCE // max(1, rows.shape[1]))
