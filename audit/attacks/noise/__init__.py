"""The noise of a run, on its own."""
