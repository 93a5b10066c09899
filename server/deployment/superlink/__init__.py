"""Flower's SuperLink, and the gate that stands before it."""
