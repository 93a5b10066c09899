"""Protecting a client's whole update: clip it, then add noise (``unit = client``, local noise).

    update = Δ min(1, C/‖Δ‖) + N(0, σ²C² I)         Δ: all tensors of the update, jointly

Two clipped updates of one client differ by at most 2C. That factor is in the accounting
(`PrivacyPlan.sensitivity_factor`); σ here is in units of C.
"""

from __future__ import annotations

import torch

from calyx.shared.errors import PrivacyError
from calyx.shared.privacy.noise import NoiseSource
from calyx.shared.privacy.plan import PrivacyPlan

# Updates are clipped to C less this fraction of C: the error that rounding in double precision can
# make in the norm of a hundred million values.
_SLACK = 1e-8


def protect_update(
    before: dict[str, torch.Tensor],
    after: dict[str, torch.Tensor],
    plan: PrivacyPlan,
    noise: NoiseSource,
) -> dict[str, torch.Tensor]:
    """Return `before` plus the clipped and noised update, to be sent instead of `after`.

    Every floating-point tensor takes part in the norm and gets noise, scalars (0-d) included.
    Other tensors (counters) are returned as they were in `before`: what local training made
    of them is not protected, so it does not leave. An update with a NaN or infinity anywhere
    counts as zero, and noise is added all the same, so that it cannot be told apart.

    Args:
        before: the global weights the round started from.
        after: the weights after local training, same names, shapes and dtypes.
        plan: clip norm and noise multiplier.
        noise: where the noise comes from.

    Returns:
        New CPU tensors with the names, shapes and dtypes of `before`.

    Raises:
        PrivacyError: the plan is not for whole updates with local noise, or the two sets of
            weights do not match.
    """
    if plan.unit != "client" or plan.noise != "local" or not plan.noise_multiplier > 0:
        raise PrivacyError(
            "protecting an update needs a plan with unit client, local noise and a noise "
            f"multiplier above 0; this one has {plan.unit}, {plan.noise}, {plan.noise_multiplier}"
        )
    _refuse_mismatch(before, after)
    floating = [name for name, tensor in before.items() if tensor.is_floating_point()]
    if not floating:
        raise PrivacyError("the update has no floating-point tensor, so there is nothing to send")
    updates = {name: after[name].detach().cpu().double() - _wide(before[name]) for name in floating}
    norm = float(torch.stack([u.square().sum() for u in updates.values()]).sum().sqrt())
    finite = all(bool(torch.isfinite(u).all()) for u in updates.values())
    # A norm that overflows float64 belongs to an update no training produces.
    factor = (
        min(1.0, plan.clip_norm * (1 - _SLACK) / max(norm, 1e-300))
        if finite and norm < float("inf")
        else None
    )
    std = plan.noise_multiplier * plan.clip_norm
    protected: dict[str, torch.Tensor] = {}
    for name, tensor in before.items():
        protected[name] = tensor.detach().cpu().clone()
        if name in updates:
            clipped = torch.zeros_like(updates[name]) if factor is None else updates[name] * factor
            drawn = noise.gaussian(tuple(tensor.shape), std)
            # Noise first: a large weight would round away part of what it was added to before.
            protected[name] = (_wide(tensor) + (clipped + drawn)).to(tensor.dtype)
    return protected


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A float64 copy on the CPU, so that rounding does not push the norm over the bound."""
    return tensor.detach().cpu().double()


def _refuse_mismatch(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> None:
    if before.keys() != after.keys():
        names = sorted(before.keys() ^ after.keys())
        raise PrivacyError(
            f"the update cannot be protected: {names[0]} is in the model before or after training, "
            "not in both"
        )
    for name, tensor in before.items():
        if tensor.shape != after[name].shape or tensor.dtype != after[name].dtype:
            raise PrivacyError(
                f"the update cannot be protected: {name} was {tuple(tensor.shape)} {tensor.dtype} "
                f"and became {tuple(after[name].shape)} {after[name].dtype}"
            )
