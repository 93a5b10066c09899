"""Local training: the one entry `train_locally`, and its plain branch.

Which branch runs follows from the privacy plan alone:

* no differential privacy, or ``unit = client``: plain minibatch training. For ``client`` the
  whole update is protected afterwards, see `calyx.client.training.client_level`;
* ``unit = record`` with local noise: DP-SGD, see `calyx.client.training.dp_sgd`.

Equal inputs give bit-identical weights. With seeded noise that also holds for private runs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch import nn

from calyx.client.instrumentation.hooks import NO_AUDIT, Audit
from calyx.client.training.step import TrainingLog, add_proximal_gradient, batch_tensors
from calyx.shared.config.schema import TrainingConfig
from calyx.shared.data import Dataset
from calyx.shared.models.inputs import call, each
from calyx.shared.models.optimizer import make_optimizer
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.models.tryout import torch_device
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan
from calyx.shared.tasks.task import Task


def train_locally(
    model: nn.Module,
    data: Dataset,
    task: Task,
    config: TrainingConfig,
    plan: PrivacyPlan,
    *,
    proximal_mu: float,
    noise: NoiseSource,
    order_seed: int,
    audit: Audit = NO_AUDIT,
) -> TrainingLog:
    """Train `model` in place on one client's records for one round.

    Args:
        model: starts from the global weights; ends with the local ones, on the CPU.
        data: the client's training records.
        task: the loss to lower.
        config: optimiser and device.
        plan: steps, batch size and, for record-level privacy, sampling, clipping and noise.
        proximal_mu: weight of FedProx's term (mu/2) ||w - w_global||^2 (Li et al. 2020); 0 is
            FedAvg.
        noise: randomness of DP-SGD; not used by the plain branch.
        order_seed: seed of the record order and of the model's own randomness (dropout).
        audit: what an audited simulation adds to DP-SGD; no other training takes it.

    Raises:
        ModelError: the device is not available.
        ModelError: the model cannot be trained privately.
        PrivacyError: the plan is for records, but its noise is not local or is missing.
    """
    device = torch_device(config.device)
    model.to(device)
    was_training = model.training
    model.train()
    try:
        with torch_seeded(order_seed, device):
            if not plan.is_record_level:
                return _train_plainly(model, data, task, config, plan, proximal_mu, order_seed)
            # Opacus takes more than a second to load; plain training does without.
            from calyx.client.training.dp_sgd import train_privately

            return train_privately(
                model,
                data,
                task,
                config,
                plan,
                proximal_mu=proximal_mu,
                noise=noise,
                audit=audit,
            )
    finally:
        model.train(was_training)
        model.to("cpu")


def _train_plainly(
    model: nn.Module,
    data: Dataset,
    task: Task,
    config: TrainingConfig,
    plan: PrivacyPlan,
    proximal_mu: float,
    order_seed: int,
) -> TrainingLog:
    device = next(model.parameters()).device
    optimizer = make_optimizer(config, model.parameters())
    start = [p.detach().clone() for p in model.parameters()]
    batch_size = min(int(plan.expected_batch_size), len(data))
    batch_sizes: list[int] = []
    last_loss = float("nan")
    for indices in _batches(len(data), batch_size, plan.steps_per_round, order_seed):
        optimizer.zero_grad()
        last_loss = 0.0
        for some in _micro_batches(indices, config.micro_batch):
            inputs, labels = batch_tensors(data, some, device)
            outputs = call(model, each(inputs, task.views))
            losses = task.record_losses(outputs, labels.repeat_interleave(task.copies, dim=0))
            loss = losses.mean() * (len(some) / len(indices))
            loss.backward()  # type: ignore[no-untyped-call]
            last_loss += float(loss.detach())
        add_proximal_gradient(model, start, proximal_mu)
        optimizer.step()
        batch_sizes.append(len(indices))
    optimizer.zero_grad()
    return TrainingLog(len(batch_sizes), tuple(batch_sizes), last_loss)


def _micro_batches(indices: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """A batch in parts that go through the model one after the other; one part if `size` is 0."""
    if not size or size >= len(indices):
        return [indices]
    return np.split(indices, range(size, len(indices), size))


def _batches(
    records: int, batch_size: int, steps: int, order_seed: int
) -> Iterator[NDArray[np.int64]]:
    """`steps` batches from one shuffled pass after the other; a batch may span two passes."""
    generator = np.random.default_rng(order_seed)
    queue = generator.permutation(records)
    for _ in range(steps):
        if len(queue) < batch_size:
            queue = np.concatenate([queue, generator.permutation(records)])
        yield queue[:batch_size]
        queue = queue[batch_size:]
