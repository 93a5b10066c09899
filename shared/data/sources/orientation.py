"""Motion freed from how a device was worn: what is along gravity, and what is across it.

The same phone lies in every pocket another way, so its axes mean something else for each wearer.
The mean acceleration of a window points up (Mizell 2003, "Using Gravity to Estimate Accelerometer
Orientation"): each sensor's three axes become two values, along that direction and across it. A
turn of the body is then a rotation about the vertical, whatever the axis was called. It is computed
within one record and looks at no other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from calyx.shared.errors import DataError

_AXES = 3


def along_gravity(windows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Two values for each sensor, along and across the mean of the first one.

    Args:
        windows: float32 (n, window, 3 * sensors): x, y, z of each, the accelerometer first.

    Returns:
        float32 (n, window, 2 * sensors)
    """
    n, window, columns = windows.shape
    axes = windows.reshape(n, window, columns // _AXES, _AXES).astype(np.float64)
    up = axes[:, :, 0].mean(axis=1)
    length = np.linalg.norm(up, axis=1, keepdims=True)
    # A window without any acceleration has no up; any direction will do.
    up = np.where(length > 0, up / np.where(length > 0, length, 1), [1.0, 0.0, 0.0])
    along = np.einsum("nwsa,na->nws", axes, up)
    across = np.linalg.norm(axes - along[..., np.newaxis] * up[:, None, None], axis=3)
    return np.stack([along, across], axis=3).reshape(n, window, -1).astype(np.float32)


def check_axes(columns: list[str], bounds: dict[str, tuple[float, float]]) -> None:
    """See that columns are three axes of one sensor after the other, scaled alike.

    Raises:
        DataError: they are not.
    """
    if not columns or len(columns) % _AXES:
        raise DataError(
            f"data.orientation = gravity needs x, y, z of each sensor; there are {len(columns)} "
            "columns",
            hint="name them in data.columns, those of the accelerometer first",
        )
    for first in range(0, len(columns), _AXES):
        axes = columns[first : first + _AXES]
        scales = {bounds.get(name, bounds.get("*")) for name in axes}
        (scale,) = scales if len(scales) == 1 else (("unequal",),)
        if scale is not None and (len(scale) != 2 or scale[0] != -scale[1]):
            raise DataError(
                f"data.orientation = gravity turns {', '.join(axes)} into each other, but "
                "data.bounds scales them differently",
                hint="give the three the same bounds, -B:B",
            )
