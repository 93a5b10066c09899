"""Contributions of known direction, in or out by a coin."""
