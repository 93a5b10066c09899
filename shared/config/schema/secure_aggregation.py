"""``[secure_aggregation]``: how single updates are hidden."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from calyx.shared.config.schema.section import PositiveFloat, Section

# In a sum of two, either contributor can subtract itself and is left with the other. So each
# party's default is three; two is for those who say so: the run, every device, the authority.
FEWEST_CONTRIBUTORS, DEFAULT_CONTRIBUTORS = 2, 3


MAX_BITS = 24
"""Widest quantised value that can be asked for."""


class SecureAggregationConfig(Section):
    """How single updates are hidden from the server."""

    scheme: Literal["none", "bfv", "ckks"] = Field(
        "none", description="Encryption under which updates are added up."
    )
    min_contributors: Annotated[int, Field(ge=FEWEST_CONTRIBUTORS)] = Field(
        DEFAULT_CONTRIBUTORS,
        description="No sum of fewer clients is ever released; distributed noise counts on that "
        "many shares.",
    )
    bits: Annotated[int, Field(ge=2, le=MAX_BITS)] = Field(
        14,
        description="Least width of a quantised value. It decides how many values share a slot; "
        "room that is free beside them is used too.",
    )
    clamp: PositiveFloat = Field(
        1.0,
        description="Without distributed noise: largest coordinate of a rotated update; what is "
        "beyond it is cut off.",
    )
