"""Per-record gradients of an embedding, with exact norms and never n tables.

A record's gradient by the table is zero but for the rows of its own tokens. With δ_t the gradient
of the loss by what the table gave for token x_t, row v has Σ_{t: x_t = v} δ_t, and so

    ‖g‖² = Σ_{t,t'} [x_t = x_t'] δ_t·δ_t'  =  Σ_v ‖Σ_{t: x_t = v} δ_t‖²

The first form is the ghost norm of Li et al. 2022 (section 4); the second needs no T² products and
has no terms that cancel: the rows of one record, T at most, are added up by token. The norm is that
of these very float32 values, and they are what is summed, in float64 both (docs/adr/0016).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

from calyx.shared.models.per_record.layer_gradients import (
    Instantiated,
    Sums,
    squared_by_record,
    unusable_records,
)
from calyx.shared.models.per_record.outer_products import own_parameter


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Gradients of one table, non-zero in the rows of each record's own tokens.

    Attributes:
        table: the parameter, (vocabulary, width).
        tokens: int64 (n, T); which row of the table each of `values` belongs to.
        values: float (n, T, width); of equal tokens of a record all but the first are zero.
    """

    table: nn.Parameter
    tokens: torch.Tensor
    values: torch.Tensor

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [self.table]

    @cached_property
    def _squared_norms(self) -> torch.Tensor:
        return squared_by_record(self.values)

    def squared_norms(self) -> torch.Tensor:
        return self._squared_norms

    def weighted_sum(self, weights: torch.Tensor) -> Sums:
        n = len(weights)
        values = self.values[:n]
        if (unusable := unusable_records(self, weights)) is not None:
            values = values.masked_fill(unusable.view(-1, 1, 1), 0)  # zero times infinity
        scaled = values.double() * weights.view(-1, 1, 1)
        total = torch.zeros(self.table.shape, dtype=torch.float64, device=values.device)
        return {self.table: total.index_add_(0, self.tokens[:n].flatten(), scaled.flatten(0, 1))}

    def instantiated(self) -> Instantiated:
        """One table a record: only where the table is also a layer's weight of another kind."""
        n, _, width = self.values.shape
        dense = self.values.new_zeros((n, *self.table.shape))
        dense.scatter_add_(1, self.tokens.unsqueeze(2).expand(-1, -1, width), self.values)
        return Instantiated({self.table: dense})

    def rows(self) -> list[torch.Tensor]:
        return [self.tokens, self.values]

    def __add__(self, other: TokenRows) -> TokenRows:
        """Gradients of two uses of the same table."""
        return _by_token(
            self.table,
            torch.cat([self.tokens, other.tokens], dim=1),
            torch.cat([self.values, other.values], dim=1),
        )


def embedding_gradients(
    layer: nn.Embedding, inputs: torch.Tensor, grad_output: torch.Tensor
) -> list[TokenRows]:
    """Gradients of an embedding's table.

    Args:
        layer: the layer; the row of its `padding_idx` has no gradient.
        inputs: tokens, int (n, ...).
        grad_output: gradient of the summed loss by the layer's output, (n, ..., width).
    """
    n = inputs.shape[0]
    tokens = inputs.reshape(n, -1).long()
    values = grad_output.reshape(n, -1, layer.embedding_dim)
    if layer.padding_idx is not None:
        # Not a product: what is not finite there would stay.
        values = values.masked_fill((tokens == layer.padding_idx).unsqueeze(2), 0)
    table = own_parameter(layer, "weight")
    return [] if table is None else [_by_token(table, tokens, values)]


def _by_token(table: nn.Parameter, tokens: torch.Tensor, values: torch.Tensor) -> TokenRows:
    """Add up what belongs to equal tokens of a record, at the place of the first of them."""
    n, steps = tokens.shape
    ordered, order = tokens.sort(dim=1, stable=True)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    if bool(starts.all()):
        return TokenRows(table, tokens, values)
    # Place in `ordered` where the run of each token begins, then the step that stands there.
    places = torch.arange(steps, device=tokens.device).expand(n, steps)
    begins = torch.where(starts, places, 0).cummax(dim=1).values
    first = torch.empty_like(order).scatter_(1, order, order.gather(1, begins))
    index = first + steps * torch.arange(n, device=tokens.device).unsqueeze(1)
    total = torch.zeros_like(values, memory_format=torch.contiguous_format).flatten(0, 1)
    if total.is_cuda:
        # Where index_add has no fixed order, a record's last bits would be another draw each time.
        total.index_put_((index.flatten(),), values.flatten(0, 1), accumulate=True)
    else:
        total.index_add_(0, index.flatten(), values.flatten(0, 1))
    return TokenRows(table, tokens, total.view_as(values))
