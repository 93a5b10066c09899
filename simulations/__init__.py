"""Federations on one machine: `run` is the whole flow."""

from simulations.run import RunResult, run

__all__ = ["RunResult", "run"]
