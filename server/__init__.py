"""The aggregating server."""
