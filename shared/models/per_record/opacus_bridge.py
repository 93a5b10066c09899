"""The one place that imports Opacus, and what Opacus is told about our layers.

Import this module only where private training starts: Opacus takes more than a second to
load. On import it configures the root logger, which is the program's and not a library's to
do; that is undone here.

What is used of Opacus: the grad samplers of its layers, functorch for layers that have none,
the rules for which layers can be private, and the DP optimiser. In return `SequenceLSTM` is
registered with it, so that Opacus' own engine, in hook mode and with ghost clipping, can
train it too.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from calyx.shared.models.per_record.ghost_lstm import lstm_gradients
from calyx.shared.models.per_record.layer_gradients import OuterProducts
from calyx.shared.models.recurrent import SequenceLSTM


@contextmanager
def _root_logger_untouched() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


with _root_logger_untouched():
    from opacus.grad_sample import (
        GradSampleModule,
        register_grad_sampler,
        register_norm_sampler,
    )
    from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.validators import ModuleValidator

__all__ = [
    "DPOptimizerFastGradientClipping",
    "ModuleValidator",
    "has_grad_sampler",
    "opacus_gradients",
]


@register_grad_sampler(SequenceLSTM)  # type: ignore[untyped-decorator]
def _lstm_grad_samples(
    layer: SequenceLSTM, activations: list[torch.Tensor], grad_output: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Opacus' hook mode: one gradient a record, (n, *parameter shape)."""
    samples: dict[nn.Parameter, torch.Tensor] = {}
    for products in lstm_gradients(layer, activations[0], grad_output):
        samples.update(products.instantiated().gradients)
    return samples


@register_norm_sampler(SequenceLSTM)  # type: ignore[untyped-decorator]
def _lstm_norm_samples(
    layer: SequenceLSTM, activations: list[torch.Tensor], grad_output: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Opacus' ghost clipping: norms only, (n,) for each parameter."""
    norms: dict[nn.Parameter, torch.Tensor] = {}
    for products in lstm_gradients(layer, activations[0], grad_output):
        b, start = products.outputs, 0
        for weight, count in products.weights:
            single = OuterProducts(
                products.inputs[:, :, start : start + count], b, ((weight, count),), ()
            )
            norms[weight] = single.squared_norms().sqrt()
            start += count
        for bias in products.biases:
            norms[bias] = b.sum(dim=1).norm(dim=1)
    return norms


def has_grad_sampler(layer: nn.Module) -> bool:
    """Whether Opacus has a formula for this layer; otherwise functorch is used."""
    return type(layer) in GradSampleModule.GRAD_SAMPLERS


def opacus_gradients(
    layer: nn.Module, inputs: torch.Tensor, grad_output: torch.Tensor
) -> dict[nn.Parameter, torch.Tensor]:
    """Per-record gradients of any layer by Opacus, float (n, *parameter shape) each.

    Args:
        layer: the layer; all its parameters count if Opacus has no grad sampler for it.
        inputs: the layer's one input, batch first.
        grad_output: gradient of the summed loss by the layer's one output, batch first.
    """
    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer), ft_compute_per_sample_gradient)
    try:
        # Opacus 1.6 reads convolution inputs as if they were contiguous: channels-last ones
        # give wrong gradients, and with them wrong norms, without any error.
        samples: dict[nn.Parameter, torch.Tensor] = sampler(
            layer, [inputs.contiguous()], grad_output.contiguous()
        )
    finally:
        # functorch leaves its compiled function on the layer.
        if hasattr(layer, "ft_compute_sample_grad"):
            del layer.ft_compute_sample_grad
    return {p: g.detach() for p, g in samples.items() if p.requires_grad}
