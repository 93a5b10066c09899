"""Convolutions with standardised weights (Qiao et al. 2019), for models with GroupNorm.

They replace what batch norm does for optimisation and mix no records. Subclasses of PyTorch's, with
the same parameters and names.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd


class StandardisedConv(_ConvNd):
    """What the convolutions below have in common."""

    eps: float = 1e-5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, in_channels, *sizes) to (n, out_channels, *output sizes)."""
        out: torch.Tensor = self._conv_forward(x, standardised(self.weight, self.eps), self.bias)
        return out


class StandardisedConv1d(StandardisedConv, nn.Conv1d):
    """`nn.Conv1d` with each filter's weights of mean 0 and variance 1."""


class StandardisedConv2d(StandardisedConv, nn.Conv2d):
    """`nn.Conv2d` with each filter's weights of mean 0 and variance 1."""


class StandardisedConv3d(StandardisedConv, nn.Conv3d):
    """`nn.Conv3d` with each filter's weights of mean 0 and variance 1."""


def standardised(weight: torch.Tensor, eps: float) -> torch.Tensor:
    """(w - mean) / sqrt(var + eps) for each filter of (out_channels, in_channels, *kernel)."""
    filters = weight.flatten(1)
    centred = filters - filters.mean(dim=1, keepdim=True)
    variance = centred.square().mean(dim=1, keepdim=True)
    return (centred * torch.rsqrt(variance + eps)).view_as(weight)
