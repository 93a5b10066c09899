"""Gradients of single records: norms, clipping, sums."""
