"""The key authority as its server sees it."""
