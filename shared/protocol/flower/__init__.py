"""Flower's internals, touched nowhere else."""
