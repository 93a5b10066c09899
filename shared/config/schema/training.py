"""``[training]``: rounds and local optimisation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calyx.shared.config.schema.section import (
    NonNegativeFloat,
    Positive,
    PositiveFloat,
    Probability,
    Section,
)


class TrainingConfig(Section):
    """Rounds and local optimisation."""

    rounds: Positive = Field(
        30,
        description="Rounds of the run. The privacy budget is divided over all of them before the "
        "first.",
    )
    local_epochs: PositiveFloat = Field(
        1.0,
        description="Passes over the local records in a round. With differential privacy it only "
        "fixes the number of steps: records × epochs / batch size, rounded, at least 1.",
    )
    local_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="Optimiser steps in a round; 0 derives them from `training.local_epochs`."
    )
    batch_size: Positive = Field(
        32,
        description="Size of a batch; with differential privacy the *expected* size of a Poisson "
        "batch, and the public divisor of the noisy gradient sum. A client with fewer records "
        "uses all of them.",
    )
    optimizer: Literal["sgd", "adam", "rmsprop"] = Field(
        "sgd", description="The local optimiser. Its state does not outlive a round."
    )
    learning_rate: PositiveFloat = Field(0.1, description="Step size of the local optimiser.")
    momentum: Probability = Field(
        0.0, description="For `sgd` and `rmsprop`; `adam` has its own and ignores it."
    )
    weight_decay: NonNegativeFloat = Field(0.0, description="L2 penalty of the local optimiser.")
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the step size falls over the rounds, of local training and of the "
        "server's step over all clients' records.",
    )
    warmup_rounds: Annotated[int, Field(ge=0)] = Field(
        0, description="Rounds in which the step size rises to its full value."
    )
    micro_batch: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Records that go through the model at once where there is no record-level "
        "privacy; their gradients add up to those of the batch. Less memory, same step; 0: the "
        "whole batch. Record-level privacy bounds memory by itself.",
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0,
        description="End the run when the first metric on the server's test set has not improved "
        "for this many rounds; 0: never. What is left of the budget stays unspent. The test figure "
        "then favours the model, because it chose when to stop.",
    )
    start: str = Field(
        "",
        description="Weights to start from: a `.safetensors` file or a run folder (`--from`). What "
        "they were trained on is outside the guarantee of this run.",
    )
    start_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = Field(
        "", description="SHA-256 of these weights; filled in when the configuration is read."
    )
    device: Literal["cpu", "cuda"] = Field(
        "cpu",
        description="Where models are trained and evaluated; `cuda` is refused before anything "
        "starts where PyTorch finds none. It is part of the digest, because it can change the "
        "last bits of a result.",
    )
