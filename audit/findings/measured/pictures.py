"""Pictures in the report: bytes of grey or colour, small enough to be part of it."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from calyx.audit.section import Section


class Picture(Section):
    """One picture, or one sequence with a row for each step."""

    width: int
    height: int
    channels: int = Field(description="1: grey; 3: red, green and blue of each pixel in turn")
    pixels: str = Field(description="base64 of unsigned bytes, row by row")

    @classmethod
    def of(cls, values: NDArray[Any]) -> Picture:
        """From values in [0, 1]: (h, w), (1, h, w) or (3, h, w); anything else in one row."""
        shaped = values if values.ndim == 3 and len(values) == 3 else _flat(values)
        rows = np.moveaxis(shaped, 0, -1) if shaped.ndim == 3 else shaped
        pixels = np.clip(np.rint(rows * 255), 0, 255).astype(np.uint8)
        return cls(
            width=pixels.shape[1],
            height=pixels.shape[0],
            channels=3 if pixels.ndim == 3 else 1,
            pixels=base64.b64encode(pixels.tobytes()).decode(),
        )

    def array(self) -> NDArray[np.uint8]:
        """uint8 (height, width), or (height, width, 3)."""
        flat = np.frombuffer(base64.b64decode(self.pixels), dtype=np.uint8)
        shape = (self.height, self.width, self.channels)
        return flat.reshape(shape if self.channels == 3 else shape[:2])


def pictures(values: NDArray[Any]) -> tuple[Picture, ...]:
    """One for each of values (n, ...)."""
    return tuple(map(Picture.of, values))


def _flat(values: NDArray[Any]) -> NDArray[Any]:
    values = values.squeeze(0) if values.ndim == 3 and len(values) == 1 else values
    return values if values.ndim == 2 else values.reshape(1, -1)
