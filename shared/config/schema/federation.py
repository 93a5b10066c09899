"""``[federation]``: who takes part, and how replies become one model."""

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


class FederationConfig(Section):
    """Who takes part in a round, and how replies become one model."""

    clients: Positive = Field(
        10, description="Clients of the run. The server waits until that many are there."
    )
    clients_per_round: Annotated[int, Field(ge=0)] = Field(
        0, description="Clients asked each round; 0 asks all."
    )
    min_replies: Positive = Field(
        2,
        description="A round with fewer usable replies is skipped and the model stays as it was; "
        "three such rounds in a row end the run. With fewer usable *clients* the run ends.",
    )
    strategy: Literal[
        "fedavg", "fedprox", "fedadam", "fedyogi", "fedmedian", "trimmed_mean", "krum", "multikrum"
    ] = Field(
        "fedavg",
        description="How the updates of a round become the next model; these are Flower's "
        "strategies.",
    )
    server_learning_rate: PositiveFloat = Field(
        0.1,
        description="Step size of the server: FedAdam, FedYogi, and the one step a round over all "
        'clients\' records of `unit = "record"` with distributed noise.',
    )
    server_momentum: Probability = Field(
        0.0, description="Momentum of that step over all clients' records."
    )
    proximal_mu: NonNegativeFloat = Field(
        0.1, description="`fedprox` only: weight of the proximal term in the clients' loss."
    )
    trim_fraction: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        0.2, description="`trimmed_mean` only: share cut off at each end."
    )
    malicious_clients: Annotated[int, Field(ge=0)] = Field(
        1, description="`krum` and `multikrum` only: number f of bad replies to withstand."
    )
    selected_clients: Positive = Field(
        3, description="`multikrum` only: how many replies are averaged."
    )
    average_decay: Probability = Field(
        0.0,
        description="Decay of the running average of the global models that is evaluated and kept, "
        "with a warm-up; 0 keeps the newest model. Clients always train on the newest. It uses "
        "released models only and costs no privacy.",
    )
    round_timeout_s: PositiveFloat = Field(
        600.0,
        description="Deadline of a round, in seconds. A client that has not answered by then is "
        "late, and the round goes on without it.",
    )
    join_timeout_s: PositiveFloat = Field(
        60.0,
        description="How long the server waits at the start for `federation.clients` nodes, in "
        "seconds.",
    )
    max_update_norm: PositiveFloat = Field(
        1000.0,
        description="An update whose L2 distance from the model it started from is larger is "
        "rejected, and its sender is quarantined. In sealed runs without distributed noise no "
        "single update is seen; there the sum is held against the number of contributors times "
        'this. No effect with `privacy.noise = "central"`, where updates are clipped on arrival '
        "and none is left out for what it holds.",
    )
    client_evaluation: bool = Field(
        False, description="Also evaluate on the clients' own records after each round."
    )
