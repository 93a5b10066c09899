"""The searches behind gradient inversion: L-BFGS for smooth networks, Adam for the others.

Both start from uniform noise. L-BFGS (strong Wolfe line search; Zhu et al. 2019) works in double
precision, where it improves from 30 to more than 60 dB. ReLU and max-pooling make the distance
jump, so for them it is Adam on the sign of the gradient, within the box, with total variation as
the prior of what a picture looks like (Geiping et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from calyx.audit.progress import Tick

# From candidate records to their distance, a scalar, from what was observed.
Distance = Callable[[torch.Tensor], torch.Tensor]

LBFGS_ITERATIONS = 300
LBFGS_STARTS = 2
ADAM_ITERATIONS = 300
ADAM_RATE = 0.1
TOTAL_VARIATION = 1e-2
# Relative squared distance at which the records are found, to about 80 dB, and the search ends.
_FOUND = 1e-9
_ITERATIONS_AT_ONCE = 20


def by_lbfgs(
    distance: Distance,
    shape: tuple[int, ...],
    seed: int,
    tick: Tick,
    *,
    iterations: int = LBFGS_ITERATIONS,
    starts: int = LBFGS_STARTS,
) -> torch.Tensor:
    """Search without bounds; float64 of `shape`, the best of all starts.

    Args:
        distance: 0 for the records themselves, about 1 for a gradient of zero.
    """
    best, least = torch.full(shape, 0.5, dtype=torch.float64), float("inf")
    for start in range(starts):
        generator = torch.Generator().manual_seed(seed + start)
        x = torch.rand(shape, generator=generator, dtype=torch.float64).requires_grad_()
        optimizer = torch.optim.LBFGS(
            [x],
            max_iter=_ITERATIONS_AT_ONCE,
            tolerance_grad=1e-14,
            tolerance_change=1e-18,
            line_search_fn="strong_wolfe",
        )

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            nonlocal best, least
            value = distance(x)
            (slope,) = torch.autograd.grad(value, x)
            # Recurrent layers return it with their own layout, which L-BFGS does not take.
            x.grad = slope.contiguous()
            found = float(value.detach())
            # The line search may end on a worse point than it has seen.
            if found < least:
                best, least = x.detach().clone(), found
            return value.detach()

        for done in range(0, iterations, _ITERATIONS_AT_ONCE):
            before = least
            # History and step size are kept between the calls.
            optimizer.step(closure)  # type: ignore[no-untyped-call]
            tick((start + done / iterations) / starts)
            if least < _FOUND or not least < before:
                break
        if least < _FOUND:
            break
    tick(1.0)
    return best


def by_adam(
    distance: Distance,
    shape: tuple[int, ...],
    seed: int,
    tick: Tick,
    *,
    low: float = 0.0,
    high: float = 1.0,
    iterations: int = ADAM_ITERATIONS,
) -> torch.Tensor:
    """Search within the box [low, high]; float32 of `shape`, where it ends."""
    generator = torch.Generator().manual_seed(seed)
    x = (low + (high - low) * torch.rand(shape, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([x], lr=ADAM_RATE * (high - low))
    drops = [int(iterations * share) for share in (3 / 8, 5 / 8, 7 / 8)]
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops)
    for iteration in range(iterations):
        value = distance(x) + TOTAL_VARIATION * total_variation(x) / (high - low)
        (slope,) = torch.autograd.grad(value, x)
        x.grad = slope.sign()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            x.clamp_(low, high)
        tick((iteration + 1) / iterations)
    return x.detach()


def total_variation(x: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbours along the last two dimensions."""
    down = (x[..., 1:, :] - x[..., :-1, :]).abs()
    right = (x[..., 1:] - x[..., :-1]).abs()
    parts = [part.mean() for part in (down, right) if part.numel()]
    return torch.stack(parts).sum() if parts else x.sum() * 0
