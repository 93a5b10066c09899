"""Flower's SuperLink, and the gate in front of it."""
