"""Models, their optimisers, and per-record gradients of them."""

from calyx.shared.models.build import build_model
from calyx.shared.models.optimizer import make_optimizer
from calyx.shared.models.per_record.private import check_private

__all__ = ["build_model", "check_private", "make_optimizer"]
