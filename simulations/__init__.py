"""Federations on one machine: `run` is the whole flow."""

from calyx.simulations.run import RunResult, run

__all__ = ["RunResult", "run"]
