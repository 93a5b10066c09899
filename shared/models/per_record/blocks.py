"""In what sizes a batch goes through a model, so that no record moves another by rounding.

A matrix product of 63 rows may add up in another order than one of 64: then a record's gradient
would depend, in its last bits, on how many others are in the batch. A sender of weights can
make terms cancel until the last bits are all that is left, and one record more would turn another's
clipped gradient by up to 2C, in a sum whose sensitivity is C.

Processors compute row by row in an order that depends on shapes only. So batches are cut into
blocks of a few sizes, filled up with empty rows, and before training it is tried out that in all of
these sizes, at every position, a row comes out the same bit for bit. If not, there are fewer sizes;
a block of one record is right on any machine. Sizes follow from public numbers, never from what was
drawn (docs/adr/0016).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from calyx.shared.models.inputs import call, each, made_up, made_up_labels
from calyx.shared.models.per_record.gradients import layers_with_parameters, watched
from calyx.shared.models.per_record.private import with_made_up_weights
from calyx.shared.models.seeding import torch_seeded
from calyx.shared.record_spec import RecordSpec
from calyx.shared.tasks.task import Task

# More records at once take more memory and save no time.
_MOST = 256
# At most this many sizes are tried out: it takes as long as a few training steps, once a process.
_MOST_SIZES = 12
_SMALLEST = 8
# Where sizes do not agree with each other, this one alone may still agree with itself.
_MIDDLE = 32
# Weights and records that are made up for it: one draw may have too few numbers that round.
_DRAWS = 3
_Key = tuple[object, ...]
_tried: dict[_Key, tuple[int, ...]] = {}


@dataclass(frozen=True)
class RecordBlocks:
    """Block sizes, ascending."""

    sizes: tuple[int, ...]

    def parts(self, records: int) -> Iterator[tuple[int, int, int]]:
        """(first record, number of records, block size) of each block of a batch."""
        first = 0
        while first < records:
            rest = records - first
            size = next((size for size in self.sizes if size >= rest), self.sizes[-1])
            yield first, min(rest, size), size
            first += size


def sampled_blocks(expected: float, copies: int = 1) -> tuple[int, ...]:
    """Sizes for Poisson batches of this expected size: multiples of a step, to a bit above it.

    Of records that go through the model in several copies fewer fit in a block.
    """
    most = min(expected + 2 * math.sqrt(expected), _most(copies))
    step = _step(most)
    return tuple(range(step, step * math.ceil(most / step) + 1, step))


def full_blocks(records: int, copies: int = 1) -> tuple[int, ...]:
    """Sizes for all of that many records: whole blocks and what is left over."""
    most = _most(copies)
    step = _step(min(records, most))
    rest = step * math.ceil((records % most) / step)
    return tuple(sorted({step, rest or step, most if records >= most else step}))


def _most(copies: int) -> int:
    return max(_SMALLEST, _MOST // copies)


def filled_up(x: torch.Tensor, size: int) -> torch.Tensor:
    """`x` with zeros to `size` rows, in memory of PyTorch's own alignment."""
    filled = x.new_zeros((size, *x.shape[1:]))
    filled[: len(x)] = x
    return filled


def record_blocks(
    model: nn.Module, spec: RecordSpec, task: Task, sizes: tuple[int, ...]
) -> RecordBlocks:
    """The first of `sizes`, one middle size, single records whose rows do not depend on the block.

    Args:
        model: it is left as it was. What is tried out is a copy with weights of our own, since a
            sender could choose weights for which everything looks equal.
        spec: what is public about a record.
        task: its loss is part of what is tried.
        sizes: ascending.
    """
    device = next(model.parameters()).device
    # Frozen layers are not looked into, so their trial says nothing of when they are trained.
    shapes = tuple((name, tuple(p.shape), p.requires_grad) for name, p in model.named_parameters())
    key: _Key = (
        *(type(model), repr(model), _settings(model), shapes, spec, task, sizes),
        *(str(device), torch.get_num_threads(), torch.get_float32_matmul_precision()),
    )
    if key not in _tried:
        candidates = (sizes, (_MIDDLE,))
        _tried[key] = next(
            (s for s in candidates if _rows_agree(model, spec, task, s, device)), (1,)
        )
    return RecordBlocks(_tried[key])


def _settings(model: nn.Module) -> _Key:
    """What layers were made with and neither their text nor their shapes show, as numbers of heads.

    A server could have a gentler model tried before the one that it wants trained.
    """
    return tuple(
        (name, key, value)
        for name, layer in model.named_modules()
        for key, value in sorted(vars(layer).items())
        if isinstance(value, int | float | str) and key != "training"
    )


def _step(most: float) -> int:
    step = _SMALLEST
    while most / step > _MOST_SIZES:
        step *= 2
    return step


def _rows_agree(
    model: nn.Module,
    spec: RecordSpec,
    task: Task,
    sizes: tuple[int, ...],
    device: torch.device,
) -> bool:
    """Whether made-up records are the same, bit for bit, at all places of all sizes.

    Compared are losses, all that norms and sums are made of, and what each layer with weights gives
    out and back, before an activation can hide a difference: under a sender's weights it would
    not. Whether a place rounds otherwise shows in some records only, hence several draws.
    """
    generator = torch.Generator().manual_seed(0)
    return all(_draw_agrees(model, spec, task, sizes, device, generator) for _ in range(_DRAWS))


def _draw_agrees(
    model: nn.Module,
    spec: RecordSpec,
    task: Task,
    sizes: tuple[int, ...],
    device: torch.device,
    generator: torch.Generator,
) -> bool:
    probe = with_made_up_weights(model, generator)
    records = sizes[-1]
    x = each(made_up(spec, records, generator), lambda x: x.to(device))
    labels = made_up_labels(spec.target, records, generator).to(device)
    with torch_seeded(0, device), watched(probe) as gradients, _looked_into(probe) as seen:

        def rows(order: torch.Tensor) -> list[torch.Tensor]:
            seen.clear()
            outputs = call(probe, each(x, lambda x: task.views(filled_up(x[order], len(order)))))
            wanted = labels[order].repeat_interleave(task.copies, dim=0)
            losses = task.record_losses(outputs, wanted)
            passed = [values for values, _ in seen if values is not None]
            by_layer = torch.autograd.grad(
                losses.sum(), [edge for _, edge in seen], allow_unused=True, retain_graph=True
            )
            passed += [gradient for gradient in by_layer if gradient is not None]
            by_view = [losses.detach(), *passed, *gradients.rows(losses)]
            return [row.view(len(order), task.copies, *row.shape[1:]) for row in by_view]

        reference = rows(torch.arange(records))
        for size in sizes:
            order = torch.randint(records, (size,), generator=generator)
            found = rows(order)
            if not all(torch.equal(r[order], f) for r, f in zip(reference, found, strict=True)):
                return False
    return True


_Seen = list[tuple[torch.Tensor | None, GradientEdge]]


@contextmanager
def _looked_into(model: nn.Module) -> Iterator[_Seen]:
    """What each layer with weights gives out, and where to ask for the gradients that it gets and
    gives back; in the order of the forward pass.
    """
    seen: _Seen = []

    def keep(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append((output.detach().clone(), get_gradient_edge(output)))
        if inputs[0].requires_grad:
            seen.append((None, get_gradient_edge(inputs[0])))

    handles = [layer.register_forward_hook(keep) for _, layer in layers_with_parameters(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
