"""Folder and process of a real device; no round knows of them."""
