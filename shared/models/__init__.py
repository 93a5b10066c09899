"""Models, their optimisers, and per-record gradients of them."""

from shared.models.build import build_model
from shared.models.optimizer import make_optimizer
from shared.models.private import check_private

__all__ = ["build_model", "check_private", "make_optimizer"]
