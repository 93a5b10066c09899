"""All that reaches a terminal."""
