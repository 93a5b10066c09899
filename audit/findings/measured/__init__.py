"""What follows from attacks on the run."""
