"""Local training: gradients, clipping and noise."""
