"""``[privacy]``: what is promised."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calyx.shared.config.protection import Protection
from calyx.shared.config.schema.section import Section

# Outside, clipped values or their noise come near the ends of single precision, where rounding is
# no longer small beside them. No gradient or update needs another bound.
SMALLEST_CLIP_NORM, LARGEST_CLIP_NORM = 1e-6, 1e6


class PrivacyConfig(Protection, Section):
    """What is promised, to whom, by which noise; SECURITY.md says against whom."""

    unit: Literal["record", "client"] = Field(
        "record",
        description="Whom epsilon protects: one record of a client, or everything a client "
        "contributes. With distributed and central noise the latter means its update against none; "
        "what that is for one record, or for other data of the client, is told beside it ([ADR "
        "0017](adr/0017-what-an-event-says-for-each-unit.md)).",
    )
    noise: Literal["none", "local", "distributed", "central"] = Field(
        "local",
        description="Who adds the noise. `none`: there is no differential privacy. `local`: each "
        "client to what it sends. `distributed`: each client a share of what a sealed sum needs. "
        "`central`: the server, which sees updates without noise, to the sum of clipped updates "
        "divided by the clients asked each round.",
    )
    # Below lies no use, above no promise, and in both no accountant that answers in time.
    epsilon: Annotated[float, Field(ge=0.001, le=10_000, allow_inf_nan=False)] = Field(
        8.0,
        description='Budget of the whole run, not of a round. Ignored with `noise = "none"`.',
    )
    delta: Annotated[float, Field(gt=0, lt=1)] = Field(
        1e-4,
        description="The δ at which `privacy.epsilon` is meant. It should be well below 1 / "
        '(records of all clients), or 1 / (clients) for `privacy.unit = "client"`: from there on '
        "plan and run warn, and no report calls the run guaranteed.",
    )
    clip_norm: Annotated[
        float, Field(ge=SMALLEST_CLIP_NORM, le=LARGEST_CLIP_NORM, allow_inf_nan=False)
    ] = Field(
        1.0,
        description="L2 bound C of one unit's contribution: of one record's gradient, or of one "
        "client's update.",
    )
    sampling: Literal["poisson", "full"] = Field(
        "poisson",
        description="`poisson`: each record enters each batch by an independent coin, which "
        "amplifies privacy; `full`: every record enters every batch, and no assumption on sampling "
        "is needed.",
    )
    record_counts: Literal["public", "nominal"] = Field(
        "public",
        description="`public`: each client's record count is declared public; `nominal`: every "
        "client calculates with `privacy.nominal_records`, and its own count never leaves it. A "
        "device whose policy lacks `[release] record_counts = true` takes part in nominal runs "
        "only ([ADR 0007](adr/0007-public-and-nominal-record-counts.md)).",
    )
    nominal_records: Annotated[int, Field(ge=0)] = Field(
        0, description="`nominal` only: the public number."
    )
    release_metrics: bool = Field(
        False,
        description="Let clients send exact, unprotected metrics in a private run. Epsilon does "
        "not cover them and the ledger is not charged; the report names them in its headline and "
        "gives no bound against the server.",
    )
