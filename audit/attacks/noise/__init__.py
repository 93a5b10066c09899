"""The noise of a run, taken by itself."""
