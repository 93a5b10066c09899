"""Several views of one image: mirrored, moved by a pixel. The record's loss is their mean.

De et al. 2022 ("Unlocking High-Accuracy Differentially Private Image Classification through Scale")
average the gradients of several augmented copies of a record before it is clipped: the copies share
one record's clip norm, so they cost time and no privacy. Theirs are drawn at random; these are the
same in each step, so that a record's gradient depends on weights and record alone, which is what
the guarantee here rests on and what an audit computes again.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from calyx.shared.errors import ModelError

View = Callable[[torch.Tensor], torch.Tensor]
_SHIFTS = ((0, 1), (0, -1), (1, 0), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1))


def viewed(x: torch.Tensor, augment: str, copies: int) -> torch.Tensor:
    """The first `copies` views of each image, those of one image next to each other.

    Args:
        x: (n, channels, height, width).
        augment: a key of `calyx.shared.config.schema.MOST_COPIES`.
        copies: at most as many as there are.

    Returns:
        (n * copies, channels, height, width)

    Raises:
        ModelError: records are no images.
    """
    if x.dim() != 4:
        raise ModelError(
            f"task.augment makes views of images, and a record has shape {tuple(x.shape[1:])}",
            hint="set data.view=image, or leave task.augment out",
        )
    made = [view(x) for view in _views(augment)[:copies]]
    return torch.stack(made, dim=1).flatten(0, 1)


def _views(augment: str) -> list[View]:
    views: list[View] = [lambda x: x]
    kinds = augment.split(",")
    if "flip" in kinds:
        views.append(lambda x: x.flip(3))
    if "shift" in kinds:
        plain = list(views)
        for down, right in _SHIFTS:
            views += [_then_shifted(view, down, right) for view in plain]
    return views


def _then_shifted(view: View, down: int, right: int) -> View:
    return lambda x: shifted(view(x), down, right)


def shifted(x: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images moved by pixels; what comes in at the edge is 0."""
    height, width = x.shape[2:]
    moved = torch.zeros_like(x)
    to_rows, from_rows = _overlap(down, height)
    to_columns, from_columns = _overlap(right, width)
    moved[:, :, to_rows, to_columns] = x[:, :, from_rows, from_columns]
    return moved


def _overlap(by: int, size: int) -> tuple[slice, slice]:
    if by >= 0:
        return slice(by, size), slice(0, size - by)
    return slice(0, size + by), slice(-by, size)
