"""The run once more, with observers."""
