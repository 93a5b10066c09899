"""What survives a crash, and what a run tells while it goes on."""
