"""What a run is: one validated schema and the ways to read it."""

from calyx.shared.config.config import Config

__all__ = ["Config"]
