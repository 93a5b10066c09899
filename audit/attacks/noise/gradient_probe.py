"""One step of DP-SGD on a few records, less their clipped gradients: its noise, layer by layer.

A round of several steps cannot be taken apart from outside: each step starts where noise has led
the one before. So the trainer makes a single step, over a full batch of few records and with plain
SGD. What the records contribute is computed a second way (`calyx.audit.replay.record_sums`).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from calyx.audit.attacks.noise.remainders import Remainders
from calyx.audit.finished_run import AuditedRun
from calyx.audit.replay.record_sums import clipped_sum_by_record
from calyx.client.node import Node
from calyx.client.training.local import train_locally
from calyx.shared.models import build_model
from calyx.shared.models.vector import to_vector, trainable_names
from calyx.shared.protocol.arrays import weights_of

_RECORDS = 8


def one_step(audited: AuditedRun, nodes: Sequence[Node], calls: int) -> Remainders:
    """The noise of single steps, over its planned deviation."""
    config = audited.config
    records = [node.records(config) for node in nodes]
    model = build_model(config.model, records[0].spec, records[0].classes, config.seed)
    named, names = dict(model.named_parameters()), trainable_names(model)
    start = to_vector(weights_of(model), names)
    found = Remainders(len(nodes) * calls, [named[name].numel() for name in names])
    for stream, (node, own) in enumerate(zip(nodes, records, strict=True)):
        few = own.subset(np.arange(min(_RECORDS, len(own))))
        plan = audited.planned_anew[stream]
        single = replace(plan, sampling="full", sampling_rate=1.0, steps_per_round=1)
        deviation = plan.noise_multiplier * plan.clip_norm
        # With this rate the step is the noisy sum over the planned deviation.
        rate = plan.expected_batch_size / deviation
        training = config.training.model_copy(
            update={
                "optimizer": "sgd",
                "learning_rate": rate,
                "momentum": 0.0,
                "weight_decay": 0.0,
            }
        )
        expected = clipped_sum_by_record(model, few, plan.clip_norm) / deviation
        for call in range(calls):
            stepped = copy.deepcopy(model)
            noise = node.noise(f"probe {call}")
            train_locally(
                stepped, few, training, single, proximal_mu=0.0, noise=noise, order_seed=call
            )
            moved = to_vector(weights_of(stepped), names) - start
            found.add(stream, call, -moved - expected)
    return found
