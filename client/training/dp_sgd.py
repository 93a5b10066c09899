"""DP-SGD inside one client (Abadi et al. 2016), on Opacus' optimiser.

One step releases, for a batch B into which each record came by an independent coin,

    (1/b) ( Σ_{i∈B} g_i min(1, C/‖g_i‖) + N(0, σ²C² I) )

What the accounting in `calyx.shared.privacy` rests on, and where it is kept:

* every record is in the batch with the plan's sampling rate, independently of the others and
  of earlier steps; an empty batch takes its step too, with noise only;
* a record's gradient, over all parameters jointly, has norm at most C, and a gradient that is
  not finite counts as zero: `calyx.shared.models.per_record.gradients`;
* a record's gradient depends on the weights and on the record, and on nothing else: no other record
  of the batch, not even by rounding (`calyx.shared.models.per_record.blocks`), and no random
  number;
* the noise has standard deviation σC for every batch, and comes from a `NoiseSource`;
* the divisor b is the plan's public constant and not the number of records, which is secret;
* what is added afterwards (FedProx's term, momentum, weight decay) depends on weights only.

This module imports Opacus; import it only where private training starts.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from calyx.client.instrumentation.batch_log import BatchSeen
from calyx.client.instrumentation.canaries import CANARY_NORM, add_to
from calyx.client.instrumentation.hooks import NO_AUDIT, Audit
from calyx.client.training.step import TrainingLog, add_proximal_gradient, batch_tensors
from calyx.shared.config.schema import TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.errors import PrivacyError
from calyx.shared.models.build import BUILT_IN
from calyx.shared.models.inputs import call, each
from calyx.shared.models.optimizer import make_optimizer
from calyx.shared.models.per_record.blocks import (
    RecordBlocks,
    filled_up,
    full_blocks,
    record_blocks,
    sampled_blocks,
)
from calyx.shared.models.per_record.gradients import RecordGradients, clip_factors, watched
from calyx.shared.models.per_record.layer_gradients import Sums
from calyx.shared.models.per_record.opacus_bridge import DPOptimizerFastGradientClipping
from calyx.shared.models.per_record.private import check_private, try_private
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.tasks.task import Task


class NoisyOptimizer(DPOptimizerFastGradientClipping):  # type: ignore[misc]
    """Opacus' DP optimiser with its noise from a `NoiseSource`.

    ``step`` expects the clipped sum, float64, from `take`; it adds noise, divides by the expected
    batch size, calls the step hook, and steps the optimiser it wraps.

    Args:
        optimizer: what takes the noisy gradient.
        plan: clip norm, noise multiplier and divisor.
        noise: where the noise comes from.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, plan: PrivacyPlan, noise: NoiseSource
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.clip_norm,
            expected_batch_size=plan.expected_batch_size,
            loss_reduction="mean",
        )
        self._noise = noise

    def take(self, sums: Sums) -> None:
        """Put the clipped sum of a step where Opacus wants it."""
        for parameter in self.params:
            parameter.summed_grad = sums[parameter]

    def accumulate(self) -> None:
        """Opacus would add up each ``grad``; the sum is here already."""

    def add_noise(self) -> None:
        """Put clipped sum plus noise into each ``grad``; the sum itself is dropped."""
        std = self.noise_multiplier * self.max_grad_norm
        for parameter in self.params:
            drawn = self._noise.gaussian(tuple(parameter.shape), std).to(parameter.device)
            # In double precision, rounded once: see `calyx.shared.privacy.noise`.
            parameter.grad = (parameter.summed_grad + drawn).to(parameter.dtype)
            parameter.summed_grad = None

    def detach(self) -> None:
        """Take off the parameters what Opacus and training put on them."""
        for parameter in self.params:
            parameter.grad = None
            del parameter.summed_grad


def train_privately(
    model: nn.Module,
    data: Dataset,
    task: Task,
    config: TrainingConfig,
    plan: PrivacyPlan,
    *,
    proximal_mu: float,
    noise: NoiseSource,
    audit: Audit = NO_AUDIT,
) -> TrainingLog:
    """Train `model` in place with record-level DP-SGD for one round of `plan`.

    Nothing in the plan is taken from `data`, and the model is checked before a record is read.
    Arguments and errors are those of `calyx.client.training.local.train_locally`.
    """
    if plan.unit != "record" or plan.noise != "local" or not plan.noise_multiplier > 0:
        raise PrivacyError(
            "DP-SGD needs a plan with unit record, local noise and a noise multiplier above 0; "
            f"this one has {plan.unit}, {plan.noise}, {plan.noise_multiplier}"
        )
    check_private(model)
    if type(model) not in BUILT_IN:
        # It takes as long as a training step, each round; for the built-in models the tests do it.
        try_private(model, data.spec, task)
    device = next(model.parameters()).device
    blocks = _blocks(model, data, task, plan)
    optimizer = NoisyOptimizer(make_optimizer(config, model.parameters()), plan, noise)
    start = [p.detach().clone() for p in model.parameters()]
    optimizer.attach_step_hook(lambda _: add_proximal_gradient(model, start, proximal_mu))
    batch_sizes: list[int] = []
    last_loss = math.nan
    try:
        with watched(model) as gradients:
            for _ in range(plan.steps_per_round):
                indices = _batch(len(data), plan, noise)
                batch_sizes.append(len(indices))
                sums, total = _clipped_sum(
                    model, gradients, data, task, indices, plan.clip_norm, blocks, device, audit
                )
                _add_canaries(sums, plan, noise, audit)
                optimizer.take(sums)
                last_loss = total / len(indices) if len(indices) else last_loss
                optimizer.step()
    finally:
        optimizer.detach()
    return TrainingLog(len(batch_sizes), tuple(batch_sizes), last_loss)


def clipped_gradient_sum(
    model: nn.Module,
    data: Dataset,
    task: Task,
    plan: PrivacyPlan,
    noise: NoiseSource,
    audit: Audit = NO_AUDIT,
) -> tuple[NDArray[np.float64], int]:
    """Sum of clipped per-record gradients of one sampled batch, without noise.

    For distributed noise only: the sum must not leave the client before its share of the noise is
    added and it is sealed.

    Returns:
        float64 (trainable parameters,) in the model's order, and the batch size, which is secret.
    """
    if not plan.is_gradient_sum:
        raise PrivacyError("only distributed noise takes a sum of gradients without its own noise")
    check_private(model)
    if type(model) not in BUILT_IN:
        try_private(model, data.spec, task)
    device = next(model.parameters()).device
    was_training = model.training
    model.train()
    try:
        blocks = _blocks(model, data, task, plan)
        indices = _batch(len(data), plan, noise)
        with watched(model) as gradients:
            sums, _ = _clipped_sum(
                model, gradients, data, task, indices, plan.clip_norm, blocks, device, audit
            )
        _add_canaries(sums, plan, noise, audit)
        flat = torch.cat([total.cpu().flatten() for total in sums.values()])
    finally:
        model.train(was_training)
    return flat.numpy(), len(indices)


def _blocks(model: nn.Module, data: Dataset, task: Task, plan: PrivacyPlan) -> RecordBlocks:
    """Block sizes in which a batch goes through the model: from public numbers, before any draw."""
    if plan.sampling == "full":
        return record_blocks(model, data.spec, task, full_blocks(len(data), task.copies))
    sizes = sampled_blocks(plan.expected_batch_size, task.copies)
    return record_blocks(model, data.spec, task, sizes)


def _batch(records: int, plan: PrivacyPlan, noise: NoiseSource) -> NDArray[np.int64]:
    """Indices of one step's records: all of them, or by one coin each."""
    if plan.sampling == "full":
        indices = np.arange(records, dtype=np.int64)
    else:
        drawn = np.flatnonzero(noise.coins(records, plan.sampling_rate))
        indices = drawn.astype(np.int64, copy=False)
    return indices


def _add_canaries(sums: Sums, plan: PrivacyPlan, noise: NoiseSource, audit: Audit) -> None:
    """Add the gradients of an audited simulation's canaries to the sums, clipped like others."""
    if audit.canaries is None:
        return
    drawn = audit.canaries.drawn(plan, noise)
    norms = torch.full((len(drawn),), CANARY_NORM * plan.clip_norm, dtype=torch.float64)
    lengths = (norms * clip_factors(norms, plan.clip_norm)).numpy()
    total = audit.canaries.summed(drawn, lengths, sum(p.numel() for p in sums))
    add_to(sums.values(), total)


def _clipped_sum(
    model: nn.Module,
    gradients: RecordGradients,
    data: Dataset,
    task: Task,
    indices: NDArray[np.int64],
    clip_norm: float,
    blocks: RecordBlocks,
    device: torch.device,
    audit: Audit,
) -> tuple[Sums, float]:
    """The batch's clipped sum, float64 in the model's order, and its summed loss.

    Blocks bound memory and change nothing else: clipping is by record, noise is added once.
    """
    sums = {
        p: torch.zeros_like(p, dtype=torch.float64) for p in model.parameters() if p.requires_grad
    }
    total = 0.0
    seen = None if audit.batches is None else BatchSeen(data)
    for first, count, size in blocks.parts(len(indices)):
        drawn = indices[first : first + count]
        inputs, labels = batch_tensors(data, drawn, device)
        if seen is not None:
            seen.entered(inputs, labels, drawn)
        filled = each(inputs, lambda x: task.views(filled_up(x, size)))  # noqa: B023
        wanted = filled_up(labels, size).repeat_interleave(task.copies, dim=0)
        losses = task.record_losses(call(model, filled), wanted)
        clipped = gradients.clipped_sum(losses, clip_norm, count, task.copies)
        for parameter, gradient in clipped.items():
            sums[parameter] += gradient
        total += float(losses.detach()[: count * task.copies].sum()) / task.copies
    if audit.batches is not None and seen is not None:
        audit.batches.add(seen)
    return sums, total
