"""The two views of a record: an image, or a sequence of its rows."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from calyx.shared.data.dataset import Dataset
from calyx.shared.errors import DataError

if TYPE_CHECKING:
    from calyx.shared.config.schema import View

# Satellites and microscopes have more than the eye; a side of an image is rarely shorter.
_MOST_CHANNELS = 16


def as_view(dataset: Dataset, view: View) -> Dataset:
    """Give the records the shape that image or sequence models take.

    Tokens and records of several inputs have no such shape and are left as they are, and so are all
    others in the view ``stored``.

    ===================  =====================  ==========================================
    record               image                  sequence (steps, features)
    ===================  =====================  ==========================================
    (F,) single numbers  refused                (F, 1): one number a step
    (H, W)               (1, H, W)              (H, W): rows as steps
    (C, H, W)            (C, H, W)              (H, C * W): a row of all channels a step
    (H, W, C)            (C, H, W)              as above
    ===================  =====================  ==========================================

    Channels are at most 16, and fewer than the other end of a record has values; where both ends
    have as many, they come first.

    Raises:
        DataError: records of another shape.
    """
    if view == "stored" or dataset.spec.float_shape is None:
        return dataset
    features = dataset.floats
    if features.ndim == 4:
        features = _channels_first(features)
    n, shape = len(dataset), features.shape[1:]
    if view == "image":
        if len(shape) == 1:
            raise DataError(
                f"a record is {shape[0]} single numbers, which is not an image",
                hint="set data.view=sequence, or store records as (height, width)",
            )
        features = features[:, np.newaxis] if len(shape) == 2 else features
    elif len(shape) == 1:
        features = features[:, :, np.newaxis]
    elif len(shape) == 3:
        features = features.swapaxes(1, 2).reshape(n, shape[1], shape[0] * shape[2])
    if features.ndim != (4 if view == "image" else 3):
        raise _unknown(dataset.input_shape)
    return replace(dataset, features=np.ascontiguousarray(features))


def _channels_first(features: NDArray[Any]) -> NDArray[Any]:
    first, last = features.shape[1], features.shape[3]
    if min(first, last) <= _MOST_CHANNELS:
        return features if first <= last else np.moveaxis(features, 3, 1)
    raise _unknown(features.shape[1:])


def _unknown(shape: tuple[int, ...]) -> DataError:
    return DataError(
        f"a record has shape {shape}",
        hint=(
            "store records as (features,), (height, width) or (steps, features), (channels, "
            "height, width) or (height, width, channels) with 1 to 16 channels"
        ),
    )
