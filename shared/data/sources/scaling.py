"""From stored numbers to float32, by constants: what the dtype can hold, or a declared range.

Never by the records themselves: their mean, spread or largest value would be a release of its own
(docs/adr/0029-records-are-read-by-public-facts.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError

# Above, a first layer as it is usually initialised starts saturated, and training goes nowhere.
UNSCALED = 16.0
# Values that use less than this share of their dtype's range are probably narrower than it.
_FULL_RANGE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}


@dataclass(frozen=True)
class Scaled:
    """Numbers ready to be learned from.

    Attributes:
        values: float32, of the shape they had.
        done: what was done, in words.
        warning: what looks wrong with the scale, or empty.
    """

    values: NDArray[np.float32] = field(repr=False)
    done: str
    warning: str = ""


def scaled(
    array: NDArray[Any], declared: tuple[float, float] | None = None, what: str = "values"
) -> Scaled:
    """Scale by the declared range, or else by the dtype; floats and wide integers stay as they are.

    Args:
        array: numbers, (n, ...).
        declared: lowest and highest value there can be, mapped to 0 and 1.
        what: what they are, for messages.

    Raises:
        DataError: a value outside of the declared range.
    """
    kind = str(array.dtype)
    with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused later
        values = array.astype(np.float32)
    if declared is not None:
        low, high = declared
        outside = (array < low) | (array > high)
        if outside.any():
            where = np.argwhere(outside)[0]
            raise DataError(
                f"record {where[0]} holds {array[tuple(where)]}, outside of data.value_range = "
                f"{low:g},{high:g}",
                hint=f"declare the range that {what} really have",
            )
        values -= np.float32(low)
        values /= np.float32(high - low)
        by = f"{high:g}" if low == 0 else f"{low:g} to {high:g}"
        return Scaled(values, f"{kind} scaled by {by}, the declared range")
    if (full := _FULL_RANGE.get(array.dtype)) is not None:
        highest = int(array.max(initial=0))
        values /= full
        warning = ""
        if highest and highest * 4 <= full:
            bits = f", or 0,{(1 << highest.bit_length()) - 1} for {highest.bit_length()} bits"
            warning = (
                f"{what} reach {highest} of the {full} that {kind} can hold: if they are narrower, "
                f"set data.value_range to what they can be{bits if highest > 1 else ''}"
            )
        return Scaled(values, f"{kind} scaled by {full}, what its dtype can hold", warning)
    return Scaled(values, f"{kind} taken as stored", unscaled_warning(values, what))


def unscaled_warning(values: NDArray[np.float32], what: str) -> str:
    """A sentence if numbers are so large that training would stall; else empty."""
    finite = values[np.isfinite(values)]
    if not len(finite) or max(-finite.min(), finite.max()) <= UNSCALED:
        return ""
    low, high = float(finite.min()), float(finite.max())
    return (
        f"{what} go from {low:g} to {high:g} and look unscaled: set data.value_range to the range "
        "they can have, from what is known about them and not from these records"
    )
