"""Federations on one machine: `run` is the whole flow."""

from calyx.simulations.run import run
from calyx.simulations.run_result import RunResult

__all__ = ["RunResult", "run"]
