"""What is promised, what it costs, and the noise that keeps it."""
