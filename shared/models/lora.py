"""A linear layer that is fine-tuned by a small product (Hu et al. 2022), with A frozen.

    W x + b + s B A x          W, b, A frozen (A: Zhang et al. 2023, LoRA-FA); B starts at zero

Only B is trained. Its gradient for one record is Σ_t b_t (A x_t)ᵀ, of width `rank`: the ghost norm
of a linear layer, which B is.
"""

from __future__ import annotations

import torch
from torch import nn

from calyx.shared.errors import ModelError


class LoraLinear(nn.Module):
    """`base` with a trainable update of rank `rank`.

    Args:
        base: the layer to fine-tune; it is frozen.
        rank: from 1 to the smaller of the layer's two sizes.
        scale: s, what the update is multiplied by.

    Raises:
        ModelError: another rank.
    """

    def __init__(self, base: nn.Linear, rank: int, *, scale: float = 1.0) -> None:
        super().__init__()
        columns, rows = base.in_features, base.out_features
        if not 1 <= rank <= min(columns, rows):
            raise ModelError(
                f"an update cannot have rank {rank} in a layer of {columns} to {rows}",
                hint=f"use a rank from 1 to {min(columns, rows)}",
            )
        self.base = base.requires_grad_(False)
        self.down = nn.Linear(columns, rank, bias=False).requires_grad_(False)
        self.up = nn.Linear(rank, rows, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_features) to (..., out_features)."""
        out: torch.Tensor = self.base(x) + self.scale * self.up(self.down(x))
        return out
