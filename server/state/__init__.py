"""What survives a crash, and what a run reports while it is under way."""
