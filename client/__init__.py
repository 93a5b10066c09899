"""The device: its records never leave it."""
