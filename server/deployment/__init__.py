"""Processes and folders of a server for real devices; no round knows of them."""
