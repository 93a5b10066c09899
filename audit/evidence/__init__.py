"""What was found, in a hash chain bound to the run it is about."""
