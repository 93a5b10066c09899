"""Per-record gradients of a whole model: clip each record's own, and add them up.

    Σ_i min(1, C / ‖g_i‖) g_i          g_i: gradient of record i's loss by all parameters

One forward and one backward pass (Bu et al. 2023): forward hooks keep each layer's input, autograd
returns the gradients by the layers' outputs and skips its own weight gradients, and
`calyx.shared.models.per_record.layer_gradients` does the rest. Layers without a formula there go to
Opacus.

What the bound on one record's contribution rests on:

* the norm is that of the very gradient that is summed, over all trainable parameters jointly, for
  whatever weights (`calyx.shared.models.per_record.layer_gradients`);
* no record influences another record's gradient (`calyx.shared.models.per_record.private` tries
  that out), not even by rounding (`calyx.shared.models.per_record.blocks`);
* a record whose loss, gradient or norm is not finite contributes zero, and cannot poison the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from calyx.shared.errors import ModelError
from calyx.shared.models.per_record.embeddings import TokenRows
from calyx.shared.models.per_record.formulas import FORMULAS
from calyx.shared.models.per_record.layer_gradients import Instantiated, LayerGradients, Sums
from calyx.shared.models.per_record.opacus_bridge import has_grad_sampler, opacus_gradients

# Gradients are clipped to this part of C less than C, so that with all rounding that comes after
# (sum, rotation, grid) one record still moves the outcome by no more than C.
_SLACK = 1e-6


@dataclass(frozen=True)
class _Call:
    """One call of one layer during the forward pass."""

    name: str
    layer: nn.Module
    inputs: torch.Tensor
    version: int
    output: GradientEdge


class RecordGradients:
    """Records what a model's layers do, and turns a loss into clipped gradient sums.

    Use it as ``with watched(model) as gradients:``, one forward pass and one
    `clipped_sum` at a time.
    """

    def __init__(self, model: nn.Module) -> None:
        self._calls: list[_Call] = []
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._handles = [
            layer.register_forward_hook(self._keeper(name))
            for name, layer in layers_with_parameters(model)
        ]

    def close(self) -> None:
        """Take all hooks off the model and forget what was kept."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._calls.clear()

    def clipped_sum(
        self,
        losses: torch.Tensor,
        clip_norm: float,
        records: int | None = None,
        copies: int = 1,
    ) -> Sums:
        """Sum of the records' gradients, each clipped to L2 norm `clip_norm`.

        Args:
            losses: float (n,), the loss of each record, from the one forward pass since the
                last call.
            clip_norm: C; infinite for the plain sum.
            records: how many of the n are records; the rest fill up a block and count as zero.
            copies: views of each record, next to each other, so that there are n * copies losses; a
                record's loss is the mean of its views'.

        Returns:
            A float64 tensor of the parameter's shape for each trainable parameter.

        Raises:
            ModelError: a layer is used in a way that hides its gradients.
        """
        parts = self._layer_gradients(losses / copies if copies > 1 else losses)
        if copies > 1:
            parts = [_of_records(part, copies) for part in parts]
            losses = losses.view(-1, copies).mean(dim=1)
        squared = torch.stack([part.squared_norms() for part in parts]).sum(dim=0)
        factors = clip_factors(squared.sqrt(), clip_norm)
        factors = torch.where(torch.isfinite(losses.detach()), factors, 0.0)
        factors = factors[:records]
        sums: Sums = {p: torch.zeros_like(p, dtype=torch.float64) for p in self._parameters}
        for part in parts:
            for parameter, gradient in part.weighted_sum(factors).items():
                sums[parameter] = gradient.contiguous()
        return sums

    def rows(self, losses: torch.Tensor) -> list[torch.Tensor]:
        """All that norms and sums are made of, float (n, ...) each: row i belongs to record i."""
        return [row for part in self._layer_gradients(losses) for row in part.rows()]

    def _keeper(self, name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def keep(layer: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not torch.is_grad_enabled():
                return
            if not all(isinstance(x, torch.Tensor) for x in (*inputs, output)) or len(inputs) != 1:
                raise ModelError(
                    f"layer {name} ({type(layer).__name__}) cannot be trained privately: it does "
                    "not take one tensor and return one tensor",
                    hint="split it into layers that do",
                )
            (x,) = inputs
            # The edge, not the tensor: it stays right when the output is changed in place.
            edge = get_gradient_edge(output)
            self._calls.append(_Call(name, layer, x.detach(), x._version, edge))

        return keep

    def _layer_gradients(self, losses: torch.Tensor) -> list[LayerGradients]:
        calls, self._calls = self._calls, []
        if not calls:
            raise ModelError("no layer with parameters took part in the loss")
        by_output: tuple[torch.Tensor | None, ...] = torch.autograd.grad(
            losses.sum(), [call.output for call in calls], allow_unused=True
        )
        n = losses.shape[0]
        parts: list[LayerGradients] = []
        for call, grad_output in zip(calls, by_output, strict=True):
            if grad_output is None:
                continue
            if call.inputs._version != call.version:
                raise ModelError(
                    f"the input of layer {call.name} is changed in place after the layer used it, "
                    "so its gradient is lost",
                    hint="use an operation that is not in place",
                )
            _check_precision(call, grad_output)
            if call.inputs.shape[0] != n or grad_output.shape[0] != n:
                hint = (
                    "give it one row of numbers a record, positions too: "
                    "torch.arange(steps).expand(len(x), steps)"
                    if isinstance(call.layer, nn.Embedding)
                    else "keep it first and do not merge it with others"
                )
                raise ModelError(
                    f"layer {call.name} does not keep the batch dimension first, so records cannot "
                    "be told apart",
                    hint=hint,
                )
            parts.extend(_gradients_of(call.layer, call.inputs, grad_output))
        return _with_shared_parameters_merged(parts)


def _check_precision(call: _Call, grad_output: torch.Tensor) -> None:
    """Refuse what the bounds of `calyx.shared.models.per_record.layer_gradients` were not made for.

    They allow for the rounding of float32. That of float16 and bfloat16 is 10^4 times as large, and
    squares of float64 values can vanish where the values do not.
    """
    x = call.inputs
    for tensor in (grad_output, x) if x.is_floating_point() or x.is_complex() else (grad_output,):
        if tensor.dtype != torch.float32:
            raise ModelError(
                f"layer {call.name} ({type(call.layer).__name__}) cannot be trained privately: it "
                f"computes in {tensor.dtype}, and its gradients can only be bounded in "
                "torch.float32",
                hint="remove casts and autocast from the model",
            )


def clip_factors(norms: torch.Tensor, clip_norm: float) -> torch.Tensor:
    """min(1, C/norm) for gradients of these L2 norms, 0 for one that is not finite; (n,)."""
    factors = (clip_norm * (1 - _SLACK) / norms).clamp(max=1.0)
    return torch.where(torch.isfinite(norms), factors, torch.zeros_like(factors))


@contextmanager
def watched(model: nn.Module) -> Iterator[RecordGradients]:
    """Hook a model for the time of the block; nothing remains attached afterwards."""
    gradients = RecordGradients(model)
    try:
        yield gradients
    finally:
        gradients.close()


def layers_with_parameters(model: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Layers to hook: those with trainable parameters of their own, and not just a second name
    for a parameter of a layer below (Opacus' DPLSTM).

    functorch computes a layer as a whole, so nothing below such a layer is hooked.
    """
    below = {p for child in model.children() for p in child.parameters()}
    own = any(p.requires_grad and p not in below for p in model.parameters(recurse=False))
    if own:
        yield name or "(the model itself)", model
    if own and not has_grad_sampler(model):
        return
    for child_name, child in model.named_children():
        yield from layers_with_parameters(child, f"{name}.{child_name}" if name else child_name)


def _gradients_of(
    layer: nn.Module, inputs: torch.Tensor, grad_output: torch.Tensor
) -> Sequence[LayerGradients]:
    # By the very type: a subclass may have a forward of its own.
    if (formula := FORMULAS.get(type(layer))) is not None:
        return formula(layer, inputs, grad_output)
    return [Instantiated(opacus_gradients(layer, inputs, grad_output))]


def _of_records(part: LayerGradients, copies: int) -> LayerGradients:
    """The sums over each record's views: one gradient a record, whose norm is what is bounded."""
    by_view = part.instantiated().gradients
    return Instantiated(
        {p: g.view(-1, copies, *g.shape[1:]).sum(dim=1) for p, g in by_view.items()}
    )


def _with_shared_parameters_merged(parts: list[LayerGradients]) -> list[LayerGradients]:
    """Add up parts that share a parameter: the norm of a sum is no sum of norms.

    That happens where a layer is called more than once or two layers share a weight.
    """
    tables: dict[nn.Parameter, TokenRows] = {}
    others: list[LayerGradients] = []
    for part in parts:
        if isinstance(part, TokenRows):
            # Rows of one table are added up by token, which takes no table for each record.
            table = part.table
            tables[table] = tables[table] + part if table in tables else part
        else:
            others.append(part)
    parts = [*others, *tables.values()]
    uses = Counter(p for part in parts for p in part.parameters)
    single: list[LayerGradients] = []
    merged = Instantiated({})
    for part in parts:
        if all(uses[p] == 1 for p in part.parameters):
            single.append(part)
        else:
            merged = merged + part.instantiated()
    return [*single, merged] if merged.gradients else single
