"""Runtimes of a simulation: worker processes of this machine, or Ray."""
