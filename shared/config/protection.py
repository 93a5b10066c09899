"""What follows from whom epsilon protects and who adds the noise, for configuration and plan alike.

Both hold the same pair, `unit` and `noise`; each question about the pair that comes up in more
than one place has its answer, and its name, here.
"""

from __future__ import annotations

from typing import Protocol


class _UnitAndNoise(Protocol):
    @property
    def unit(self) -> str: ...

    @property
    def noise(self) -> str: ...


class Protection:
    """Adds the answers to a class that has `unit` and `noise`."""

    @property
    def is_private(self: _UnitAndNoise) -> bool:
        """Whether there is any differential privacy."""
        return self.noise != "none"

    @property
    def is_record_level(self: _UnitAndNoise) -> bool:
        """Whether noise protects single records, so that their gradients are clipped one by one."""
        return self.unit == "record" and self.noise != "none"

    @property
    def is_client_level(self: _UnitAndNoise) -> bool:
        """Whether noise protects clients as a whole, so that each update is clipped as a whole."""
        return self.unit == "client" and self.noise != "none"

    @property
    def is_gradient_sum(self: _UnitAndNoise) -> bool:
        """Whether what is released is one sum of clipped gradients a round.

        It is one step of DP-SGD over the union of all records; everything else that clients hand
        over is an update or trained weights.
        """
        return self.unit == "record" and self.noise == "distributed"

    @property
    def is_noised_by_clients(self: _UnitAndNoise) -> bool:
        """Whether the noise, or a share of it, is added on the device."""
        return self.noise in ("local", "distributed")
