"""The report, from findings."""
