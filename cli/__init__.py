"""The `calyx` command."""
