"""The run again, with observers."""
